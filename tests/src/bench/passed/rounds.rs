//! Tables of systems and subjects, filled round by round, so that whatever else the machine does meets all systems alike.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::stand::{LeftOut, Stand, Terms};
use super::system::{SYSTEMS, System};
use super::work::{Kind, Sample, at_rest, measure};
use crate::Lab;
use crate::bench::{chosen, order};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) key: &'static str,
    /// Its name for people.
    pub(super) title: &'static str,
    pub(super) kind: Kind,
}

impl Subject {
    pub(super) fn sets_up(&self) -> bool {
        matches!(self.kind, Kind::Setups { .. })
    }
}

pub(super) const fn subject(key: &'static str, title: &'static str, kind: Kind) -> Subject {
    Subject { key, title, kind }
}

/// What is long enough for [`Options::afterwards`]: flows that have ended are removed after a minute.
pub const AFTERWARDS: Duration = Duration::from_secs(70);

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
    /// How long to wait after the last sample, for what is left to be done of connections that have ended.
    pub afterwards: Duration,
    /// Another build of snigate, for further rows.
    pub other: Option<PathBuf>,
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
    /// What its processes have worked while it was not measured, for each unit: ended flows are removed a minute later.
    pub(super) afterwards: f64,
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

/// A stand, and what its processes do while it is not measured.
struct Watched<'lab> {
    stand: Stand<'lab>,
    /// What they had used when it was last measured.
    last: Duration,
    /// What they have used between the samples.
    between: Duration,
    /// Units of all samples.
    units: f64,
}

impl<'lab> Watched<'lab> {
    fn new(stand: Stand<'lab>) -> Result<Self> {
        Ok(Self {
            last: stand.used()?,
            stand,
            between: Duration::ZERO,
            units: 0.0,
        })
    }

    fn is_of(&self, system: &System) -> bool {
        self.stand.system.offloads == system.offloads && self.stand.system.name == system.name
    }

    fn begins(&mut self) -> Result<()> {
        self.between += self.stand.used()?.saturating_sub(self.last);
        Ok(())
    }

    fn ends(&mut self, units: f64) -> Result<()> {
        self.last = self.stand.used()?;
        self.units += units;
        Ok(())
    }

    /// Seconds for each unit.
    fn afterwards(&self) -> f64 {
        if self.units > 0.0 {
            self.between.as_secs_f64() / self.units
        } else {
            0.0
        }
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
        .filter(|system| options.other.is_some() || !system.is_other())
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
        match Stand::start(lab, system, bench.terms, options.other.as_deref())? {
            Ok(stand) => stands.push(Watched::new(stand)?),
            Err(reason) => left_out.push(reason),
        }
    }
    for table in &mut tables {
        let stands = stands.iter().map(|watched| watched.stand.system);
        table.rows = stands
            .filter(|system| system.offloads == table.offloads)
            .map(|system| Row {
                system,
                samples: Vec::new(),
                afterwards: 0.0,
            })
            .collect();
    }
    let mut background = Vec::new();
    for round in 1..=options.rounds {
        progress(&format!("round {round}: what else the machine does"));
        background.push(at_rest(options.sample)?);
        for table in &mut tables {
            for number in order(round, table.rows.len()) {
                let row = &mut table.rows[number];
                let what = format!(
                    "round {round} of {}: {}, {}: {}",
                    options.rounds,
                    table.subject.title,
                    row.system.links(),
                    row.system.name
                );
                progress(&what);
                let at = stands.iter().position(|it| it.is_of(&row.system));
                let at = at.context("a row without a stand")?;
                stands[at].begins()?;
                let others = stands.iter().enumerate().filter(|(other, _)| *other != at);
                let others: Vec<_> = others.map(|(_, watched)| &watched.stand).collect();
                let stand = &stands[at].stand;
                let sample =
                    measure(stand, &others, table.subject.kind, options.sample).context(what)?;
                stands[at].ends(sample.units)?;
                row.samples.push(sample);
            }
        }
    }
    // What stands has no end that somebody would have to see to.
    if tables.iter().any(|table| table.subject.sets_up()) {
        progress("what is done afterwards");
        thread::sleep(options.afterwards);
        for watched in &mut stands {
            watched.begins()?;
        }
        for row in tables.iter_mut().flat_map(|table| &mut table.rows) {
            let watched = stands.iter().find(|it| it.is_of(&row.system));
            row.afterwards = watched.map_or(0.0, Watched::afterwards);
        }
    }
    Ok(Measured {
        tables,
        background,
        left_out,
    })
}
