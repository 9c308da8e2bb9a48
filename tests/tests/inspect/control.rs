//! Routes and domains that are added to a running agent, and its certificates.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{
    addresses::{EDGE_A, EDGE_B, Host, VIP_1},
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
};

use crate::{
    TIMEOUT, both,
    federation::{Federation, domain, ip_set},
    quiet,
};

const INCLUDE: &str = "include = [\"domains.d/*.toml\"]";

fn refuses(gateway: &Gateway<'_>, command: &[&str], words: &[&str]) -> Result<()> {
    let before = gateway.json(&["status"])?;
    let said = gateway.refusal(command)?;
    for word in words {
        ensure!(said.contains(word), "{command:?} without {word:?}: {said}");
    }
    let after = gateway.json(&["status"])?;
    ensure!(before["generation"] == after["generation"], "{after}");
    Ok(())
}

/// Every name, over both families, to the Edge of this address; refused for `None`.
fn goes(federation: &Federation<'_>, name: &str, edge: Option<Host>) -> Result<()> {
    for (index, address) in both(VIP_1).into_iter().enumerate() {
        match edge {
            Some(edge) => {
                let (reached, expected) = (federation.reach(name, address)?, both(edge)[index]);
                ensure!(
                    reached == expected,
                    "{name} reached {reached} instead of {expected}"
                );
            }
            None => {
                let refused = federation.open(name, address).err();
                let refused = refused.with_context(|| format!("{name} is not refused"))?;
                let why = format!("{refused:#}");
                ensure!(why.contains("UnrecognisedName"), "{name}: {why}");
            }
        }
    }
    Ok(())
}

#[test]
fn routes_are_added_and_removed_while_it_runs() {
    lab_test("control-routes", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", VIP_1, "inspect = true\nbind = false")
            + &domain("contoso.example", "edges-a");
        let mut gateway = Gateway::start(lab, &tables)?;
        let new = "sip.fabrikam.example";
        goes(&federation, new, None)?;

        let said = gateway.output(&["route", "add", "SIP.Fabrikam.example", "edges-a"])?;
        ensure!(
            said.contains("sip.fabrikam.example goes to edges-a, until"),
            "{said}"
        );
        goes(&federation, new, Some(EDGE_A))?;
        let mut open = federation.open(new, both(VIP_1)[0])?;
        let said = gateway.output(&["route", "add", new, "edges-b"])?;
        ensure!(said.contains("instead of edges-a"), "{said}");
        goes(&federation, new, Some(EDGE_B))?;
        gateway.output(&["route", "add", "*.voip.adatum.example", "edges-b"])?;
        goes(&federation, "east.voip.adatum.example", Some(EDGE_B))?;

        // They live on with a reload, and so do connections.
        gateway.output(&["reload"])?;
        goes(&federation, new, Some(EDGE_B))?;
        goes(&federation, "west.voip.adatum.example", Some(EDGE_B))?;
        open.ping()?;
        let routes = gateway.json(&["route", "ls", "--configured"])?;
        let listed: Vec<_> = routes.as_array().into_iter().flatten().collect();
        ensure!(listed.len() == 3, "{routes}");

        refuses(
            &gateway,
            &["route", "add", new, "edges-z"],
            &["there is no pool edges-z: the pools are edges-a, edges-b"],
        )?;
        refuses(
            &gateway,
            &["route", "add", "sip.contoso.example", "edges-b"],
            &["sip.contoso.example is a name of the configuration"],
        )?;
        refuses(
            &gateway,
            &["route", "rm", "sip.contoso.example"],
            &["sip.contoso.example is a name of the configuration"],
        )?;
        refuses(
            &gateway,
            &["route", "rm", "sip.adatum.example"],
            &["there is no route for sip.adatum.example"],
        )?;
        refuses(
            &gateway,
            &["route", "add", "sip..example", "edges-a"],
            &["sip..example"],
        )?;
        goes(&federation, "sip.contoso.example", Some(EDGE_A))?;

        // Forgotten when the configuration defines the name, and not remembered when it no longer does.
        gateway.configure(
            "",
            &(tables.clone() + &domain("fabrikam.example", "edges-a")),
        )?;
        gateway.output(&["reload"])?;
        goes(&federation, new, Some(EDGE_A))?;
        gateway.configure("", &tables)?;
        gateway.output(&["reload"])?;
        goes(&federation, new, None)?;

        let said = gateway.output(&["route", "rm", "*.voip.adatum.example"])?;
        ensure!(
            said.contains("*.voip.adatum.example no longer goes to edges-b"),
            "{said}"
        );
        goes(&federation, "east.voip.adatum.example", None)?;
        // The first one's connection has seen it all.
        let edge = federation.close(open)?;
        ensure!(edge == both(EDGE_A)[0], "{edge}");
        Ok(())
    });
}

