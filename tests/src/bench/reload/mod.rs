//! What a reload takes, and what it does to connections meanwhile, by the number of domains: snigate beside HAProxy and nginx.
//!
//! The same for all of them: with each reload one domain goes to another Edge, and new connections of that domain tell when the new configuration is in force.

mod observe;
mod report;
mod stand;

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use self::observe::{Failures, Seen, observe};
use self::report::{Subject, tables};
use self::stand::{LEAST_DOMAINS, Moves, Stand, System};
use super::results::Table;
use super::{chosen, order};
use crate::plot::figure;
use crate::{Lab, Topology};

/// Every connection takes a port, which rests for a minute.
const PARTNERS: u8 = 8;

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often.
    pub rounds: u32,
    /// How long each sample without a reload takes.
    pub sample: Duration,
    /// How many reloads each other sample has.
    pub reloads: u32,
    /// Numbers of domains.
    pub domains: Vec<usize>,
    /// Threads or processes of each proxy.
    pub workers: usize,
    /// Only tables whose key contains this.
    pub only: String,
    /// Only systems of these names; all where there are none.
    pub systems: Vec<String>,
}

/// What one sample has shown of one system.
#[derive(Clone, Debug, Default)]
struct Sample {
    seen: Seen,
    /// Connections that have failed.
    failed: u64,
    moves: Vec<Moves>,
    memory: stand::Memory,
}

/// The samples of one system, one for each round.
#[derive(Clone, Debug)]
struct Row {
    system: System,
    samples: Vec<Sample>,
}

/// Measures; two tables for each number of domains.
///
/// # Errors
/// Something does not start, a reload is refused or does not come into force, or a single connection of snigate's fails.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Vec<Table>> {
    let mut all = Vec::new();
    for domains in &options.domains {
        let wanted = |subject: &Subject| subject.key(*domains).contains(&options.only);
        let subjects: Vec<_> = Subject::BOTH.into_iter().filter(wanted).collect();
        if !subjects.is_empty() {
            all.extend(measure(*domains, &subjects, options, &mut progress)?);
        }
    }
    Ok(all)
}

fn measure(
    domains: usize,
    subjects: &[Subject],
    options: &Options,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<Table>> {
    ensure!(
        domains >= LEAST_DOMAINS,
        "a reload needs {LEAST_DOMAINS} domains at least"
    );
    let topology = Topology {
        offloads: true,
        capture: false,
        partner_addresses: PARTNERS,
        ..Topology::default()
    };
    let systems = System::ALL
        .into_iter()
        .filter(|system| chosen(&options.systems, system.name()));
    let systems: Vec<_> = systems.collect();
    let labs = systems
        .iter()
        .map(|_| Lab::new("bench-reload", &topology))
        .collect::<Result<Vec<_>>>()?;
    let mut stands = Vec::new();
    for (system, lab) in systems.iter().zip(&labs) {
        progress(&format!(
            "starting {} with {} domains",
            system.name(),
            figure(domains as f64)
        ));
        stands.push(Stand::start(lab, *system, domains, options.workers)?);
    }
    let rows = systems.iter().map(|system| Row {
        system: *system,
        samples: Vec::new(),
    });
    let mut measured: Vec<(Subject, Vec<Row>)> = subjects
        .iter()
        .map(|subject| (*subject, rows.clone().collect()))
        .collect();
    for round in 1..=options.rounds {
        for (subject, rows) in &mut measured {
            for number in order(round, stands.len()) {
                let (stand, row) = (&mut stands[number], &mut rows[number]);
                progress(&format!(
                    "round {round} of {}: {}: {}",
                    options.rounds,
                    subject.title(domains),
                    row.system.name()
                ));
                row.samples.push(sample(stand, *subject, options)?);
            }
        }
    }
    Ok(tables(domains, &measured))
}

/// One sample. Its memory is read while connections stand: one from before the first reload, and one from after each. They are gone at its end.
fn sample(stand: &mut Stand<'_>, subject: Subject, options: &Options) -> Result<Sample> {
    let failures = Failures::of(stand.system());
    let passed = stand.passed()?;
    let mut first = passed.echoing(1)?;
    let (seen, (moves, later)) = observe(&passed, &mut first, &failures, || {
        let (mut moves, mut later) = (Vec::new(), Vec::new());
        if subject == Subject::AtRest {
            thread::sleep(options.sample);
            return Ok((moves, later));
        }
        for _ in 0..options.reloads {
            moves.push(stand.move_domain(&failures)?);
            later.extend(failures.bear(passed.echoing(1))?);
        }
        Ok((moves, later))
    })?;
    let memory = stand.memory()?;
    drop((first, later));
    stand.rest()?;
    Ok(Sample {
        seen,
        failed: failures.count(),
        moves,
        memory,
    })
}
