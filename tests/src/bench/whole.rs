//! Everything in one go: what the document is made of.
//!
//! Parts come one after the other and each takes its labs down again. Within a part, rounds go over all systems.

mod about;
mod datapath;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::passed::{self, idle, relay, setup};
use super::results::{How, Results, Table};
use super::{forward, profile, reload};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whether it is a run for whether everything works.
    pub quick: bool,
    /// How often everything is measured.
    pub rounds: u32,
    /// How long most samples take.
    pub sample: Duration,
    /// Threads or processes of each proxy.
    pub workers: usize,
    /// Only parts of these names; all where there are none.
    pub parts: Vec<String>,
    /// Whether what the file has of other parts is kept.
    pub amends: bool,
    /// Only systems of these names; all where there are none.
    pub systems: Vec<String>,
    /// For some parts, only tables whose keys contain this.
    pub only: Vec<(&'static str, &'static str)>,
    /// Numbers of established flows whose packets are forwarded.
    pub flows: Vec<usize>,
    /// Numbers of domains.
    pub domains: Vec<usize>,
    /// Reloads in each sample that has some.
    pub reloads: u32,
    /// Numbers of silent connections.
    pub idle: Vec<usize>,
    /// How often these are measured: memory hardly varies.
    pub idle_rounds: u32,
    /// How long they are silent.
    pub silence: Duration,
    /// How long to wait for what is left to be done of connections that have ended: flows are removed after a minute.
    pub afterwards: Duration,
    /// What benches of the agent's code have printed, which need no kernel and are run by others.
    pub micro: String,
}

impl Plan {
    /// What docs/benchmarks.md is made of.
    #[must_use]
    pub fn full(workers: usize) -> Self {
        Self {
            quick: false,
            rounds: 5,
            sample: Duration::from_secs(2),
            workers,
            parts: Vec::new(),
            amends: false,
            systems: Vec::new(),
            only: Vec::new(),
            flows: vec![1_000, 20_000],
            domains: vec![100, 10_000, 100_000],
            reloads: 5,
            idle: vec![1_000, 10_000, 50_000],
            idle_rounds: 3,
            silence: Duration::from_secs(3),
            afterwards: passed::AFTERWARDS,
            micro: String::new(),
        }
    }

    /// Two minutes of the same: whether everything works.
    #[must_use]
    pub fn quick(workers: usize) -> Self {
        Self {
            quick: true,
            rounds: 1,
            sample: Duration::from_millis(200),
            only: vec![
                ("setup", "offloads-on/parallel-16"),
                ("relay", "offloads-off/messages"),
                ("proxy", "tls13"),
            ],
            flows: vec![100],
            domains: vec![100, 1_000],
            reloads: 2,
            idle: vec![200],
            idle_rounds: 1,
            silence: Duration::from_millis(500),
            afterwards: Duration::ZERO,
            ..Self::full(workers)
        }
    }

    /// The least of everything, for a test.
    #[must_use]
    pub fn smallest() -> Self {
        Self {
            sample: Duration::from_millis(50),
            only: vec![
                ("datapath", "established, IPv4"),
                ("forward", "offloads-on/"),
                ("setup", "offloads-on/parallel-1"),
                ("relay", "offloads-off/ping"),
                ("proxy", "terminated-tls13-ecdsa"),
            ],
            flows: vec![10],
            domains: vec![10],
            reloads: 1,
            idle: vec![20],
            silence: Duration::ZERO,
            ..Self::quick(1)
        }
    }

    fn only(&self, part: &str) -> String {
        let only = self.only.iter().find(|(name, _)| *name == part);
        only.map_or_else(String::new, |(_, key)| (*key).to_owned())
    }
}

/// What came of a part.
#[derive(Debug, Default)]
struct Measured {
    tables: Vec<Table>,
    left_out: Vec<String>,
    background: Vec<f64>,
}

/// Is told what comes next.
type Progress<'a> = dyn FnMut(&str) + 'a;

