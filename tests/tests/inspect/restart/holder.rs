//! Without a service manager: the holder.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use snigate_tests::{
    Lab, addresses::at, deadline::Deadline, gateway::Gateway, lab_test, output_within,
};

use super::{NAME, tables, until, wait_through, ways};
use crate::{TIMEOUT, federation::Federation, federation::OTHER, quiet};

const TOOK_OVER: &str = "took over the listening socket";

/// The holder's place.
fn door(gateway: &Gateway<'_>) -> PathBuf {
    let mut path = gateway.control().into_os_string();
    path.push(".holder");
    path.into()
}

fn serves(federation: &Federation<'_>) -> Result<()> {
    for (name, address, edge) in ways() {
        let reached = federation.reach(name, address)?;
        ensure!(reached == edge, "{name}: {reached}");
    }
    Ok(())
}

/// Those for connections; metrics have one of their own.
fn listeners(lab: &Lab) -> Result<String> {
    lab.gateway.output("ss", &["-Hlnt", "sport != :9461"])
}

#[test]
fn connections_wait_for_the_agent_after_a_killed_one() {
    lab_test("restart-kill", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let mut gateway = Gateway::start(lab, &tables(&federation)?)?;
        serves(&federation)?;
        for _ in 0..3 {
            let first = gateway.holder()?.context("no holder")?;
            gateway.kill()?;
            ensure!(gateway.holder()? == Some(first), "the holder is gone");
            let status = gateway.output(&["status"])?;
            ensure!(status.contains("kept for the next agent"), "{status}");
            wait_through(lab, &federation, || gateway.run(&[]))?;
            ensure!(gateway.log()?.contains(TOOK_OVER), "{}", gateway.log()?);
            // The new agent's has taken over from the old one's.
            until("one new holder", || {
                let holders = lab.gateway.processes("snigate-holder")?;
                Ok(holders.len() == 1 && holders[0] != first)
            })?;
            ensure!(listeners(lab)?.lines().count() == 1, "{}", listeners(lab)?);
            serves(&federation)?;
        }
        gateway.stop()
    });
}

#[test]
fn connections_wait_through_a_planned_restart() {
    lab_test("restart-leave", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let mut gateway = Gateway::start(lab, &tables(&federation)?)?;
        gateway.stop()?;
        gateway.run(&["--leave"])?;
        serves(&federation)?;
        for _ in 0..2 {
            gateway.stop()?;
            wait_through(lab, &federation, || gateway.run(&["--leave"]))?;
            ensure!(gateway.log()?.contains(TOOK_OVER), "{}", gateway.log()?);
        }
        // With all of it made anew but the listener.
        gateway.stop()?;
        gateway.run(&["--fresh"])?;
        ensure!(gateway.log()?.contains(TOOK_OVER), "{}", gateway.log()?);
        serves(&federation)
    });
}

#[test]
fn an_orderly_end_leaves_no_holder() {
    lab_test("restart-end", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let before = listeners(lab)?;
        let mut gateway = Gateway::start(lab, &tables(&federation)?)?;
        let nothing = |gateway: &Gateway<'_>| -> Result<()> {
            ensure!(gateway.holder()?.is_none(), "the holder is still there");
            ensure!(!door(gateway).exists() && !gateway.pin_path().exists());
            ensure!(listeners(lab)? == before, "{}", listeners(lab)?);
            Ok(())
        };
        ensure!(gateway.holder()?.is_some() && door(&gateway).exists());
        // While it runs, there is nothing to detach.
        let said = gateway.refusal(&["detach"])?;
        ensure!(said.contains("another agent runs"), "{said}");
        gateway.stop()?;
        nothing(&gateway)?;
        // Nor does what was left behind stay, when it is told to go.
        let clean = lab.gateway.output("ip", &["-o", "addr", "show"])?
            + &lab.gateway.output("ip", &["rule"])?;
        gateway.run(&["--leave"])?;
        gateway.stop()?;
        ensure!(gateway.holder()?.is_some() && gateway.pin_path().exists());
        gateway.output(&["detach"])?;
        nothing(&gateway)?;
        let now = lab.gateway.output("ip", &["-o", "addr", "show"])?
            + &lab.gateway.output("ip", &["rule"])?;
        ensure!(now == clean, "{now}\ninstead of\n{clean}");
        // Once more, with nothing there.
        gateway.output(&["detach"])?;
        gateway.run(&[])?;
        serves(&federation)
    });
}

