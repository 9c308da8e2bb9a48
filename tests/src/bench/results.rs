//! What a run has measured, in one form for all benches: kept as JSON, and what the document is made of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::figures;

/// A whole run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Results {
    /// Where it was made.
    pub machine: Machine,
    /// What was measured, by name.
    pub versions: BTreeMap<String, String>,
    /// How it was made.
    pub how: How,
    /// What the CPUs did while nothing was measured, as a part of all they can do.
    pub background: Vec<f64>,
    /// Everything that was measured.
    pub tables: Vec<Table>,
    /// What benches of the agent's code have printed.
    #[serde(default)]
    pub micro: String,
    /// What was not, and why.
    pub left_out: Vec<String>,
}

/// A machine.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Machine {
    /// The processors' name.
    pub processor: String,
    /// How many of them, or of their threads.
    pub cpus: usize,
    /// Gibibytes.
    pub memory_gib: f64,
    /// The kernel's release.
    pub kernel: String,
}

/// How a run was made.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct How {
    /// The day, in UTC.
    pub date: String,
    /// The commit that was built, with a mark where files had changed.
    pub commit: String,
    /// Whether it was built for speed.
    pub release: bool,
    /// Whether it was a run for whether everything works.
    pub quick: bool,
    /// How often everything was measured.
    pub rounds: u32,
    /// How long most samples took.
    pub sample_ms: u64,
    /// Threads or processes of each proxy.
    pub workers: usize,
    /// How long all of it took.
    pub minutes: f64,
    /// Parts that were measured again later, with the day and the commit.
    #[serde(default)]
    pub amended: Vec<String>,
}

/// Systems, or kinds of packets, on one subject.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Table {
    /// Its name in the template.
    pub key: String,
    /// Its name for people.
    pub title: String,
    /// The columns.
    pub metrics: Vec<Metric>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// What a column is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Metric {
    /// What it is.
    pub name: String,
    /// And in what.
    pub unit: String,
    /// Which of two figures is the better one.
    pub better: Better,
}

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The higher one.
    Higher,
    /// The lower one.
    Lower,
    /// It is no race.
    Neither,
}

/// One system, or kind of packets.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub role: Role,
    /// Where it stands on the axis of a plot: a number of flows, of connections, of domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<f64>,
    /// A figure for each round, for each column; none where there is nothing to measure.
    pub cells: Vec<Vec<f64>>,
}

/// Whose row it is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// snigate's.
    Ours,
    /// That of what it is compared with.
    Peer,
    /// Of what everything takes anyhow: it does not compete.
    Baseline,
}

/// Medians with their range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median of the rounds.
    pub median: f64,
    /// The lowest of the rounds.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// How many there were.
    pub rounds: usize,
}

/// Fewer rounds have no spread to tell figures apart by.
const TELLING: usize = 3;

impl Spread {
    /// Of the rounds' figures; `None` where there are none.
    #[must_use]
    pub fn of(rounds: &[f64]) -> Option<Self> {
        let by_size = |one: &&f64, other: &&f64| one.total_cmp(other);
        Some(Self {
            median: figures::median(rounds)?,
            low: *rounds.iter().min_by(by_size)?,
            high: *rounds.iter().max_by(by_size)?,
            rounds: rounds.len(),
        })
    }

    /// Whether this is better than the other in a way that noise does not explain: there were rounds enough, and the worst of them is better than
    /// the other's best.
    #[must_use]
    pub fn clearly_beats(&self, other: &Self, better: Better) -> bool {
        let apart = match better {
            Better::Higher => self.low > other.high,
            Better::Lower => self.high < other.low,
            Better::Neither => false,
        };
        apart && self.rounds.min(other.rounds) >= TELLING
    }

    /// Whether the median is the better one.
    #[must_use]
    pub fn beats(&self, other: &Self, better: Better) -> bool {
        match better {
            Better::Higher => self.median > other.median,
            Better::Lower => self.median < other.median,
            Better::Neither => false,
        }
    }
}

impl Metric {
    /// A column.
    #[must_use]
    pub fn new(name: &str, unit: &str, better: Better) -> Self {
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            better,
        }
    }
}

impl Row {
    /// The figure of a column.
    #[must_use]
    pub fn spread(&self, column: usize) -> Option<Spread> {
        Spread::of(self.cells.get(column)?)
    }
}

impl Table {
    /// The column of this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.metrics.iter().position(|metric| metric.name == name)
    }

    /// The best of the rows of a role in a column, by the median.
    #[must_use]
    pub fn best(&self, column: usize, role: Role) -> Option<(&Row, Spread)> {
        let better = self.metrics.get(column)?.better;
        let rows = self.rows.iter().filter(|row| row.role == role);
        let figures = rows.filter_map(|row| Some((row, row.spread(column)?)));
        figures.reduce(|best, next| {
            if next.1.beats(&best.1, better) {
                next
            } else {
                best
            }
        })
    }
}

impl Results {
    /// Reads what [`Results::write`] has written.
    ///
    /// # Errors
    /// The file can't be read, or is another one.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is no result of `cargo xtask bench`", path.display()))
    }

    /// Keeps them.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }

    /// The tables whose keys begin so.
    pub fn tables<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Table> {
        self.tables
            .iter()
            .filter(move |it| it.key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(rounds: &[f64]) -> Spread {
        Spread::of(rounds).expect("rounds")
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(spread(&[4.0, 1.0]).median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ranges_that_overlap_tell_nothing_and_neither_does_one_round() {
        let (low, high) = (spread(&[1.0, 2.0, 3.0]), spread(&[4.0, 5.0, 6.0]));
        assert!(high.clearly_beats(&low, Better::Higher));
        assert!(low.clearly_beats(&high, Better::Lower));
        assert!(!low.clearly_beats(&high, Better::Higher));
        assert!(!high.clearly_beats(&low, Better::Neither));
        let between = spread(&[3.0, 4.5, 5.0]);
        assert!(!between.clearly_beats(&low, Better::Higher));
        assert!(between.beats(&low, Better::Higher));
        assert!(!spread(&[9.0]).clearly_beats(&spread(&[1.0]), Better::Higher));
    }
}