struct Part {
    name: &'static str,
    measure: fn(&Plan, &mut Progress<'_>) -> Result<Measured>,
}

const PARTS: [Part; 8] = [
    Part {
        name: "datapath",
        measure: datapath::measure,
    },
    Part {
        name: "forward",
        measure: forwarded,
    },
    Part {
        name: "setup",
        measure: |plan, progress| {
            passed_part(
                plan,
                "setup",
                |how, progress| setup::run(how, progress),
                progress,
            )
        },
    },
    Part {
        name: "relay",
        measure: |plan, progress| {
            passed_part(
                plan,
                "relay",
                |how, progress| relay::run(how, progress),
                progress,
            )
        },
    },
    Part {
        name: "proxy",
        measure: proxy,
    },
    Part {
        name: "reload",
        measure: reloaded,
    },
    Part {
        name: "idle",
        measure: silent,
    },
    Part {
        name: "profile",
        measure: profiled,
    },
];

/// The names of all parts, in order.
#[must_use]
pub fn parts() -> Vec<&'static str> {
    PARTS.iter().map(|part| part.name).collect()
}

/// Measures; after each part, what there is goes into the file. A part that fails is left out, and the error says so at the end: the others took
/// long enough.
///
/// # Errors
/// The file can't be written, or nothing can be told of the machine.
pub fn run(
    plan: &Plan,
    file: &Path,
    mut progress: impl FnMut(&str),
) -> Result<(Results, Vec<String>)> {
    let start = Instant::now();
    let mut results = Results {
        machine: about::machine()?,
        versions: about::versions()?,
        how: How {
            date: about::today(),
            commit: about::commit(),
            release: !cfg!(debug_assertions),
            quick: plan.quick,
            rounds: plan.rounds,
            sample_ms: u64::try_from(plan.sample.as_millis())?,
            workers: plan.workers,
            minutes: 0.0,
            amended: Vec::new(),
        },
        micro: plan.micro.clone(),
        ..Results::default()
    };
    let mut failed = Vec::new();
    let parts = PARTS
        .iter()
        .filter(|part| super::chosen(&plan.parts, part.name));
    let parts: Vec<_> = parts.collect();
    if plan.amends {
        let names: Vec<_> = parts.iter().map(|part| part.name).collect();
        results = without(Results::read(file)?, &names, &results.how);
    }
    let before = results.how.minutes;
    for (number, Part { name, measure }) in parts.iter().enumerate() {
        let place = format!("{} of {}, {name}", number + 1, parts.len());
        progress(&place);
        let minutes = || start.elapsed().as_secs() / 60;
        let mut within = |what: &str| progress(&format!("{} min; {place}: {what}", minutes()));
        match measure(plan, &mut within) {
            Ok(measured) => {
                results.tables.extend(measured.tables);
                results.left_out.extend(measured.left_out);
                results.background.extend(measured.background);
            }
            Err(error) => {
                let failure = format!("{name}: {error:#}");
                // The first line: the others quote what programs have said.
                let line = failure.lines().next().unwrap_or_default().to_owned();
                results.left_out.push(line);
                failed.push(failure);
            }
        }
        results.how.minutes = before + start.elapsed().as_secs_f64() / 60.0;
        results.write(file)?;
    }
    results.left_out.sort();
    results.left_out.dedup();
    results.write(file)?;
    Ok((results, failed))
}

/// The results of an earlier run without these parts, which are measured again now.
fn without(mut earlier: Results, parts: &[&str], now: &How) -> Results {
    for part in parts {
        let (keys, failure) = (format!("{part}/"), format!("{part}: "));
        earlier.tables.retain(|table| !table.key.starts_with(&keys));
        earlier.left_out.retain(|line| !line.starts_with(&failure));
        let before = format!("{part} (");
        earlier.how.amended.retain(|it| !it.starts_with(&before));
        let amended = format!("{part} ({}, {})", now.date, now.commit);
        earlier.how.amended.push(amended);
    }
    earlier
}

