//! Everything in one go, and the document of it.

use std::fs;
use std::path::PathBuf;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, bail, ensure};
use snigate_tests::bench::document::Document;
use snigate_tests::bench::results::Results;
use snigate_tests::bench::whole::{self, Plan};

use crate::progress;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Two minutes of it: whether everything works, but no figures to rely on.
    #[arg(long)]
    quick: bool,
    /// Where benchmarks.md goes, and its pictures.
    #[arg(long, value_name = "DIRECTORY")]
    output: PathBuf,
    /// Where the figures are kept, as JSON.
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// Measure nothing; make the document again from the figures in this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "rounds", "workers", "part", "micro", "system", "domains"])]
    from: Option<PathBuf>,
    /// Measure everything this many times, one system after the other, and take the medians.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Threads or processes of each proxy; one for each CPU if nothing is said.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// What `cargo xtask bench micro` has printed: it goes into the document.
    #[arg(long, value_name = "FILE")]
    micro: Option<PathBuf>,
    /// Only this part; may be given several times. The others are missing from the document.
    #[arg(long, value_name = "NAME", value_parser = whole::parts())]
    part: Vec<String>,
    /// Keep what the file of figures has of other parts: what was measured again is said in the document.
    #[arg(long, requires = "part", conflicts_with = "quick")]
    amend: bool,
    /// Only this system, such as `haproxy`; may be given several times.
    #[arg(long, value_name = "NAME")]
    system: Vec<String>,
    /// The part `reload` with this many domains; may be given several times.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(3..=1_000_000))]
    domains: Vec<u32>,
}

impl Options {
    /// Whether anything is loaded into the kernel.
    pub(crate) fn measures(&self) -> bool {
        self.from.is_none()
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(file) = &options.from {
        return document(options, &Results::read(file)?);
    }
    let cpus = available_parallelism().context("the number of CPUs")?.get();
    let workers = options.workers.map_or(cpus, usize::from);
    let mut plan = if options.quick {
        Plan::quick(workers)
    } else {
        Plan::full(workers)
    };
    plan.parts.clone_from(&options.part);
    plan.amends = options.amend;
    plan.systems.clone_from(&options.system);
    if !options.domains.is_empty() {
        let domains = options.domains.iter().map(|number| *number as usize);
        plan.domains = domains.collect();
    }
    if let Some(file) = &options.micro {
        let text = fs::read_to_string(file);
        plan.micro = text.with_context(|| format!("reading {}", file.display()))?;
    }
    if let Some(rounds) = options.rounds {
        (plan.rounds, plan.idle_rounds) = (rounds, rounds.min(plan.idle_rounds));
    }
    let directory = options.results.parent().context("a file without a place")?;
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let (results, failed) = whole::run(&plan, &options.results, progress)?;
    progress("");
    ensure!(!results.tables.is_empty(), "{}", failed.join("\n"));
    document(options, &results)?;
    println!("The figures are in {}.", options.results.display());
    if !failed.is_empty() {
        bail!("not all of it was measured:\n{}", failed.join("\n"));
    }
    Ok(())
}

fn document(options: &Options, results: &Results) -> Result<()> {
    let document = Document::new(results)?;
    document.write(&options.output)?;
    println!(
        "{} with {} pictures",
        options.output.join("benchmarks.md").display(),
        document.plots.len()
    );
    Ok(())
}
