//! The domain's own certificate, and every byte of what goes through.

use anyhow::{Result, ensure};
use snigate_tests::{
    Lab, Topology,
    addresses::{PARTNER, SIP_TLS, VIP_1},
    gateway::Gateway,
    lab_test,
    peers::{Edge, EdgeTls, End, GnutlsClient, OpensslServer, Partner, PartnerTls, TlsVersion},
};

use super::{ADATUM, CONTOSO, EDGE_NAME, FABRIKAM, Scene};
use crate::{TIMEOUT, both, quiet, tcp};

const MEGABYTE: u64 = 1_000_000;

#[test]
fn a_certificate_of_its_own_beside_two_that_pass_through() {
    for (source, identity) in [("preserve", "mirror"), ("gateway", "gateway")] {
        let name = format!("terminate-own-{source}");
        lab_test(&name, &Topology::default(), |lab| {
            let scene = Scene::new(lab)?;
            let clients = scene.both_authorities()?;
            let start = |name, namespace, identity| {
                OpensslServer::start_trusting(lab, name, namespace, SIP_TLS, identity, &clients)
            };
            let edges = [
                start("edge-a", &lab.edge_a, &scene.edge)?,
                start("edge-b", &lab.edge_b, &scene.other_edge)?,
            ];
            let tables = scene.tables(source, &scene.three_domains(identity));
            let _gateway = Gateway::start(lab, &tables)?;
            let presented: [(&str, &[&str]); 3] = [
                (CONTOSO, &[CONTOSO]),
                (FABRIKAM, &[EDGE_NAME, FABRIKAM]),
                (ADATUM, &[EDGE_NAME, ADATUM]),
            ];
            for address in both(VIP_1) {
                for version in TlsVersion::BOTH {
                    for (name, names) in presented {
                        let client = scene.openssl(name).version(version);
                        let session = client.connect(address, TIMEOUT)?;
                        ensure!(session.names == names, "{name}: {session:?}");
                        ensure!(session.version == version.name(), "{session:?}");
                    }
                    let gnutls =
                        GnutlsClient::new(&lab.partner, CONTOSO, &scene.partner, &scene.federation);
                    let session = gnutls.version(version).connect(lab, address, TIMEOUT)?;
                    ensure!(session.names == [CONTOSO], "{session:?}");
                }
            }
            scene.ensure_counted("terminated", 8)?;
            scene.ensure_counted("passed", 8)?;
            let connections = |edge: &OpensslServer| -> Result<usize> {
                let log = edge.process.stderr()?;
                Ok(log.matches("CONNECTION ESTABLISHED").count())
            };
            let counts = (connections(&edges[0])?, connections(&edges[1])?);
            ensure!(counts == (12, 4), "{counts:?}");
            Ok(())
        });
    }
}

/// An Edge of the test's own behind a terminated domain, and what is asked of it.
fn with_an_edge(name: &str, body: impl FnOnce(&Lab, &Scene<'_>, &Edge) -> Result<()>) {
    lab_test(name, &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let tls = EdgeTls::for_clients_of(&scene.mirror_ca(), &scene.edge)?;
        let edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&tls))?;
        let tables = scene.tables("preserve", &scene.three_domains("mirror"));
        let _gateway = Gateway::start(lab, &tables)?;
        body(lab, &scene, &edge)
    });
}

#[test]
fn fifty_megabytes_each_way_and_half_closed() {
    with_an_edge("terminate-bulk", |lab, scene, edge| {
        for (version, (address, source)) in TlsVersion::BOTH
            .into_iter()
            .zip(both(VIP_1).into_iter().zip(PARTNER.both()))
        {
            let tls = PartnerTls::new(CONTOSO, &scene.partner, &scene.federation, Some(version))?;
            let partner = Partner {
                tls: Some(&tls),
                ..tcp(lab)
            };
            let done = partner.exchange(address, 50 * MEGABYTE, 50 * MEGABYTE)?;
            ensure!(done.version == Some(version), "{done:?}");
            let report = edge.report(TIMEOUT)?;
            ensure!(report.received == 50 * MEGABYTE, "{report:?}");
            ensure!(report.peer.ip() == source, "{report:?}");
            // Nobody told the Edge which of its names the partner asked for, but the one it is verified by.
            ensure!(report.server_name.as_deref() == Some(EDGE_NAME));

            partner.half_close(address, 100_000, MEGABYTE)?;
            let report = edge.report(TIMEOUT)?;
            ensure!(
                report.received == 100_000 && report.end == End::Clean,
                "{report:?}"
            );
            partner.half_closed(address, MEGABYTE, 100_000)?;
            let report = edge.report(TIMEOUT)?;
            ensure!(
                report.received == MEGABYTE && report.end == End::Clean,
                "{report:?}"
            );
        }
        scene.ensure_counted("terminated", 6)?;
        scene.ensure_counted("closed", 6)
    });
}

#[test]
fn a_hundred_at_once() {
    with_an_edge("terminate-parallel", |lab, scene, edge| {
        for address in both(VIP_1) {
            let tls = PartnerTls::new(CONTOSO, &scene.partner, &scene.federation, None)?;
            let partner = Partner {
                tls: Some(&tls),
                ..tcp(lab)
            };
            let all = partner.exchange_in_parallel(100, address, 20_000, 20_000)?;
            ensure!(all.len() == 100);
            for _ in 0..100 {
                let report = edge.report(TIMEOUT)?;
                ensure!(report.end == End::Clean, "{report:?}");
            }
        }
        scene.ensure_counted("terminated", 200)?;
        scene.ensure_counted("closed", 200)
    });
}
