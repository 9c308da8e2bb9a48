//! The memory of silent connections.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use snigate_tests::bench::passed::idle;

use crate::{kernel, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// So many connections through each system, or as many as the limit of open files allows.
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    connections: u32,
    /// How many seconds they are silent before memory is read.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    silence: u64,
    /// Threads or processes of each proxy; one for each CPU if nothing is said.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Measure this build of snigate as well: what a change has brought.
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    /// Measure only these systems, such as "relay"; all if nothing is said.
    #[arg(long, value_name = "NAME")]
    system: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let cpus = available_parallelism().context("the number of CPUs")?.get();
    let workers = options.workers.map_or(cpus, usize::from);
    let wanted = usize::try_from(options.connections)?;
    let connections = wanted.min(idle::room(wanted)?);
    if connections < wanted {
        eprintln!(
            "The hard limit of open files allows {connections} connections, not {wanted}: raise it (`ulimit -Hn`) for more."
        );
    }
    let how = idle::Options {
        connections,
        silence: Duration::from_secs(options.silence),
        workers,
        systems: options.system.clone(),
        other: options.beside.clone(),
    };
    let measured = idle::run(&how, progress)?;
    progress("");
    if options.json {
        let all = json!({
            "kernel": kernel(),
            "workers": workers,
            "measured": idle::as_json(&measured),
        });
        println!("{all:#}");
    } else {
        println!(
            "Kernel {}; {workers} threads or processes for each proxy; links without offloads.\n\
             Kilobytes per silent connection: the proxy's processes, the kernel's memory over routing's, of which entries of maps are a part, \
             and both together.\n\
             Sockets of the gateway per connection; the last two columns are what is there without a connection.",
            kernel(),
        );
        idle::print(&measured);
    }
    Ok(())
}
