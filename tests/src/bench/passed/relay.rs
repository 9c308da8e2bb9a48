//! What it takes to carry bytes between partner and Edge: by the datapath, by proxies, and by routing alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use super::report::{as_json, print};
use super::stand::{LeftOut, Stand, topology};
use super::system::{SYSTEMS, System};
use crate::Lab;
use crate::bench::machine;
use crate::peers::{Size, Stream, converse, pour};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub(super) key: &'static str,
    /// Its name for people.
    pub title: &'static str,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Connections one after the other.
    Setup,
    /// A kilobyte there and back, on one connection.
    Pings,
    /// The same on so many, one under way on each.
    Messages { connections: usize },
    /// So many connections at once, as fast as they can, towards the Edge.
    Bulk { connections: usize },
}

const fn subject(key: &'static str, title: &'static str, kind: Kind) -> Subject {
    Subject { key, title, kind }
}

const SUBJECTS: [Subject; 5] = [
    subject(
        "ping",
        "a kilobyte there and back, 1 connection",
        Kind::Pings,
    ),
    subject(
        "messages",
        "a kilobyte there and back, 32 connections at once",
        Kind::Messages { connections: 32 },
    ),
    subject(
        "bulk-1",
        "bulk, 1 connection",
        Kind::Bulk { connections: 1 },
    ),
    subject(
        "bulk-8",
        "bulk, 8 connections",
        Kind::Bulk { connections: 8 },
    ),
    subject(
        "setup",
        "from the SYN to the Edge's first byte",
        Kind::Setup,
    ),
];

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often.
    pub rounds: u32,
    /// How long each sample takes.
    pub sample: Duration,
    /// Threads or processes of each proxy.
    pub workers: usize,
    /// Only tables whose key contains this.
    pub only: String,
}

/// What came of one measurement.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Messages, mebibytes or connections per second.
    pub(super) rate: f64,
    /// p50 and p99, where one thing is done after the other.
    pub(super) latency: Option<[Duration; 2]>,
    /// Seconds of the whole machine's CPUs per unit.
    pub(super) cpu: f64,
}

/// The measurements of one system on one subject.
#[derive(Debug)]
pub struct Row {
    pub(super) system: System,
    /// One for each round.
    pub(super) samples: Vec<Sample>,
}

/// All systems with the same links on one subject.
#[derive(Debug)]
pub struct Table {
    pub(super) subject: Subject,
    pub(super) offloads: bool,
    pub(super) rows: Vec<Row>,
}

/// All that was measured.
#[derive(Debug)]
pub struct Measured {
    pub(super) tables: Vec<Table>,
    /// What the CPUs did while nothing was measured, in each round, as a part of all they can do.
    pub(super) background: Vec<f64>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Table {
    fn new(subject: Subject, offloads: bool) -> Self {
        Self {
            subject,
            offloads,
            rows: Vec::new(),
        }
    }

    /// Its name in JSON, such as `offloads-on/ping`.
    pub(super) fn key(&self) -> String {
        let links = if self.offloads { "on" } else { "off" };
        format!("offloads-{links}/{}", self.subject.key)
    }
}

/// Measures.
///
/// # Errors
/// Something does not start, or a single connection fails.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Measured> {
    let mut tables: Vec<_> = [true, false]
        .into_iter()
        .flat_map(|offloads| SUBJECTS.map(|subject| Table::new(subject, offloads)))
        .filter(|table| table.key().contains(&options.only))
        .collect();
    let systems: Vec<_> = SYSTEMS
        .into_iter()
        .filter(|system| tables.iter().any(|table| table.offloads == system.offloads))
        .collect();
    let labs = systems
        .iter()
        .map(|system| Lab::new("bench-relay", &topology(system)))
        .collect::<Result<Vec<_>>>()?;
    let mut stands = Vec::new();
    let mut left_out = Vec::new();
    for (system, lab) in systems.into_iter().zip(&labs) {
        progress(&format!("starting {}, {}", system.name, system.links()));
        match Stand::start(lab, system, Size::of(options.workers))? {
            Ok(stand) => stands.push(stand),
            Err(reason) => left_out.push(reason),
        }
    }
    for table in &mut tables {
        let stands = stands.iter().map(|stand| stand.system);
        table.rows = stands
            .filter(|system| system.offloads == table.offloads)
            .map(|system| Row {
                system,
                samples: Vec::new(),
            })
            .collect();
    }
    let mut background = Vec::new();
    for round in 1..=options.rounds {
        progress(&format!("round {round}: what else the machine does"));
        background.push(at_rest(options.sample)?);
        for table in &mut tables {
            // Another one begins each time, so that none is always the one that meets what the last table has left.
            let first = round as usize % table.rows.len().max(1);
            table.rows.rotate_left(first);
            for row in &mut table.rows {
                let what = format!(
                    "round {round} of {}: {}, {}: {}",
                    options.rounds,
                    table.subject.title,
                    row.system.links(),
                    row.system.name
                );
                progress(&what);
                let same = |stand: &&Stand<'_>| {
                    stand.system.offloads == row.system.offloads
                        && stand.system.name == row.system.name
                };
                let stand = stands.iter().find(same).context("a row without a stand")?;
                let sample = measure(stand, table.subject.kind, options.sample);
                row.samples.push(sample.context(what)?);
            }
            table.rows.rotate_right(first);
        }
    }
    Ok(Measured {
        tables,
        background,
        left_out,
    })
}

