//! Tables of what was measured.

use super::{Row, Sample};
use crate::bench::figures::quantile;
use crate::bench::results::{self, Better, Metric, Table};
use crate::plot::figure;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    AtRest,
    Reloading,
}

impl Subject {
    pub(super) const BOTH: [Self; 2] = [Self::AtRest, Self::Reloading];

    pub(super) fn key(self, domains: usize) -> String {
        let name = match self {
            Self::AtRest => "at-rest",
            Self::Reloading => "reloading",
        };
        format!("reload/{name}/{domains}")
    }

    pub(super) fn title(self, domains: usize) -> String {
        let name = match self {
            Self::AtRest => "at rest",
            Self::Reloading => "reloading",
        };
        format!("{} domains, {name}", figure(domains as f64))
    }

    fn columns(self) -> impl Iterator<Item = Column> {
        let times: &[Column] = match self {
            Self::AtRest => &[],
            Self::Reloading => &TIMES,
        };
        times.iter().chain(&EFFECTS).copied()
    }
}

/// A column, and its figure of one sample if there is one.
#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    unit: &'static str,
    better: Better,
    of: fn(&Sample) -> Option<f64>,
}

const fn column(
    name: &'static str,
    unit: &'static str,
    better: Better,
    of: fn(&Sample) -> Option<f64>,
) -> Column {
    Column {
        name,
        unit,
        better,
        of,
    }
}

const TIMES: [Column; 3] = [
    column("time of the reload", "ms", Better::Lower, |sample| {
        let times = sample.moves.iter().map(|it| it.all.as_secs_f64() * 1e3);
        quantile(&times.collect::<Vec<f64>>(), 0.5)
    }),
    column("first new connection", "ms", Better::Lower, |sample| {
        let times = sample.moves.iter().map(|it| it.first.as_secs_f64() * 1e3);
        quantile(&times.collect::<Vec<f64>>(), 0.5)
    }),
    column("time of the command", "ms", Better::Neither, |sample| {
        let times = sample.moves.iter().filter_map(|it| it.command);
        let times: Vec<_> = times.map(|it| it.as_secs_f64() * 1e3).collect();
        quantile(&times, 0.5)
    }),
];

const EFFECTS: [Column; 8] = [
    column("setup p50", "µs", Better::Lower, |sample| {
        quantile(&sample.seen.setups, 0.5)
    }),
    column("setup p99", "µs", Better::Lower, |sample| {
        quantile(&sample.seen.setups, 0.99)
    }),
    column("ping p50", "µs", Better::Lower, |sample| {
        quantile(&sample.seen.pings, 0.5)
    }),
    column("ping p99", "µs", Better::Lower, |sample| {
        quantile(&sample.seen.pings, 0.99)
    }),
    column("longest ping", "µs", Better::Lower, |sample| {
        quantile(&sample.seen.pings, 1.0)
    }),
    column("failed connections", "", Better::Lower, |sample| {
        Some(sample.failed as f64)
    }),
    column("memory", "MiB", Better::Lower, |sample| {
        let memory = sample.memory;
        Some((memory.processes + memory.maps.unwrap_or(0)) as f64 / MEBIBYTE)
    }),
    column("of it maps", "MiB", Better::Neither, |sample| {
        Some(sample.memory.maps? as f64 / MEBIBYTE)
    }),
];

pub(super) fn tables(domains: usize, measured: &[(Subject, Vec<Row>)]) -> Vec<Table> {
    let table = |(subject, rows): &(Subject, Vec<Row>)| Table {
        key: subject.key(domains),
        title: subject.title(domains),
        metrics: subject
            .columns()
            .map(|column| Metric::new(column.name, column.unit, column.better))
            .collect(),
        rows: rows.iter().map(|it| row(*subject, domains, it)).collect(),
    };
    measured.iter().map(table).collect()
}

fn row(subject: Subject, domains: usize, row: &Row) -> results::Row {
    let cell = |column: Column| row.samples.iter().filter_map(column.of).collect();
    results::Row {
        name: row.system.name().to_owned(),
        role: row.system.role(),
        x: Some(domains as f64),
        cells: subject.columns().map(cell).collect(),
    }
}