#[test]
fn a_holder_that_dies_is_followed_by_another() {
    lab_test("restart-holder", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let mut gateway = Gateway::start(lab, &tables(&federation)?)?;
        let first = gateway.holder()?.context("no holder")?;
        kill(first, Signal::SIGKILL)?;
        // Half a minute after the start of the one before.
        Deadline::after(Duration::from_secs(45)).poll("another holder", || {
            Ok(gateway.holder()?.filter(|holder| *holder != first))
        })?;
        gateway.kill()?;
        wait_through(lab, &federation, || gateway.run(&[]))?;
        // Both die, the holder first: a new socket, and no harm beyond that.
        kill(gateway.holder()?.context("no holder")?, Signal::SIGKILL)?;
        gateway.kill()?;
        ensure!(federation.open(NAME, at(OTHER.v4.into())).is_err());
        let status = gateway.output(&["status"])?;
        ensure!(!status.contains("kept for the next agent"), "{status}");
        gateway.run(&[])?;
        ensure!(!gateway.log()?.contains(TOOK_OVER), "{}", gateway.log()?);
        serves(&federation)
    });
}

#[test]
fn the_holder_gives_nothing_to_strangers() {
    lab_test("restart-stranger", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let mut gateway = Gateway::start(lab, &tables(&federation)?)?;
        gateway.kill()?;
        let door = door(&gateway);
        let mode = fs::metadata(&door)?.mode();
        ensure!(mode & 0o7777 == 0o600, "{mode:o}");
        // `snigate detach` would have it end. Who may not enter the directory does not come so far.
        fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755))?;
        let detach = || -> Result<String> {
            let asked = gateway.prepared(&["detach"])?;
            let mut command = lab.gateway.command("setpriv");
            command.args([
                "--reuid",
                "64123",
                "--regid",
                "64123",
                "--clear-groups",
                "--",
            ]);
            command.arg(asked.get_program()).args(asked.get_args());
            let output = output_within(&mut command, TIMEOUT)?;
            ensure!(output.status.code() == Some(1), "{output:?}");
            Ok(String::from_utf8(output.stderr)?)
        };
        let said = detach()?;
        ensure!(said.contains("Permission denied"), "{said}");
        // Even where somebody has opened the file to all.
        fs::set_permissions(&door, fs::Permissions::from_mode(0o666))?;
        let said = detach()?;
        ensure!(said.contains("Broken pipe"), "{said}");
        ensure!(gateway.holder()?.is_some() && gateway.pin_path().exists());
        // None of this has disturbed anything.
        wait_through(lab, &federation, || gateway.run(&[]))
    });
}

#[test]
fn a_holder_gives_up_when_no_agent_comes() {
    lab_test("restart-patience", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let mut gateway = Gateway::start(lab, &tables(&federation)?)?;
        gateway.stop()?;
        gateway.run(&["--patience", "2s"])?;
        gateway.kill()?;
        let began = Instant::now();
        ensure!(federation.open(NAME, at(OTHER.v4.into())).is_err());
        let waited = began.elapsed();
        ensure!(
            waited > Duration::from_secs(1) && waited < Duration::from_secs(10),
            "those that wait are told, after {waited:?}"
        );
        until("the holder's end", || Ok(gateway.holder()?.is_none()))?;
        ensure!(!door(&gateway).exists());
        // Nobody listens now, and the kernel says so at once.
        let began = Instant::now();
        ensure!(federation.open(NAME, at(OTHER.v4.into())).is_err());
        ensure!(began.elapsed() < Duration::from_secs(1));
        let status = gateway.output(&["status"])?;
        ensure!(!status.contains("kept for the next agent"), "{status}");
        gateway.run(&[])?;
        serves(&federation)
    });
}
