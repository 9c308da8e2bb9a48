//! Inspected connections, beside other proxies.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use snigate_tests::bench;

use crate::{kernel, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Measure only subjects whose key in the JSON contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Measure everything this many times, one system after the other, and take the medians.
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Threads or processes of each proxy; one for each CPU if nothing is said.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Another build of snigate, measured beside this one: what a change has brought shows in one run alone.
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
}

/// How long a sample of connections takes.
const SAMPLE: Duration = Duration::from_secs(2);

pub(crate) fn run(options: &Options) -> Result<()> {
    let cpus = available_parallelism().context("the number of CPUs")?.get();
    let workers = options.workers.map_or(cpus, usize::from);
    let how = bench::Options {
        rounds: options.rounds,
        workers,
        only: options.only.clone(),
        sample: SAMPLE,
        systems: Vec::new(),
        beside: options.beside.clone(),
    };
    let tables = bench::run(&how, progress)?;
    progress("");
    if options.json {
        let measured = json!({
            "kernel": kernel(),
            "cpus": cpus,
            "workers": workers,
            "rounds": options.rounds,
            "subjects": bench::as_json(&tables),
        });
        println!("{measured:#}");
    } else {
        println!(
            "Kernel {}, {cpus} CPUs that partners, proxy and Edge share; {workers} threads or processes for each proxy; {} rounds.\n\
             Medians of the rounds; p50 and p99 of all rounds together, of a connection until its TLS handshake is over, or of a ping.\n\
             The last two columns are the proxy's own time on the CPUs.",
            kernel(),
            options.rounds
        );
        bench::print(&tables);
    }
    Ok(())
}
