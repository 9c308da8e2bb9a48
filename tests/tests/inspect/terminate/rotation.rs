//! Certificates that are replaced while connections come and go.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    addresses::{SIP_TLS, VIP_1},
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
    peers::{Connection, Edge, EdgeTls, Limit, Partner, PartnerTls, Storm},
    pki::Identity,
};

use super::{CONTOSO, Scene, shown_for, wait_for_log};
use crate::{TIMEOUT, both, quiet, tcp};

const CLIENTS: usize = 4;
/// Longer than the agent waits for the second of two files.
const APART: Duration = Duration::from_secs(1);

/// How an operator's tool replaces a file.
fn overwrite(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop)?;
    Ok(())
}

/// The same without a moment in which it is half written.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let aside = to.with_extension("new");
    fs::copy(from, &aside)?;
    fs::rename(&aside, to).context("replacing a file")
}

/// As ACME clients leave them: a link to the newest.
fn link(from: &Path, to: &Path) -> Result<()> {
    let aside = to.with_extension("new");
    std::os::unix::fs::symlink(from, &aside)?;
    fs::rename(&aside, to).context("replacing a file by a link")
}

#[test]
fn certificates_are_rotated_under_load_without_a_failure() {
    lab_test("terminate-rotation", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let tls = EdgeTls::for_clients_of(&scene.mirror_ca(), &scene.edge)?;
        let edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&tls))?;
        let make = |file: &str| scene.federation.server(file, &[CONTOSO]);
        let generations = [
            make("first")?,
            make("second")?,
            make("third")?,
            make("fourth")?,
        ];
        let [first, second, third, fourth] = &generations;
        let served = Identity {
            chain: lab.dir().join("served.pem"),
            key: lab.dir().join("served.key"),
            names: vec![CONTOSO.to_owned()],
        };
        overwrite(&first.chain, &served.chain)?;
        overwrite(&first.key, &served.key)?;
        let domain = scene.terminated(
            "contoso.example",
            "edges-a",
            &served,
            "identity = \"mirror\"",
        );
        let gateway = Gateway::start(lab, &scene.tables("preserve", &domain))?;

        let tls = PartnerTls::new(CONTOSO, &scene.partner, &scene.federation, None)?;
        let partner = Partner {
            tls: Some(&tls),
            ..tcp(lab)
        };
        let mut open = Vec::new();
        let [v4, v6] = both(VIP_1);
        open.push(partner.echo(v4)?);
        let storms = [v4, v6]
            .map(|address| Storm::start(&partner, address, CLIENTS, Limit::Time(TIMEOUT * 4)));
        let [storm, storm_v6] = storms;
        let (storm, storm_v6) = (storm?, storm_v6?);
        let some_more = || {
            storm.wait_for(storm.ended() + 4 * CLIENTS, TIMEOUT)?;
            storm_v6.wait_for(storm_v6.ended() + 4 * CLIENTS, TIMEOUT)
        };
        let seen = |what: &str, identity: &Identity| -> Result<()> {
            let (began, expected) = (Instant::now(), identity.fingerprint()?);
            Deadline::after(TIMEOUT).poll(what, || {
                let shown = shown_for(&scene, CONTOSO, v4)?;
                Ok((shown == expected).then_some(()))
            })?;
            println!("{what} is shown {:?} after it was written", began.elapsed());
            Ok(())
        };
        some_more()?;

        // Both files one after the other.
        overwrite(&second.chain, &served.chain)?;
        overwrite(&second.key, &served.key)?;
        seen("the second certificate", second)?;
        open.push(partner.echo(v6)?);
        some_more()?;

        // With a while in which they do not belong together: what was active stays.
        replace(&third.chain, &served.chain)?;
        wait_for_log(
            &gateway,
            &["what was active stays active", "belongs to none"],
        )?;
        thread::sleep(APART);
        ensure!(shown_for(&scene, CONTOSO, v4)? == second.fingerprint()?);
        some_more()?;
        replace(&third.key, &served.key)?;
        seen("the third certificate", third)?;
        open.push(partner.echo(v4)?);
        some_more()?;

        link(&fourth.key, &served.key)?;
        link(&fourth.chain, &served.chain)?;
        seen("the fourth certificate", fourth)?;
        some_more()?;

        open.iter_mut().try_for_each(|it| it.ping().map(drop))?;
        let mut certificates = Vec::new();
        for storm in [storm, storm_v6] {
            let report = storm.stop()?;
            report.ensure_no_failure()?;
            println!("{} connections", report.connections.len());
            certificates.push(report.certificates());
        }
        let mut expected = Vec::new();
        for identity in &generations {
            expected.push(identity.fingerprint()?);
        }
        expected.sort_unstable();
        for seen in certificates {
            ensure!(
                seen.keys().copied().eq(expected.iter().copied()),
                "{seen:?}"
            );
        }
        for connection in open {
            Connection::close(connection)?;
        }
        drop(edge);
        Ok(())
    });
}
