//! `cargo xtask check`: what has to hold besides the tests. Every step runs, whatever became of the ones before it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{bpf_toolchain, locks, process, provision, reproduce};

const CARGO_DENY: (&str, &str) = ("cargo-deny", "0.20.2");
const CARGO_MACHETE: (&str, &str) = ("cargo-machete", "0.9.2");

/// How a step ended if not in an error.
enum Outcome {
    Passed,
    /// Could not be done here, for this reason.
    Skipped(String),
}

/// What is looked at, and the step that does it.
type Step = (&'static str, fn() -> Result<Outcome>);

const STEPS: &[Step] = &[
    ("formatting", formatting),
    ("lints of the host's code", host_lints),
    ("lints of the datapath", datapath_lints),
    ("documentation", documentation),
    ("licences, sources, duplicates", dependencies),
    ("advisories", advisories),
    ("unused dependencies", unused_dependencies),
    ("what is fuzzed is what runs", fuzzed_versions),
    ("the same datapath anywhere", same_datapath),
];

pub(crate) fn run() -> Result<()> {
    provision::datapath_toolchain()?;
    let failed: Vec<&str> = STEPS
        .iter()
        .filter(|step| !report(step))
        .map(|(name, _)| *name)
        .collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs a step and prints its line, after a failure also what the tool said; returns whether the step counts as passed.
fn report((name, step): &Step) -> bool {
    let start = Instant::now();
    let result = step();
    let seconds = start.elapsed().as_secs_f64();
    let line = |outcome: &str| println!("check: {name:<30} {outcome:<8} {seconds:6.1} s");
    match result {
        Ok(Outcome::Passed) => {
            line("ok");
            true
        }
        Ok(Outcome::Skipped(reason)) => {
            line("skipped");
            println!("       {reason}");
            true
        }
        Err(error) => {
            line("FAILED");
            println!("{error:#}");
            false
        }
    }
}

fn formatting() -> Result<Outcome> {
    // The files' names are enough: the cure is always `cargo fmt --all`.
    passes(process::cargo("fmt").args(["--all", "--check", "--", "--files-with-diff"]))
}

fn host_lints() -> Result<Outcome> {
    passes(
        process::cargo("clippy")
            .args(["--quiet", "--workspace", "--exclude", "sni-ebpf"])
            .args(["--all-targets", "--", "--deny", "warnings"]),
    )
}

fn datapath_lints() -> Result<Outcome> {
    let linker = provision::datapath_toolchain()?;
    let target = process::target_dir()?;
    passes(
        bpf_toolchain::cargo(
            "clippy",
            process::workspace(),
            &linker,
            &target,
            std::env::consts::ARCH,
        )
        .args(["--quiet", "--", "--deny", "warnings"]),
    )
}

fn documentation() -> Result<Outcome> {
    passes(
        process::cargo("doc")
            .args([
                "--quiet",
                "--workspace",
                "--exclude",
                "sni-ebpf",
                "--no-deps",
            ])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )
}

fn dependencies() -> Result<Outcome> {
    passes(cargo_deny()?.args(["check", "bans", "licenses", "sources"]))
}

fn fuzzed_versions() -> Result<Outcome> {
    locks::check().map(|()| Outcome::Passed)
}

fn advisories() -> Result<Outcome> {
    let mut deny = cargo_deny()?;
    // A firewall that swallows packets would keep the fetch waiting for minutes.
    let fetched = process::output(
        Command::new("timeout")
            .arg("60")
            .arg(deny.get_program())
            .args(deny.get_args())
            .args(["fetch", "db"])
            .current_dir(process::workspace()),
    );
    match fetched {
        Ok(_) => passes(deny.args(["check", "--disable-fetch", "advisories"])),
        Err(error) => {
            let error = format!("{error:#}");
            let reason = error.lines().last().unwrap_or_default();
            Ok(Outcome::Skipped(format!(
                "the RustSec database can't be fetched: {reason}"
            )))
        }
    }
}

fn cargo_deny() -> Result<Command> {
    let (package, version) = CARGO_DENY;
    let mut command = Command::new(provision::tool(package, version)?);
    command
        .current_dir(process::workspace())
        .args(["--workspace", "--log-level", "warn"]);
    Ok(command)
}

fn unused_dependencies() -> Result<Outcome> {
    let (package, version) = CARGO_MACHETE;
    passes(Command::new(provision::tool(package, version)?).current_dir(process::workspace()))
}

fn same_datapath() -> Result<Outcome> {
    reproduce::twice().map(|_| Outcome::Passed)
}

/// Runs a tool silently; an error is all that it wrote.
fn passes(command: &mut Command) -> Result<Outcome> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("`{}` can't be started", process::shown(command)))?;
    if output.status.success() {
        return Ok(Outcome::Passed);
    }
    let mut text = output.stdout;
    text.write_all(&output.stderr)?;
    bail!(
        "{}`{}` failed ({})",
        String::from_utf8_lossy(&text),
        process::shown(command),
        output.status
    )
}
