//! `cargo xtask kernels`: the datapath on the kernels that Debian has, each booted under QEMU.
//!
//! `release` fetches a kernel, `root` collects what the guests run, `guest` boots one with the other, and `init.sh` is what happens inside. What
//! the verifier's walk through each program took is held against `budget.txt`.

mod archive;
mod budget;
mod guest;
mod outcome;
mod release;
mod root;
mod steps;

use std::{env::consts::ARCH, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use self::{
    budget::Budget,
    guest::{Accelerator, Bench},
    outcome::Outcome,
    release::{LINES, Line},
};
use crate::{apt::Scratch, build, packages, process, provision};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these lines of kernels: 6.1, 6.12, newest
    #[arg(value_parser = LINES.iter().map(|line| line.name).collect::<Vec<_>>())]
    lines: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// How long each guest may run; where QEMU translates it, it needs half an hour
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    deadline: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if ARCH != "x86_64" {
        bail!("the guests are made for x86_64, and this is {ARCH}: run this on another machine");
    }
    let budget = Budget::load()?;
    provision::datapath_toolchain()?;
    packages::provide(&packages::LAB)?;
    packages::provide(&packages::KERNELS)?;
    let directory = process::target_dir()?.join("kernels");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let own = programs()?;
    let root = process::step("packing what the guests run", || {
        root::build(&own, &directory)
    })?;
    let bench = Bench {
        root: &root,
        directory: &directory,
        deadline: Duration::from_secs(options.deadline * 60),
    };
    let outcomes = outcomes(options, &bench, &budget)?;
    if options.json {
        let all: Vec<_> = outcomes.iter().map(Outcome::as_json).collect();
        println!("{:#}", Value::from(all));
    } else {
        outcome::print(&outcomes);
    }
    let failed: Vec<_> = outcomes.iter().flat_map(Outcome::failures).collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("\nxtask: "));
    }
    Ok(())
}

/// One guest after the other.
fn outcomes(options: &Options, bench: &Bench<'_>, budget: &Budget) -> Result<Vec<Outcome>> {
    let wanted = |line: &&Line| {
        options.lines.is_empty() || options.lines.iter().any(|name| name == line.name)
    };
    let apt = Scratch::new()?;
    let mut accelerator = Accelerator::detect();
    let mut outcomes = Vec::new();
    for line in LINES.iter().filter(wanted) {
        let kernel = release::provide(line, &apt, bench.directory)?;
        let (steps, logs) = guest::boot(&kernel, bench, &mut accelerator)?;
        let outcome = Outcome::new(&kernel, accelerator, steps, &logs, budget);
        outcome.explain();
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// This build's programs that the guests run, by the names that they have there.
fn programs() -> Result<Vec<(&'static str, PathBuf)>> {
    build::workspace(false)?;
    let packets = process::step("building the packet tables", packet_tables)?;
    let debug = process::target_dir()?.join("debug");
    Ok(vec![
        ("snigate", debug.join("snigate")),
        ("snigate-lab", debug.join("snigate-lab")),
        ("packets", packets),
    ])
}

/// Builds the packet tables, as `cargo xtask test` does, so that nothing is compiled twice; returns where their program is.
fn packet_tables() -> Result<PathBuf> {
    let mut cargo = process::cargo("test");
    cargo
        .args(["--workspace", "--exclude", "sni-ebpf", "--test", "packets"])
        .args(["--no-run", "--quiet"])
        .arg("--message-format=json-render-diagnostics");
    let messages = process::output(&mut cargo)?;
    executable(&messages).context("cargo names no program of the packet tables")
}

/// The program of a test in cargo's messages, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "packets" && message["profile"]["test"] == true;
        is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_names_the_tests_program() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"snigate_tests"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"packets"},"profile":{"test":true},"executable":"/target/debug/deps/packets-1"}
{"reason":"build-finished","success":true}"#;
        let found = executable(messages);
        assert_eq!(found, Some("/target/debug/deps/packets-1".into()));
    }
}
