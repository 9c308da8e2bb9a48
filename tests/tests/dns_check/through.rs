//! Through a running gateway, steered and by name, to Edges that ask for a partner's certificate.

use anyhow::ensure;
use snigate_tests::{
    addresses::{EDGE_A, SIP_TLS, VIP_1, VIP_2},
    gateway::{Gateway, two_pools},
    lab_test,
    peers::{Edge, EdgeTls},
    pki::Pki,
};

use crate::{
    dns::{self, Nsd},
    scene::{check, found, topology},
};

#[test]
fn a_partner_is_seen_through_the_gateway() {
    lab_test("dns-check-gateway", &topology(), |lab| {
        let zone = format!(
            "_sipfederationtls._tcp.steered SRV 0 0 5061 sip.steered\nsip.steered A {}\nsip.steered AAAA {}\n\
             _sipfederationtls._tcp.named SRV 0 0 5061 sip.named\nsip.named A {}\nsip.named AAAA {}\n\
             _sipfederationtls._tcp.lost SRV 0 0 5061 sip.lost\nsip.lost A {}\n",
            VIP_1.v4, VIP_1.v6, VIP_2.v4, VIP_2.v6, VIP_2.v4
        );
        let _dns = Nsd::start(lab, &[("example", zone)])?;
        let pki = Pki::new("hoster", &lab.dir())?;
        let names = ["sip.steered.example", "sip.named.example"];
        let tls = EdgeTls::new(&pki.server("edge-a", &names)?, &pki)?;
        let edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&tls))?;
        let mut tables = two_pools("preserve");
        tables += &format!(
            "\n[[ip_set]]\nname = \"one\"\naddresses = [\"{}\", \"{}\"]\nsteer = \"edges-a\"\n\
             \n[[ip_set]]\nname = \"two\"\naddresses = [\"{}\", \"{}\"]\ninspect = true\n",
            VIP_1.v4, VIP_1.v6, VIP_2.v4, VIP_2.v6
        );
        for domain in ["steered", "named"] {
            tables +=
                &format!("\n[[domain]]\nsip_domain = \"{domain}.example\"\npool = \"edges-a\"\n");
        }
        let gateway = Gateway::start(lab, &tables)?;

        let server = dns::address().to_string();
        let roots = pki.roots().display().to_string();
        let look = |more: &[&str]| {
            let usual = [
                "--resolver",
                &server,
                "--roots",
                &roots,
                "--ignore",
                "crl-missing",
            ];
            check(lab, gateway.config(), &[&usual[..], more].concat())
        };
        let (report, is_well) = look(&[])?;
        ensure!(is_well && report["summary"]["good"] == 2, "{report:#}");
        // A name that is nobody's, and the same for an address that none of ours is steered from.
        let (report, is_well) = look(&["--domain", "lost.example"])?;
        ensure!(!is_well, "{report:#}");
        ensure!(
            found(&report, "lost.example")? == ["name-refused", "target-unrouted"],
            "{report:#}"
        );
        // Nobody is there.
        drop(edge);
        let (report, is_well) = look(&["--domain", "steered.example"])?;
        ensure!(!is_well, "{} is gone: {report:#}", EDGE_A.v4);
        ensure!(
            found(&report, "steered.example")? == ["connect-failed"],
            "{report:#}"
        );
        Ok(())
    });
}