/// The part of the CPUs' time that is used while nothing is measured.
fn at_rest(time: Duration) -> Result<f64> {
    let cpus = std::thread::available_parallelism()?.get();
    let (start, before) = (Instant::now(), machine::busy()?);
    std::thread::sleep(time);
    let used = machine::busy()? - before;
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64() / cpus as f64)
}

fn measure(stand: &Stand<'_>, kind: Kind, time: Duration) -> Result<Sample> {
    let opener = stand.opener()?;
    if kind == Kind::Setup {
        return sampled(|| {
            let setups = opener.setups(time)?;
            Ok((setups.len() as f64, setups))
        });
    }
    let mut streams = match kind {
        Kind::Bulk { connections } => opener.counting(connections)?,
        Kind::Messages { connections } => opener.echoing(connections)?,
        Kind::Pings | Kind::Setup => opener.echoing(1)?,
    };
    stand.settle(streams.len(), Duration::from_secs(5))?;
    // Caches, windows, and the scheduler's idea of who belongs where.
    let warming = time / 8;
    match kind {
        Kind::Bulk { .. } => sampled(|| {
            const MEBIBYTE: f64 = 1024.0 * 1024.0;
            Ok((pour(&mut streams, time)? as f64 / MEBIBYTE, Vec::new()))
        }),
        Kind::Messages { .. } => {
            converse(&mut streams, warming)?;
            sampled(|| Ok((converse(&mut streams, time)? as f64, Vec::new())))
        }
        Kind::Pings | Kind::Setup => {
            let stream = streams.first_mut().context("a stream")?;
            ping(stream, warming)?;
            sampled(|| {
                let pings = ping(stream, time)?;
                Ok((pings.len() as f64, pings))
            })
        }
    }
}

fn ping(stream: &mut Stream, time: Duration) -> Result<Vec<Duration>> {
    let end = Instant::now() + time;
    let mut pings = Vec::new();
    while Instant::now() < end {
        pings.push(stream.ping()?);
    }
    Ok(pings)
}

/// Does it between two looks at the clocks; it tells how many units it was and how long each took.
fn sampled(work: impl FnOnce() -> Result<(f64, Vec<Duration>)>) -> Result<Sample> {
    let (start, before) = (Instant::now(), machine::busy()?);
    let (units, mut latencies) = work()?;
    let (time, busy) = (start.elapsed(), machine::busy()? - before);
    latencies.sort_unstable();
    let quantile = |q: f64| {
        let last = latencies.len().checked_sub(1)?;
        latencies.get((last as f64 * q).round() as usize).copied()
    };
    Ok(Sample {
        rate: units / time.as_secs_f64(),
        latency: quantile(0.5)
            .zip(quantile(0.99))
            .map(|(p50, p99)| [p50, p99]),
        cpu: busy.as_secs_f64() / units,
    })
}