#[test]
fn domains_are_added_in_files_of_their_own() {
    lab_test("control-domains", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", VIP_1, "inspect = true\nbind = false")
            + &domain("contoso.example", "edges-a");
        let mut gateway = Gateway::start(lab, &tables)?;
        let directory = lab.dir().join("domains.d");
        let file = |domain: &str| directory.join(format!("{domain}.toml"));
        let add = ["domain", "add", "fabrikam.example", "--pool", "edges-b"];

        refuses(
            &gateway,
            &add,
            &[
                "snigate.toml does not include",
                "write `include = [\"domains.d/*.toml\"]` into its [gateway] table",
            ],
        )?;
        ensure!(!directory.exists(), "what was made is gone");
        gateway.configure(INCLUDE, &tables)?;
        gateway.output(&["reload"])?;

        let said = gateway.output(&add)?;
        ensure!(
            said.contains("fabrikam.example added in") && said.contains("2 domains"),
            "{said}"
        );
        ensure!(fs::read_to_string(file("fabrikam.example"))?.contains("pool = \"edges-b\""));
        goes(&federation, "sip.fabrikam.example", Some(EDGE_B))?;

        // Terminated, with the certificate that only the gateway has; the paths are the shell's.
        let identity = federation
            .pki
            .server("tailspin", &["sip.tailspin.example"])?;
        let paths = [&identity.chain, &identity.key, federation.pki.roots()]
            .map(|path| path.display().to_string());
        let [chain, key, roots] = paths.each_ref().map(String::as_str);
        let terminated = [
            "domain",
            "add",
            "tailspin.example",
            "--pool",
            "edges-a",
            "--certificate",
            chain,
            "--key",
        ];
        let rest = [
            "--client-roots",
            roots,
            "--client-certificate",
            "required",
            "--identity",
            "gateway",
        ];
        let other = federation.partner.key.display().to_string();
        refuses(
            &gateway,
            &[&terminated[..], &[&other], &rest].concat(),
            &["key"],
        )?;
        ensure!(!file("tailspin.example").exists(), "rolled back");
        goes(&federation, "sip.tailspin.example", None)?;
        gateway.output(&[&terminated[..], &[key], &rest].concat())?;
        goes(&federation, "sip.tailspin.example", Some(EDGE_A))?;

        let certificates = gateway.json(&["cert", "ls"])?;
        let ours = certificates
            .as_array()
            .into_iter()
            .flatten()
            .find(|line| line["domains"] == serde_json::json!(["tailspin.example"]));
        let ours = ours.with_context(|| format!("in {certificates}"))?;
        ensure!(
            ours["state"] == "valid"
                && ours["file"] == *chain
                && ours["days_left"].as_i64() > Some(300),
            "{ours}"
        );
        let table = gateway.output(&["cert", "ls"])?;
        for word in [
            "sip.tailspin.example",
            "federation root",
            "the gateway",
            "valid",
        ] {
            ensure!(table.contains(word), "{word} is not in {table}");
        }

        // Wrong ones: nothing stays of them, and nothing changes.
        refuses(
            &gateway,
            &["domain", "add", "adatum.example", "--pool", "edges-z"],
            &["domains.d/adatum.example.toml:3:", "edges-z"],
        )?;
        ensure!(!file("adatum.example").exists());
        refuses(
            &gateway,
            &[
                "domain",
                "add",
                "adatum.example",
                "--pool",
                "edges-a",
                "--name",
                "sip.contoso.example",
            ],
            &["sip.contoso.example", "snigate.toml:"],
        )?;
        refuses(&gateway, &add, &["fabrikam.example.toml exists already"])?;
        refuses(
            &gateway,
            &["domain", "rm", "contoso.example"],
            &["contoso.example is defined at", "snigate.toml:"],
        )?;
        refuses(
            &gateway,
            &["domain", "rm", "adatum.example"],
            &["there is no domain adatum.example"],
        )?;
        goes(&federation, "sip.fabrikam.example", Some(EDGE_B))?;

        let listed = gateway.json(&["domain", "ls"])?;
        let listed: Vec<_> = listed
            .as_array()
            .into_iter()
            .flatten()
            .map(|line| &line["sip_domain"])
            .collect();
        ensure!(
            listed == ["contoso.example", "fabrikam.example", "tailspin.example"],
            "{listed:?}"
        );

        // They outlast the agent.
        gateway.stop()?;
        gateway.run(&[])?;
        goes(&federation, "sip.fabrikam.example", Some(EDGE_B))?;
        let mut open = federation.open("sip.tailspin.example", both(VIP_1)[1])?;
        for domain in ["fabrikam.example", "tailspin.example"] {
            let said = gateway.output(&["domain", "rm", domain])?;
            ensure!(said.contains(&format!("{domain} removed with")), "{said}");
            ensure!(!file(domain).exists());
            goes(&federation, &format!("sip.{domain}"), None)?;
        }
        open.ping()?;
        open.close()?;
        Ok(())
    });
}

