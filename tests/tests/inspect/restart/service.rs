//! As a service: systemd keeps the listener, and the packaged units tell a restart from a stop.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab,
    addresses::{VIP_1, at},
    gateway::{Gateway, binary},
    lab_test,
    peers::{Limit, Partner, Storm},
    service_manager::{ServiceManager, packaged_unit},
};

use super::{NAME, tables, until, wait_through};
use crate::{
    federation::{Federation, OTHER, ip_set},
    quiet, tcp,
};

const UNIT: &str = "snigate.service";

/// The packaged units under a manager; nothing is started yet.
struct Service<'lab> {
    /// What the agent goes by; it is not run by itself.
    gateway: Gateway<'lab>,
    log: PathBuf,
    manager: ServiceManager<'lab>,
}

/// Makes them, with a steered and an inspected address, and the agent's unit as `change` has it.
fn service<'lab>(
    lab: &'lab Lab,
    federation: &Federation<'_>,
    change: impl FnOnce(String) -> Result<String>,
) -> Result<Service<'lab>> {
    let tables = tables(federation)? + &ip_set("steered", VIP_1, "steer = \"edges-a\"");
    // For its configuration file.
    let mut gateway = Gateway::start(lab, &tables)?;
    gateway.stop()?;
    let log = lab.dir().join("service.log");
    let program = format!(
        "{} --config {}",
        binary()?.display(),
        gateway.config().display()
    );
    let agent = change(packaged_unit(UNIT, &program, &log)?)?;
    let datapath = "snigate-datapath.service";
    let units = [
        (UNIT, agent),
        (datapath, packaged_unit(datapath, &program, &log)?),
    ];
    let manager = ServiceManager::start(lab, &units)?;
    Ok(Service {
        gateway,
        log,
        manager,
    })
}

#[test]
fn a_service_is_restarted_without_a_refusal() {
    lab_test("restart-service", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let Service {
            gateway,
            log,
            manager,
        } = service(lab, &federation, Ok)?;
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let start = || {
            let started = manager.systemctl(&["start", UNIT]);
            started.with_context(said).map(drop)
        };
        start()?;
        let pid = || manager.property(UNIT, "MainPID");
        let stored = || manager.property(UNIT, "NFileDescriptorStore");
        until("systemd to have the listener", || Ok(stored()? == "1"))?;
        ensure!(gateway.holder()?.is_none(), "nobody needs a holder");
        federation.reach(NAME, at(OTHER.v4.into()))?;
        // A steered connection, which none of it concerns.
        let mut steered = federation.open(NAME, at(VIP_1.v4.into()))?;

        // Killed, and started again by systemd.
        let first = pid()?;
        manager.systemctl(&["kill", "--signal=KILL", UNIT])?;
        wait_through(lab, &federation, || {
            until("the next agent", || {
                let active = manager.property(UNIT, "ActiveState")? == "active";
                Ok(active && !["0", &first].contains(&pid()?.as_str()))
            })
            .with_context(said)
        })?;
        ensure!(
            said().contains("took over the listening socket"),
            "{}",
            said()
        );
        ensure!(stored()? == "1", "stored {} times", stored()?);
        steered.ping()?;

        // Restarted, with connections all the while: those that the agent carries end with it, but none is refused.
        let tls = federation.tls(NAME)?;
        let partner = Partner {
            tls: Some(&tls),
            ..tcp(lab)
        };
        let storm = Storm::start(
            &partner,
            at(OTHER.v4.into()),
            4,
            Limit::Time(Duration::from_secs(60)),
        )?;
        storm.wait_for(20, Duration::from_secs(20))?;
        for _ in 0..3 {
            manager.systemctl(&["restart", UNIT]).with_context(said)?;
            steered.ping()?;
            let ended = storm.ended();
            storm.wait_for(ended + 20, Duration::from_secs(20))?;
        }
        let report = storm.stop()?;
        eprintln!(
            "3 restarts of the service: {} connections went well, and {:?}",
            report.connections.len(),
            report.failures
        );
        ensure!(
            !report
                .failures
                .keys()
                .any(|what| what.starts_with("connect:")),
            "{:?}",
            report.failures
        );
        ensure!(stored()? == "1", "stored {} times", stored()?);

        manager.systemctl(&["reload", UNIT]).with_context(said)?;
        until("the end of the reload", || {
            Ok(manager.property(UNIT, "ActiveState")? == "active")
        })?;
        steered.ping()?;

        // Stopped: nothing is left.
        manager.systemctl(&["stop", UNIT]).with_context(said)?;
        until("the datapath's end", || Ok(!gateway.pin_path().exists()))?;
        until("the listener's end", || {
            Ok(lab.gateway.output("ss", &["-Hlnt"])?.is_empty())
        })?;
        ensure!(!gateway.control().exists());
        let began = Instant::now();
        ensure!(federation.open(NAME, at(OTHER.v4.into())).is_err());
        // Without its address, the gateway says that there is no such host, after a while.
        ensure!(began.elapsed() < Duration::from_secs(15));
        start()?;
        federation.reach(NAME, at(OTHER.v4.into()))?;
        thread::sleep(Duration::from_millis(100));
        manager.systemctl(&["stop", UNIT]).map(drop)
    });
}

#[test]
fn a_service_that_is_stuck_is_started_again() {
    lab_test("restart-watchdog", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        // Where the packaged one waits a minute.
        let impatient = |unit: String| {
            let changed = unit.replace("WatchdogSec=60", "WatchdogSec=5");
            ensure!(changed != unit, "{unit}");
            Ok(changed)
        };
        let Service { log, manager, .. } = service(lab, &federation, impatient)?;
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        manager.systemctl(&["start", UNIT]).with_context(said)?;
        let pid = || manager.property(UNIT, "MainPID");
        let mut steered = federation.open(NAME, at(VIP_1.v4.into()))?;

        // While its loop turns, nobody restarts it.
        let first = pid()?;
        thread::sleep(Duration::from_secs(8));
        ensure!(pid()? == first, "{}", said());

        manager.systemctl(&["kill", "--signal=STOP", UNIT])?;
        until("the next agent", || {
            let active = manager.property(UNIT, "ActiveState")? == "active";
            Ok(active && !["0", &first].contains(&pid()?.as_str()))
        })
        .with_context(said)?;
        ensure!(
            said().contains("took over the listening socket"),
            "{}",
            said()
        );
        federation.reach(NAME, at(OTHER.v4.into()))?;
        steered.ping()?;
        manager.systemctl(&["stop", UNIT]).map(drop)
    });
}
