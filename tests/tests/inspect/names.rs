//! What the rules make of server names: exact, the longest wildcard, the default, else a refusal.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use snigate_tests::{
    Lab,
    addresses::{SIP_TLS, VIP_1},
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
    peers::{
        Answer, EchoEdge, GnutlsClient, OpensslClient, OpensslServer, Segments, TlsVersion,
        captured_hello, replay,
    },
    pki::Pki,
};

use crate::{
    THREE_DOMAINS, TIMEOUT, both, echo::say, ensure_counted, hellos::asking_for, quiet, shared,
};

/// Wildcards of two lengths, an exact name below both, and one name that depends on the application protocol.
const RULES: &str = r#"
[[domain]]
sip_domain = "contoso.example"
names = ["*.contoso.example", "sip.east.voip.contoso.example"]
pool = "edges-a"

[[domain]]
sip_domain = "voip.contoso.example"
names = ["*.voip.contoso.example"]
pool = "edges-b"

[[domain]]
sip_domain = "fabrikam.example"
pool = "edges-a"

[[domain]]
sip_domain = "fabrikam.example"
alpn = ["sip/2"]
pool = "edges-b"

[[domain]]
sip_domain = "west.contoso.example"
alpn = ["sip/2"]
pool = "edges-b"
"#;

#[test]
fn the_most_specific_rule_decides() {
    lab_test("inspect-rules", &quiet(), |lab| {
        let _edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let gateway = Gateway::start(lab, &shared("preserve", "", RULES))?;
        let goes = |hello: &[u8], edge: &str| -> Result<()> {
            for address in both(VIP_1) {
                let echo = say(lab, address, hello, Segments::Few)?;
                ensure!(echo.edge == edge && echo.bytes == hello, "{}", echo.edge);
            }
            Ok(())
        };
        for (name, edge) in [
            ("sip.contoso.example", "a"),
            ("a.b.contoso.example", "a"),
            ("sip.voip.contoso.example", "b"),
            ("a.b.voip.contoso.example", "b"),
            ("SIP.West.VoIP.Contoso.Example.", "b"),
            ("sip.east.voip.contoso.example", "a"),
            ("Sip.East.VoIP.contoso.example.", "a"),
        ] {
            goes(&asking_for(name)?, edge).context(name)?;
        }
        // The wildcards' own stems are not below them.
        for name in ["contoso.example", "sip.fabrikam.example.contoso"] {
            refused(lab, &asking_for(name)?, &Answer::UNRECOGNIZED_NAME)?;
        }
        // "sip.fabrikam.example", without application protocols and with "sip/2" among them.
        goes(&captured_hello("openssl-tls13")?, "a")?;
        goes(&captured_hello("openssl-alpn")?, "b")?;
        // Whose protocol is not offered does not go where a wider wildcard leads.
        let hello = asking_for("sip.west.contoso.example")?;
        refused(lab, &hello, &Answer::Alert(2, 120))?;
        ensure_counted(&gateway, "wrong-protocol", 2)?;

        for (name, matched, hits) in [
            ("sip.contoso.example", "wildcard", 2),
            ("sip.east.voip.contoso.example", "exact", 4),
            ("sip.west.voip.contoso.example", "wildcard", 2),
            ("sip.fabrikam.example", "exact", 4),
            ("contoso.example", "nothing", 2),
        ] {
            ensure_learned(&gateway, Some(name), matched, hits)?;
        }
        Ok(())
    });
}

#[test]
fn unknown_and_missing_names_are_refused_or_take_the_default() {
    lab_test("inspect-unknown", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let partner = pki.server("partner", &["sip.partner.example"])?;
        let (name, hosters) = ("sip.unknown.example", ["sip.unknown.example"]);
        let identity = pki.server("edge-b", &hosters)?;
        let _server = OpensslServer::start(lab, "edge-b", &lab.edge_b, SIP_TLS, &identity, &pki)?;
        let openssl = |server_name| OpensslClient {
            server_name,
            ..OpensslClient::new(&lab.partner, name, &partner, &pki)
        };
        let gnutls = |sends_name| GnutlsClient {
            sends_name,
            ..GnutlsClient::new(&lab.partner, name, &partner, &pki)
        };

        let mut gateway = Gateway::start(lab, &shared("preserve", "", THREE_DOMAINS))?;
        for address in both(VIP_1) {
            for version in TlsVersion::BOTH {
                for client in [openssl(Some(name)), openssl(None)] {
                    let said = said(client.version(version).connect(address, TIMEOUT))?;
                    ensure!(said.contains("alert number 112"), "{said}");
                }
                for client in [gnutls(true), gnutls(false)] {
                    let said = said(client.version(version).connect(lab, address, TIMEOUT))?;
                    ensure!(said.contains("Received alert [112]"), "{said}");
                }
            }
        }
        ensure_counted(&gateway, "unrecognized-name", 16)?;
        for name in [Some(name), None] {
            ensure_learned(&gateway, name, "nothing", 8)?;
        }

        gateway.stop()?;
        gateway.configure(
            "",
            &shared("preserve", "default = \"edges-b\"", THREE_DOMAINS),
        )?;
        gateway.run(&[])?;
        for address in both(VIP_1) {
            for version in TlsVersion::BOTH {
                for client in [openssl(Some(name)), openssl(None)] {
                    let session = client.version(version).connect(address, TIMEOUT)?;
                    ensure!(session.names == hosters, "{session:?}");
                }
                for client in [gnutls(true), gnutls(false)] {
                    let session = client.version(version).connect(lab, address, TIMEOUT)?;
                    ensure!(session.names == hosters, "{session:?}");
                }
            }
        }
        ensure_counted(&gateway, "unrecognized-name", 0)?;
        for name in [Some(name), None] {
            ensure_learned(&gateway, name, "default", 8)?;
        }
        Ok(())
    });
}

fn refused(lab: &Lab, hello: &[u8], alert: &Answer) -> Result<()> {
    for address in both(VIP_1) {
        let answer = replay(&lab.partner, address, hello, Segments::Few, TIMEOUT)?;
        ensure!(answer == *alert, "{answer:?}");
    }
    Ok(())
}

/// What a client said about a connection that must not come about.
fn said<T: std::fmt::Debug>(result: Result<T>) -> Result<String> {
    match result {
        Ok(session) => bail!("a connection came about: {session:?}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// That a name has been learned so often. Names are learned beside the connections, which do not wait for it.
fn ensure_learned(
    gateway: &Gateway<'_>,
    name: Option<&str>,
    matched: &str,
    hits: u64,
) -> Result<()> {
    let mut last = Value::Null;
    let seen = Deadline::after(TIMEOUT).poll(&format!("{hits} hits of {name:?}"), || {
        let table = gateway.json(&["map", "dump", "SNI_LEARNED"])?;
        let rows = table.as_array().context("a table")?;
        let row = rows.iter().find(|row| row["name"].as_str() == name);
        last = row.cloned().unwrap_or_default();
        Ok((last["matched"] == matched && last["hits"] == hits).then_some(()))
    });
    seen.with_context(|| format!("last: {last}"))
}
