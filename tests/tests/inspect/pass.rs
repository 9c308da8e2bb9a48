//! What passes through: bytes, ends, and many connections at once.

use anyhow::{Result, ensure};
use snigate_tests::{
    Lab, Topology,
    addresses::{SIP_TLS, VIP_1},
    gateway::Gateway,
    lab_test,
    peers::{Edge, EdgeTls, End, Partner, PartnerTls, TlsVersion},
    pki::{Identity, Pki},
};

use crate::{THREE_DOMAINS, TIMEOUT, both, ensure_counted, quiet, shared, tcp};

const MEGABYTE: u64 = 1_000_000;
const NAME: &str = "sip.contoso.example";
/// Bytes of a full segment, with timestamps.
const SEGMENT: u64 = 1448;

/// One Edge with TLS, and what a partner needs to reach it.
struct Scene {
    pki: Pki,
    identity: Identity,
    edge: Edge,
}

impl Scene {
    fn new(lab: &Lab) -> Result<Self> {
        let pki = Pki::new("federation", &lab.dir())?;
        let tls = EdgeTls::new(&pki.server("edge-a", &[NAME])?, &pki)?;
        Ok(Self {
            identity: pki.server("partner", &["sip.partner.example"])?,
            edge: Edge::start(&lab.edge_a, SIP_TLS, Some(&tls))?,
            pki,
        })
    }

    fn tls(&self, version: TlsVersion) -> Result<PartnerTls> {
        PartnerTls::new(NAME, &self.identity, &self.pki, Some(version))
    }
}

#[test]
fn fifty_megabytes_each_way_arrive_unchanged() {
    lab_test("inspect-bulk", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _gateway = Gateway::start(lab, &shared("preserve", "", THREE_DOMAINS))?;
        let machines = [&lab.partner, &lab.gateway, &lab.edge_a];
        let counters = || machines.map(|machine| machine.tcp_counters());
        let before = counters();
        for address in both(VIP_1) {
            for version in TlsVersion::BOTH {
                let tls = scene.tls(version)?;
                let partner = Partner {
                    tls: Some(&tls),
                    ..tcp(lab)
                };
                let done = partner.exchange(address, 50 * MEGABYTE, 50 * MEGABYTE)?;
                ensure!(done.version == Some(version), "{done:?}");
                let report = scene.edge.report(TIMEOUT)?;
                ensure!(
                    (report.received, &report.end) == (50 * MEGABYTE, &End::Clean),
                    "{report:?}"
                );
            }
        }
        for (now, before) in counters().into_iter().zip(before) {
            let added = now?.since(&before?);
            ensure!(
                added.checksum_errors() == 0 && added.paws_rejected() == 0,
                "{added:?}"
            );
            // Nothing is lost here; a busy machine's timers send some segments again all the same.
            let segments = 4 * 50 * MEGABYTE / SEGMENT;
            ensure!(added.retransmitted() < segments / 100, "{added:?}");
        }
        Ok(())
    });
}

#[test]
fn connections_end_the_way_their_ends_want() {
    for source in ["preserve", "gateway"] {
        let name = format!("inspect-ends-{source}");
        lab_test(&name, &Topology::default(), |lab| {
            let scene = Scene::new(lab)?;
            let gateway = Gateway::start(lab, &shared(source, "hand_off = false", THREE_DOMAINS))?;
            for address in both(VIP_1) {
                let tls = scene.tls(TlsVersion::V13)?;
                let partner = Partner {
                    tls: Some(&tls),
                    ..tcp(lab)
                };
                // An answer half a second after the partner's FIN, and the other way round.
                partner.half_close(address, MEGABYTE, MEGABYTE)?;
                let report = scene.edge.report(TIMEOUT)?;
                ensure!(
                    (report.received, &report.end) == (MEGABYTE, &End::Clean),
                    "{report:?}"
                );
                partner.half_closed(address, MEGABYTE, MEGABYTE)?;
                let report = scene.edge.report(TIMEOUT)?;
                ensure!(
                    (report.received, &report.end) == (MEGABYTE, &End::Clean),
                    "{report:?}"
                );
                partner.be_reset(address)?;
                scene.edge.report(TIMEOUT)?;
                partner.reset(address)?;
                ensure!(scene.edge.report(TIMEOUT)?.end == End::Reset);
            }
            ensure_counted(&gateway, "passed", 8)?;
            ensure_counted(&gateway, "closed", 4)?;
            ensure_counted(&gateway, "reset", 4)
        });
    }
}

#[test]
fn two_hundred_connections_at_once() {
    lab_test("inspect-parallel", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let gateway = Gateway::start(lab, &shared("preserve", "hand_off = false", THREE_DOMAINS))?;
        for (address, version) in both(VIP_1).into_iter().zip(TlsVersion::BOTH) {
            let tls = scene.tls(version)?;
            let partner = Partner {
                tls: Some(&tls),
                ..tcp(lab)
            };
            let all = partner.exchange_in_parallel(200, address, 50_000, 50_000)?;
            ensure!(all.len() == 200);
        }
        ensure_counted(&gateway, "closed", 400)
    });
}
