//! Programs that know nothing of this project on both ends.

use anyhow::ensure;
use snigate_tests::{
    Topology,
    addresses::{SIP_TLS, vips},
    peers::{OpensslClient, OpensslServer, TlsVersion},
    pki::Pki,
};

use crate::{NAME, TIMEOUT, in_scenes};

#[test]
fn openssl_on_both_ends() {
    in_scenes("openssl", &Topology::default(), |scene| {
        let pki = Pki::new("federation", &scene.lab.dir())?;
        let partner = pki.server("partner", &["sip.partner.example"])?;
        let edge = pki.server("edge-a", &[NAME])?;
        let _server =
            OpensslServer::start(scene.lab, "edge-a", &scene.lab.edge_a, SIP_TLS, &edge, &pki)?;
        for address in vips() {
            for version in TlsVersion::BOTH {
                let what = format!("{address}, {}", version.name());
                let session = scene.cleanly(&what, || {
                    OpensslClient::new(&scene.lab.partner, NAME, &partner, &pki)
                        .version(version)
                        .connect(address, TIMEOUT)
                })?;
                ensure!(
                    session.version == version.name() && session.names == [NAME],
                    "{session:?}"
                );
            }
        }
        scene.all_went()
    });
}
