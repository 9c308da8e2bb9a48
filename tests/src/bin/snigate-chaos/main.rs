//! Plays scenarios of faults, and says what became of the connections.

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;
use snigate_tests::chaos::{self, Scenario};

/// Faults, and long times.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Chaos(Chaos),
    Soak(Soak),
}

/// Soaks the gateway in the lab in connections that come and go: first with agents that die or end and others that follow, then with reloads of one. Fails
/// where what it holds grows, or where a connection is lost that may not be.
#[derive(Debug, Args)]
struct Soak {
    /// How long to measure, behind a quarter of it, or a minute, of deaths and restarts, and a minute and a half in which the gateway gets warm.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// What is left to chance: what happens to the agent, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the datapath is attached.
    #[arg(long, value_enum, default_value_t = Hook::Xdp)]
    hook: Hook,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// As the configuration has it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Hook {
    Xdp,
    Tcx,
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
        }
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.5..=10_000.0).contains(&minutes) {
        Ok(minutes)
    } else {
        Err("it is half a minute to 10000 minutes".to_owned())
    }
}

/// Plays scenarios of faults in the lab, each under connections of every way. Fails where a connection is lost to anything but the death of one of its own
/// ends, and where one can't be opened that could.
#[derive(Debug, Args)]
struct Chaos {
    /// Those to play, or the first word of some: `hand-off/silent`, `reload`; all if nothing is said.
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// What is left to chance: whom a fault hits, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the datapath is attached.
    #[arg(long, value_enum, default_value_t = Hook::Xdp)]
    hook: Hook,
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
    match &arguments.command {
        Command::Chaos(options) => chaos(options),
        Command::Soak(options) => soak(options),
    }
}

fn chaos(options: &Chaos) -> Result<()> {
    let scenarios = wanted(&options.scenarios)?;
    if options.list {
        for scenario in &scenarios {
            println!("{:20} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    require_root()?;
    play(&scenarios, options)
}

fn soak(options: &Soak) -> Result<()> {
    require_root()?;
    let soaked = chaos::Soak::run(options.minutes, options.seed, options.hook.name())?;
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    soaked.plot(&target)?;
    if options.json {
        println!("{:#}", soaked.as_json());
    } else {
        println!("{}\n{}\n", chaos::head(), chaos::line(&soaked.outcome));
        for note in &soaked.outcome.notes {
            println!("{note}");
        }
        print!("{}", soaked.table());
        println!(
            "Plots: {}",
            target.join("soak-light.svg").canonicalize()?.display()
        );
    }
    if let Some(text) = chaos::failure(&soaked.outcome) {
        eprint!("{text}");
    }
    ensure!(soaked.is_well(), "something grows, or was lost: see above");
    Ok(())
}

fn require_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the lab makes network namespaces and needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask ...`"
    );
    Ok(())
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

fn play(scenarios: &[Scenario], arguments: &Chaos) -> Result<()> {
    let hook = arguments.hook.name();
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