#[test]
fn what_clients_ask_for_is_learned() {
    lab_test("control-learned", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set(
                "shared",
                VIP_1,
                "inspect = true\nbind = false\ndefault = \"edges-b\"",
            )
            + &domain("contoso.example", "edges-a")
            + "[[domain]]\nsip_domain = \"adatum.example\"\nnames = [\"*.voip.adatum.example\"]\npool = \"edges-a\"\n";
        let gateway = Gateway::start(lab, &tables)?;
        ensure!(
            hits(&gateway, "sip.contoso.example")?
                == Some((0, "exact".to_owned(), "edges-a".to_owned()))
        );
        for count in 1..=3 {
            for (name, matched, edge) in [
                ("sip.contoso.example", "exact", EDGE_A),
                ("east.voip.adatum.example", "wildcard", EDGE_A),
                ("sip.fabrikam.example", "default", EDGE_B),
            ] {
                let [address, _] = both(VIP_1);
                let reached = federation.reach(name, address)?;
                ensure!(reached == both(edge)[0], "{name}: {reached}");
                let pool = if edge == EDGE_A { "edges-a" } else { "edges-b" };
                let expected = Some((count, matched.to_owned(), pool.to_owned()));
                // Learned beside the connection, which does not wait for it.
                Deadline::after(TIMEOUT).poll(&format!("{count} hits of {name}"), || {
                    let found = hits(&gateway, name)?;
                    Ok((found == expected).then_some(()))
                })?;
            }
        }
        // The wildcard has the hits of the names that it took.
        let found = hits(&gateway, "*.voip.adatum.example")?;
        ensure!(
            found == Some((3, "wildcard".to_owned(), "edges-a".to_owned())),
            "{found:?}"
        );
        let learned = gateway.output(&["route", "ls", "--learned"])?;
        ensure!(
            learned.contains("east.voip.adatum.example") && !learned.contains("*.voip"),
            "{learned}"
        );
        Ok(())
    });
}

/// Hits of a name, how it was found, and where it goes.
fn hits(gateway: &Gateway<'_>, name: &str) -> Result<Option<(u64, String, String)>> {
    let routes = gateway.json(&["route", "ls"])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = routes
        .as_array()
        .into_iter()
        .flatten()
        .find(|line| line["name"] == name);
    Ok(found.map(|line| {
        (
            line["hits"].as_u64().unwrap_or_default(),
            text(&line["matched"]),
            text(&line["pool_v4"]),
        )
    }))
}
