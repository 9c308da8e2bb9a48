//! A few scenarios of `cargo xtask chaos`, short ones of each kind: what it fails for, the tests fail for. The seed is always the same.

use anyhow::{Context as _, Result, bail};
use snigate_tests::{Lab, chaos};

const SEED: u64 = 1;

/// Plays a scenario, which must end well.
fn played(name: &str) -> Result<()> {
    if !Lab::is_asked_for(&format!("chaos {name}")) {
        return Ok(());
    }
    let mut scenarios = chaos::scenarios().into_iter();
    let scenario = scenarios.find(|scenario| scenario.name == name);
    let outcome = scenario.context("no such scenario")?.run(SEED, "xdp");
    eprintln!("{}\n{}", chaos::head(), chaos::line(&outcome));
    match chaos::failure(&outcome) {
        Some(failure) => bail!(failure),
        None => Ok(()),
    }
}

#[test]
fn an_agent_killed_between_the_entries_and_the_silence() -> Result<()> {
    played("hand-off/gave-both")
}

#[test]
fn an_agent_killed_before_its_sockets_close() -> Result<()> {
    played("hand-off/ended")
}

#[test]
fn an_agent_killed_between_the_tables_and_the_switch() -> Result<()> {
    played("reload/written")
}

#[test]
fn an_agent_killed_behind_the_switch() -> Result<()> {
    played("reload/switched")
}

#[test]
fn resets_whose_numbers_are_guessed() -> Result<()> {
    played("flood/resets")
}

#[test]
fn damaged_packets() -> Result<()> {
    played("line/corrupted")
}
