//! Kamailio and sipp prove themselves, over the kernel's own routing: what a later test puts between them is the gateway.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use snigate_tests::addresses::{EDGE_A, PARTNER, SIP_TLS};
use snigate_tests::peers::{
    KamailioEdge, KamailioPartner, Method, Partner, PartnerTls, TlsVersion, sipp,
};
use snigate_tests::pki::{Attribute, Pki};
use snigate_tests::{Topology, lab_test};

const TIMEOUT: Duration = Duration::from_secs(10);
const NAME: &str = "sip.contoso.example";

fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

#[test]
fn kamailio_holds_partners_to_their_certificates() {
    lab_test("kamailio-edge", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let edge = pki.server("edge-a", &[NAME])?;
        let many: Vec<String> = (1..40)
            .map(|n| format!("sip.customer{n}.example"))
            .collect();
        let names: Vec<&str> = many.iter().map(String::as_str).collect();
        let hoster = pki
            .certificate("hoster")
            .names(&names)
            .subject(&[
                (Attribute::Organization, "Bäckerei & Söhne"),
                (Attribute::OrganizationalUnit, "Realtime"),
                (Attribute::OrganizationalUnit, "Edge"),
                (Attribute::CommonName, "sip.hoster.example"),
            ])
            .issue()?;
        let edge = KamailioEdge::start(
            lab,
            "kamailio",
            &lab.edge_a,
            (EDGE_A, SIP_TLS),
            &edge,
            pki.roots(),
        )?;
        for (address, version) in EDGE_A.both().into_iter().zip(TlsVersion::BOTH) {
            let tls = PartnerTls::new(NAME, &hoster, &pki, Some(version))?;
            let partner = Partner {
                namespace: &lab.partner,
                source: None,
                tls: Some(&tls),
                timeout: TIMEOUT,
            };
            let mut sip = partner.sip(SocketAddr::new(address, SIP_TLS))?;
            let mut ask = |method, from| sip.request(method, from, "contoso.example");
            // Its common name, its first and last alternative names, in any case.
            for named in ["hoster.example", "customer1.example", "Customer39.example"] {
                ensure!(ask(Method::Options, named)? == 200, "{named}");
                ensure!(ask(Method::Message, named)? == 202, "{named}");
            }
            for stranger in [
                "customer40.example",
                "example",
                "sip.hoster.example",
                "r1.example",
            ] {
                for method in Method::BOTH {
                    ensure!(ask(method, stranger)? == 403, "{stranger}");
                }
            }
            let seen = edge.requests()?;
            let last = seen.last();
            ensure!(
                last.is_some_and(|last| last.source == sip.local().ip()
                    && last.server_name.as_deref() == Some(NAME)
                    && last.subject
                        == "CN=sip.hoster.example,OU=Edge,OU=Realtime,O=Bäckerei & Söhne"
                    && last.issuer == "CN=federation root"
                    && (last.from_domain.as_str(), last.status) == ("r1.example", 403)),
                "{last:?}"
            );
        }
        ensure!(edge.requests()?.len() == 28);

        // A certificate of somebody else's authority gets nowhere.
        let others = Pki::new("others", &lab.dir())?;
        let stranger = others.server("stranger", &["sip.hoster.example"])?;
        let tls = PartnerTls::new(NAME, &stranger, &pki, None)?;
        let partner = Partner {
            namespace: &lab.partner,
            source: None,
            tls: Some(&tls),
            timeout: TIMEOUT,
        };
        let refused = partner
            .sip(SocketAddr::new(EDGE_A.v4.into(), SIP_TLS))
            .and_then(|mut sip| sip.request(Method::Options, "hoster.example", "contoso.example"));
        ensure!(refused.is_err(), "{refused:?}");
        ensure!(edge.requests()?.len() == 28);
        Ok(())
    });
}

#[test]
fn sipp_reaches_an_edge_through_a_kamailio_of_the_partner() {
    lab_test("kamailio-partner", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let identity = pki.server("partner", &["sip.partner.example", "partner.example"])?;
        let edge = KamailioEdge::start(
            lab,
            "kamailio-edge",
            &lab.edge_a,
            (EDGE_A, SIP_TLS),
            &pki.server("edge-a", &[NAME])?,
            pki.roots(),
        )?;
        for (n, address) in EDGE_A.both().into_iter().enumerate() {
            let partner = KamailioPartner::start(
                lab,
                "kamailio-partner",
                &lab.partner,
                (PARTNER, 5070 + u16::try_from(n)?),
                (&identity, &pki),
                (NAME, SocketAddr::new(address, SIP_TLS)),
            )?;
            let send = |method, from| {
                let domains = (from, "contoso.example");
                sipp(lab, &lab.partner, partner.local, method, domains, TIMEOUT)
            };
            ensure!(send(Method::Options, "partner.example")? == 200);
            ensure!(send(Method::Message, "partner.example")? == 202);
            ensure!(send(Method::Message, "fabrikam.example")? == 403);
            let seen = edge.requests()?;
            let last = seen.last();
            ensure!(
                last.is_some_and(|last| last.source == PARTNER.both()[n]
                    && last.server_name.as_deref() == Some(NAME)
                    && last.names == identity.names
                    && last.subject == "CN=sip.partner.example"),
                "{last:?}"
            );
        }
        ensure!(edge.requests()?.len() == 6);
        Ok(())
    });
}
