//! However the owner of a lab ends, nothing is left.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use snigate_tests::{Lab, Process, Topology, lab_test, leftovers};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A `snigate-lab up` of its own, and the name of its lab.
fn start(lab: &Lab, arguments: &[&str]) -> Result<(Process, String)> {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_snigate-lab"));
    command.arg("up").args(arguments);
    let mut process = lab.spawn("snigate-lab", command)?;
    let line = process.wait_for_line(" is up. ", TIMEOUT)?;
    let name = line.split_whitespace().nth(2).context("the lab's name")?;
    ensure!(leftovers::labs().iter().any(|lab| lab == name), "{line}");
    Ok((process, name.to_owned()))
}

fn is_there(name: &str) -> bool {
    leftovers::labs().iter().any(|lab| lab == name)
}

fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

#[test]
fn a_signal_removes_the_lab() {
    lab_test("signals", &quiet(), |lab| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let (mut process, name) = start(lab, &[])?;
            process.wait_for_line("Ctrl-C", TIMEOUT)?;
            process.signal(signal)?;
            let status = process.wait_for_exit(TIMEOUT)?;
            ensure!(
                status.code() == Some(128 + signal as i32),
                "{signal}: {status}"
            );
            ensure!(!is_there(&name), "{signal} left {name}");
        }
        Ok(())
    });
}

#[test]
fn the_next_lab_removes_one_whose_owner_was_killed() {
    lab_test("killed", &quiet(), |lab| {
        let (mut process, name) = start(lab, &[])?;
        process.signal(Signal::SIGKILL)?;
        process.wait_for_exit(TIMEOUT)?;
        leftovers::remove_orphans()?;
        ensure!(!is_there(&name));
        Ok(())
    });
}

#[test]
fn a_kept_lab_stays_until_it_is_taken_down() {
    lab_test("kept", &quiet(), |lab| {
        let (mut process, name) = start(lab, &["--keep"])?;
        let status = process.wait_for_exit(TIMEOUT)?;
        ensure!(status.success(), "{status}");
        leftovers::remove_orphans()?;
        ensure!(is_there(&name));
        leftovers::remove_lab(&name)?;
        ensure!(!is_there(&name));
        Ok(())
    });
}
