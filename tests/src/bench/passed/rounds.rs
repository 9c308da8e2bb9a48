//! Tables of systems and subjects, filled round by round, so that whatever else the machine does meets all systems alike.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::stand::{LeftOut, Stand, Terms};
use super::system::{SYSTEMS, System};
use super::work::{Kind, Sample, at_rest, measure};
use crate::Lab;
use crate::bench::chosen;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) key: &'static str,
    /// Its name for people.
    pub(super) title: &'static str,
    pub(super) kind: Kind,
}

pub(super) const fn subject(key: &'static str, title: &'static str, kind: Kind) -> Subject {
    Subject { key, title, kind }
}

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
    /// Only systems of these names; all where there are none.
    pub systems: Vec<String>,
}

/// Which bench it is.
pub(super) struct Bench<'a> {
    /// What its labs are called.
    pub(super) purpose: &'a str,
    pub(super) subjects: &'a [Subject],
    /// Whether a system has a row.
    pub(super) compares: fn(&System) -> bool,
    pub(super) terms: Terms,
}

/// The measurements of one system on one subject.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) system: System,
    /// One for each round.
    pub(super) samples: Vec<Sample>,
}

/// All systems with the same links on one subject.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) subject: Subject,
    pub(super) offloads: bool,
    pub(super) rows: Vec<Row>,
}

/// All that was measured.
#[derive(Debug)]
pub struct Measured {
    pub(super) tables: Vec<Table>,
    /// What the CPUs did while nothing was measured, in each round, as a part of all they can do.
    pub(in crate::bench) background: Vec<f64>,
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
pub(super) fn run(
    bench: &Bench<'_>,
    options: &Options,
    mut progress: impl FnMut(&str),
) -> Result<Measured> {
    let mut tables: Vec<_> = [true, false]
        .into_iter()
        .flat_map(|offloads| {
            let subjects = bench.subjects.iter();
            subjects.map(move |subject| Table::new(*subject, offloads))
        })
        .filter(|table| table.key().contains(&options.only))
        .collect();
    let systems: Vec<_> = SYSTEMS
        .into_iter()
        .filter(bench.compares)
        .filter(|system| chosen(&options.systems, system.name))
        .filter(|system| tables.iter().any(|table| table.offloads == system.offloads))
        .collect();
    let labs = systems
        .iter()
        .map(|system| Lab::new(bench.purpose, &bench.terms.topology(system)))
        .collect::<Result<Vec<_>>>()?;
    let mut stands = Vec::new();
    let mut left_out = Vec::new();
    for (system, lab) in systems.into_iter().zip(&labs) {
        progress(&format!("starting {}, {}", system.name, system.links()));
        match Stand::start(lab, system, bench.terms)? {
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
