//! Much, both ways at once.

use anyhow::ensure;
use snigate_tests::{
    Topology,
    addresses::{SIP_TLS, vips},
    peers::{Edge, EdgeTls, PartnerTls, TlsVersion},
    pki::Pki,
};

use crate::{MEGABYTE, NAME, in_scenes};

const BULK: u64 = 50 * MEGABYTE;

#[test]
fn fifty_megabytes_each_way_arrive_unchanged() {
    in_scenes("bulk", &Topology::default(), |scene| {
        let pki = Pki::new("federation", &scene.lab.dir())?;
        let tls = EdgeTls::new(&pki.server("edge-a", &[NAME])?, &pki)?;
        let identity = pki.server("partner", &["sip.partner.example"])?;
        let edge = Edge::start(&scene.lab.edge_a, SIP_TLS, Some(&tls))?;
        for (address, version) in vips().into_iter().zip(TlsVersion::BOTH) {
            let tls = PartnerTls::new(NAME, &identity, &pki, Some(version))?;
            let done = scene.cleanly(&format!("{address}, {}", version.name()), || {
                let done = scene.partner_with(&tls).exchange(address, BULK, BULK)?;
                scene.went_well(&edge, done.local, BULK)?;
                Ok(done)
            })?;
            ensure!(done.version == Some(version), "{done:?}");
        }
        Ok(())
    });
}

#[test]
fn either_way_alone() {
    in_scenes("one-way", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        for address in vips() {
            for (send, receive) in [(20 * MEGABYTE, 1), (1, 20 * MEGABYTE)] {
                scene.cleanly(&format!("{address}, {send} and {receive}"), || {
                    let done = scene.partner().exchange(address, send, receive)?;
                    scene.went_well(&edge, done.local, send)
                })?;
            }
        }
        Ok(())
    });
}

#[test]
fn many_at_once() {
    in_scenes("parallel", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        for address in vips() {
            let all = scene.roughly(&format!("{address}"), || {
                scene
                    .partner()
                    .exchange_in_parallel(50, address, 100_000, 100_000)
            })?;
            for done in all {
                scene.went_well(&edge, done.local, 100_000)?;
            }
        }
        Ok(())
    });
}
