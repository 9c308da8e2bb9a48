//! Connections that are passed through: setting them up, and carrying their bytes.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use snigate_tests::bench::passed::{self, Measured, relay, setup};

use crate::{kernel, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Measure only tables whose name in the JSON contains this: "offloads-off/", "bulk-8", "offloads-on/parallel-1".
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Measure everything this many times, one system after the other, and take the medians.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Threads or processes of each proxy; one for each CPU if nothing is said.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// One short round: whether everything works, but no figures to rely on.
    #[arg(long)]
    quick: bool,
    /// Measure this build of snigate as well: what a change has brought.
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    /// Measure only these systems, such as "relay"; all if nothing is said.
    #[arg(long, value_name = "NAME")]
    system: Vec<String>,
}

/// How long each sample of each bench takes.
const SETUP: Duration = Duration::from_secs(2);
const RELAY: Duration = Duration::from_millis(1500);
const QUICK: Duration = Duration::from_millis(300);

pub(crate) fn set_up(options: &Options) -> Result<()> {
    run(options, SETUP, |how| setup::run(how, progress))
}

pub(crate) fn relay(options: &Options) -> Result<()> {
    run(options, RELAY, |how| relay::run(how, progress))
}

fn run(
    options: &Options,
    sample: Duration,
    measure: impl FnOnce(&passed::Options) -> Result<Measured>,
) -> Result<()> {
    let cpus = available_parallelism().context("the number of CPUs")?.get();
    let workers = options.workers.map_or(cpus, usize::from);
    let (rounds, sample) = if options.quick {
        (1, QUICK)
    } else {
        (5, sample)
    };
    let rounds = options.rounds.unwrap_or(rounds);
    let how = passed::Options {
        rounds,
        sample,
        workers,
        only: options.only.clone(),
        systems: options.system.clone(),
        afterwards: if options.quick {
            Duration::ZERO
        } else {
            passed::AFTERWARDS
        },
        other: options.beside.clone(),
    };
    let measured = measure(&how)?;
    progress("");
    if options.json {
        let all = json!({
            "kernel": kernel(),
            "cpus": cpus,
            "workers": workers,
            "rounds": rounds,
            "sample_ms": sample.as_millis(),
            "measured": passed::as_json(&measured),
        });
        println!("{all:#}");
    } else {
        println!(
            "Kernel {}, {cpus} CPUs that partners, proxy and Edge share; {workers} threads or processes for each proxy; {rounds} rounds \
             of {sample:?} for each figure.\n\
             Medians of the rounds; CPU is the whole machine's, and over routing what is left of it without routing's in the same round.",
            kernel(),
        );
        passed::print(&measured);
    }
    Ok(())
}
