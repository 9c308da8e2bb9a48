//! A clock that jumps: what has a date goes by it, and what has a duration does not.

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{Lab, clock::Clock, deadline::Deadline, gateway::Gateway, lab_test};
use x509_parser::{prelude::FromDer as _, revocation_list::CertificateRevocationList};

use crate::{
    TIMEOUT, lines, metrics, page, quiet, sample,
    scene::{BOUND, MIRRORED, RELAYED, STEERED, Scene, WAYS, all_live, crl},
};

/// Waits until no Edge is in another state.
fn all_become(gateway: &Gateway<'_>, state: &str) -> Result<()> {
    let reached = || {
        let status = gateway.agent()?;
        let edges = status["edges"].as_array().context("Edges")?;
        // Nobody checks the one for streams.
        let all = edges
            .iter()
            .all(|edge| edge["state"] == state || edge["name"] == "streams");
        Ok(all.then_some(()))
    };
    Deadline::after(TIMEOUT)
        .poll(&format!("all Edges to be {state}"), reached)
        .with_context(|| gateway.log().unwrap_or_default())
}

/// Waits until flows have been swept once more, and of what is open none is gone.
fn swept(gateway: &Gateway<'_>) -> Result<()> {
    let sweeps = || lines(gateway, "orphaned=");
    let before = sweeps()?;
    let again = || Ok((sweeps()? > before + 1).then_some(()));
    Deadline::after(TIMEOUT).poll("a sweep", again)
}

/// Ages are of the clock that does not jump.
fn ages_are_young(metrics: &str) -> Result<()> {
    const HOUR: f64 = 3600.0;
    for name in [
        "snigate_sweep_age_seconds",
        "snigate_configuration_age_seconds",
    ] {
        ensure!(
            metrics.contains(&format!("{name} ")),
            "no {name} in {metrics}"
        );
        let age = sample(metrics, name);
        ensure!((0.0..HOUR).contains(&age), "{name} {age}");
    }
    Ok(())
}

fn revocation_list(lab: &Lab) -> Result<[i64; 2]> {
    let (address, path) = crl();
    let der = page(&lab.edge_b, address, path)?;
    let (_, list) = CertificateRevocationList::from_der(&der)?;
    let next = list.next_update().context("a next update")?;
    Ok([list.last_update().timestamp(), next.timestamp()])
}

#[test]
fn the_clock_jumps_forward_and_back() {
    const DAY: i64 = 24 * 60 * 60;
    lab_test("faults-clock", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let clock = Clock::new(lab)?;
        let gateway = scene.gateway("", Some(Clock::agent(lab)?))?;
        all_become(&gateway, "up")?;
        let mut open = scene.open_all(&WAYS)?;
        let [v4, v6] = MIRRORED.addresses();
        let before = metrics(&lab.gateway)?;
        let [made, _] = revocation_list(lab)?;
        let expired = "snigate_certificates{purpose=\"domain\",state=\"expired\"}";
        ensure!(sample(&before, expired) == 0.0, "{before}");

        // Two days: everybody's certificates are still good. Only what is signed now is of a day to come, to an Edge whose clock is right.
        clock.jump("+2d")?;
        ensure!(scene.open(MIRRORED, v4).is_err());
        let [later, _] = revocation_list(lab)?;
        ensure!(later - made > DAY, "{made}, then {later}");
        // More than a year: they have expired, the Edges' too.
        clock.jump("+400d")?;
        all_become(&gateway, "down")?;
        let told = Deadline::after(TIMEOUT).poll("the expired certificate", || {
            let told = metrics(&lab.gateway)?;
            Ok((sample(&told, expired) == 1.0).then_some(told))
        })?;
        ages_are_young(&told)?;
        let start = "process_start_time_seconds";
        ensure!(sample(&told, start) == sample(&before, start), "{told}");
        swept(&gateway)?;
        all_live(&mut open)?;
        for way in WAYS {
            ensure!(scene.open(way, way.addresses()[0]).is_err(), "{way:?}");
        }

        // Back: as if nothing had been, and nothing is shown any more that is not valid yet.
        clock.jump("+0")?;
        all_become(&gateway, "up")?;
        open.extend(scene.open_all(&WAYS)?);
        let [again, _] = revocation_list(lab)?;
        ensure!((again - made).abs() < DAY, "{made}, then {again}");

        // Back behind the day on which the certificates begin.
        clock.jump("-3d")?;
        all_become(&gateway, "down")?;
        ensure!(scene.open(MIRRORED, v6).is_err());
        let [_, end] = revocation_list(lab)?;
        ensure!(end < made + 7 * DAY, "{end}");
        ages_are_young(&metrics(&lab.gateway)?)?;
        gateway.json(&["status"])?;
        swept(&gateway)?;
        all_live(&mut open)?;
        clock.jump("+0")?;
        all_become(&gateway, "up")?;
        for way in [STEERED, BOUND, RELAYED, MIRRORED] {
            open.extend(scene.open_all(&[way])?);
        }
        all_live(&mut open)?;
        ensure!(lines(&gateway, "panicked")? == 0);
        Ok(())
    });
}
