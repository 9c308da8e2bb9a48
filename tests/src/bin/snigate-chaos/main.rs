//! Plays scenarios of faults, and says what became of the connections.

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use serde_json::json;
use snigate_tests::chaos::{self, Scenario};

/// Plays scenarios of faults in the lab, each under connections of every way. Fails where an established connection is lost to anything but the death of
/// one of its own ends.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos")]
struct Arguments {
    /// Those to play, or the first word of some: `hand-off/silent`, `reload`; all if nothing is said.
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// What is left to chance: whom a fault hits, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the datapath is attached.
    #[arg(long, default_value = "xdp", value_parser = ["xdp", "tcx"])]
    hook: String,
    /// Name the scenarios, and play none.
    #[arg(long)]
    list: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let scenarios = wanted(&arguments.scenarios)?;
    if arguments.list {
        for scenario in &scenarios {
            println!("{:20} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the lab makes network namespaces and needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask chaos`"
    );
    play(&scenarios, arguments)
}

fn wanted(names: &[String]) -> Result<Vec<Scenario>> {
    let mut all = chaos::scenarios();
    for name in names {
        ensure!(
            all.iter().any(|scenario| scenario.is_called(name)),
            "there is no scenario {name}: `cargo xtask chaos --list` names them"
        );
    }
    all.retain(|scenario| names.is_empty() || names.iter().any(|name| scenario.is_called(name)));
    Ok(all)
}

fn play(scenarios: &[Scenario], arguments: &Arguments) -> Result<()> {
    let hook = if arguments.hook == "tcx" {
        "tcx"
    } else {
        "xdp"
    };
    if !arguments.json {
        println!("{}", chaos::head());
    }
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        let outcome = scenario.run(arguments.seed, hook);
        if !arguments.json {
            println!("{}", chaos::line(&outcome));
        }
        if let Some(text) = chaos::failure(&outcome) {
            eprint!("{text}");
        }
        outcomes.push(outcome);
    }
    if arguments.json {
        let all: Vec<_> = outcomes.iter().map(chaos::Outcome::as_json).collect();
        println!("{:#}", json!(all));
    }
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|it| !it.is_well())
        .map(|it| it.name.as_str())
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} of {} failed; once more: `cargo xtask chaos {} --seed {} --hook {hook}`",
            failed.len(),
            outcomes.len(),
            failed.join(" "),
            arguments.seed
        );
    }
    Ok(())
}