type PassedBench = fn(&passed::Options, &mut Progress<'_>) -> Result<passed::Measured>;

fn passed_part(
    plan: &Plan,
    name: &str,
    run: PassedBench,
    progress: &mut Progress<'_>,
) -> Result<Measured> {
    let options = passed::Options {
        rounds: plan.rounds,
        sample: plan.sample,
        workers: plan.workers,
        only: plan.only(name),
        systems: plan.systems.clone(),
        afterwards: plan.afterwards,
        other: None,
    };
    let measured = run(&options, progress)?;
    Ok(Measured {
        tables: passed::tables(name, &measured),
        left_out: passed::left_out(&measured),
        background: measured.background,
    })
}

fn proxy(plan: &Plan, progress: &mut Progress<'_>) -> Result<Measured> {
    let options = super::Options {
        rounds: plan.rounds,
        workers: plan.workers,
        only: plan.only("proxy"),
        sample: plan.sample,
        systems: plan.systems.clone(),
        beside: None,
    };
    let tables = super::run(&options, progress)?;
    Ok(Measured {
        tables: super::tables(&tables),
        ..Measured::default()
    })
}

fn forwarded(plan: &Plan, progress: &mut Progress<'_>) -> Result<Measured> {
    // Both ends of every flow are this process's.
    let most = plan.flows.iter().copied().max().unwrap_or_default();
    let room = idle::room(most)?;
    let options = forward::Options {
        rounds: plan.rounds,
        sample: plan.sample / 2,
        flows: plan.flows.iter().map(|flows| (*flows).min(room)).collect(),
        systems: plan.systems.clone(),
        only: plan.only("forward"),
    };
    let measured = forward::run(&options, progress)?;
    Ok(Measured {
        tables: measured.tables,
        left_out: measured.left_out,
        background: Vec::new(),
    })
}

fn reloaded(plan: &Plan, progress: &mut Progress<'_>) -> Result<Measured> {
    let options = reload::Options {
        rounds: plan.rounds,
        sample: plan.sample,
        reloads: plan.reloads,
        domains: plan.domains.clone(),
        workers: plan.workers,
        only: plan.only("reload"),
        systems: plan.systems.clone(),
    };
    Ok(Measured {
        tables: reload::run(&options, progress)?,
        ..Measured::default()
    })
}

fn silent(plan: &Plan, progress: &mut Progress<'_>) -> Result<Measured> {
    let mut all = Measured::default();
    let mut measured_with = Vec::new();
    for wanted in &plan.idle {
        let connections = (*wanted).min(idle::room(*wanted)?);
        if connections < *wanted {
            all.left_out.push(format!(
                "{wanted} silent connections: the hard limit of open files allows {connections}"
            ));
        }
        if measured_with.contains(&connections) {
            continue;
        }
        measured_with.push(connections);
        let options = idle::Options {
            connections,
            silence: plan.silence,
            workers: plan.workers,
            systems: plan.systems.clone(),
            other: None,
        };
        for _ in 0..plan.idle_rounds {
            let measured = idle::run(&options, &mut *progress)?;
            all.left_out.extend(idle::left_out(&measured));
            if let Some(table) = idle::table(&measured) {
                add_round(&mut all.tables, table);
            }
        }
    }
    Ok(all)
}

fn profiled(plan: &Plan, progress: &mut Progress<'_>) -> Result<Measured> {
    let measured = profile::run(plan, progress)?;
    Ok(Measured {
        tables: measured.tables,
        left_out: measured.left_out,
        background: Vec::new(),
    })
}

/// Another round of a table that may be there already, with the same columns.
fn add_round(tables: &mut Vec<Table>, round: Table) {
    let Some(table) = tables.iter_mut().find(|table| table.key == round.key) else {
        tables.push(round);
        return;
    };
    for more in round.rows {
        match table.rows.iter_mut().find(|row| row.name == more.name) {
            Some(row) => {
                for (cell, more) in row.cells.iter_mut().zip(more.cells) {
                    cell.extend(more);
                }
            }
            None => table.rows.push(more),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amended_run_keeps_other_parts() {
        let table = |key: &str| Table {
            key: key.to_owned(),
            title: String::new(),
            metrics: Vec::new(),
            rows: Vec::new(),
        };
        let earlier = Results {
            tables: ["relay/ping", "setup/parallel-1"].map(table).into(),
            left_out: vec!["relay: a reset".to_owned(), "another".to_owned()],
            how: How {
                amended: vec!["relay (2026-01-01, commit fedcba9)".to_owned()],
                ..How::default()
            },
            ..Results::default()
        };
        let now = How {
            date: "2026-01-02".to_owned(),
            commit: "commit 0123abc".to_owned(),
            ..How::default()
        };
        let kept = without(earlier, &["relay"], &now);
        let keys: Vec<_> = kept.tables.iter().map(|table| table.key.as_str()).collect();
        assert_eq!(keys, ["setup/parallel-1"]);
        assert_eq!(kept.left_out, ["another"]);
        assert_eq!(kept.how.amended, ["relay (2026-01-02, commit 0123abc)"]);
    }
}
