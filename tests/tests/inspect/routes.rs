//! The server name decides which Edge is reached.

use anyhow::ensure;
use snigate_tests::{
    Topology,
    addresses::{GATEWAY_LAN_A, PARTNER, SIP_TLS, VIP_1},
    gateway::Gateway,
    lab_test,
    peers::{
        Edge, EdgeTls, GnutlsClient, OpensslClient, OpensslServer, Partner, PartnerTls, TlsVersion,
    },
    pki::Pki,
};

use crate::{THREE_DOMAINS, TIMEOUT, both, shared, tcp};

#[test]
fn three_domains_on_one_address_reach_two_edges() {
    for source in ["preserve", "gateway"] {
        let name = format!("inspect-routes-{source}");
        lab_test(&name, &Topology::default(), |lab| {
            let pki = Pki::new("federation", &lab.dir())?;
            let partner = pki.server("partner", &["sip.partner.example"])?;
            let names_a = ["sip.contoso.example", "sip.fabrikam.example"];
            let names_b = ["sip.adatum.example", "*.voip.adatum.example"];
            let _servers = [
                OpensslServer::start(
                    lab,
                    "edge-a",
                    &lab.edge_a,
                    SIP_TLS,
                    &pki.server("edge-a", &names_a)?,
                    &pki,
                )?,
                OpensslServer::start(
                    lab,
                    "edge-b",
                    &lab.edge_b,
                    SIP_TLS,
                    &pki.server("edge-b", &names_b)?,
                    &pki,
                )?,
            ];
            let gateway = Gateway::start(lab, &shared(source, "", THREE_DOMAINS))?;
            for address in both(VIP_1) {
                for version in TlsVersion::BOTH {
                    for (name, names) in [
                        ("sip.contoso.example", &names_a),
                        ("SIP.Fabrikam.example", &names_a),
                        ("sip.adatum.example", &names_b),
                        ("east.voip.adatum.example", &names_b),
                    ] {
                        let session = OpensslClient::new(&lab.partner, name, &partner, &pki)
                            .version(version)
                            .connect(address, TIMEOUT)?;
                        ensure!(session.names == *names, "{session:?}");
                    }
                    for (name, names) in [
                        ("sip.fabrikam.example", &names_a),
                        ("sip.adatum.example", &names_b),
                    ] {
                        let session = GnutlsClient::new(&lab.partner, name, &partner, &pki)
                            .version(version)
                            .connect(lab, address, TIMEOUT)?;
                        ensure!(
                            session.names == *names && session.version == version,
                            "{session:?}"
                        );
                    }
                }
            }
            let routes = gateway.output(&["map", "dump", "SNI_LEARNED"])?;
            ensure!(routes.contains("east.voip.adatum.example"), "{routes}");
            Ok(())
        });
    }
}

#[test]
fn the_edge_sees_the_partner_or_the_gateway() {
    for (source, seen) in [("preserve", PARTNER), ("gateway", GATEWAY_LAN_A)] {
        let name = format!("inspect-source-{source}");
        lab_test(&name, &Topology::default(), |lab| {
            let pki = Pki::new("federation", &lab.dir())?;
            let edge_tls = EdgeTls::new(&pki.server("edge-a", &["sip.contoso.example"])?, &pki)?;
            let edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&edge_tls))?;
            let _gateway = Gateway::start(lab, &shared(source, "", THREE_DOMAINS))?;
            let identity = pki.server("partner", &["sip.partner.example"])?;
            let tls = PartnerTls::new("sip.contoso.example", &identity, &pki, None)?;
            for (address, expected) in both(VIP_1).into_iter().zip(seen.both()) {
                let partner = Partner {
                    tls: Some(&tls),
                    ..tcp(lab)
                };
                let peer = partner.who_am_i(address)?;
                ensure!(peer.ip() == expected, "{source}: the Edge sees {peer}");
                edge.report(TIMEOUT)?;
            }
            Ok(())
        });
    }
}
