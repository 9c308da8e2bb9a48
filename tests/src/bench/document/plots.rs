//! The pictures, as data.

use super::super::results::{Metric, Results, Row, Spread, Table};
use super::tables::heading;
use crate::plot::{Axis, Bars, Group, Line, Lines, MOST_SERIES, Plot, Value};

pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    what: What,
}

enum What {
    /// A group of bars for each table whose key begins so, a bar for each of its rows.
    Tables {
        keys: &'static str,
        metric: &'static str,
    },
    /// A group of bars for each row of a table, a bar for each metric.
    Rows {
        key: &'static str,
        metrics: &'static [&'static str],
    },
    /// A line for each table, over its rows.
    LinePerTable {
        keys: &'static str,
        metric: &'static str,
        x: &'static str,
    },
    /// A line for each row that several tables have, over the tables.
    LinePerRow {
        keys: &'static str,
        metric: &'static str,
        x: &'static str,
    },
}

const SPECS: [Spec; 19] = [
    Spec {
        name: "packets",
        title: "A packet in the datapath, by class",
        what: What::Rows {
            key: "datapath/classes",
            metrics: &["time"],
        },
    },
    Spec {
        name: "flows",
        title: "A packet of an established flow, by the number of flows",
        what: What::LinePerTable {
            keys: "datapath/flows",
            metric: "time",
            x: "flows",
        },
    },
    Spec {
        name: "edges",
        title: "A SYN, by the number of Edges in its pool",
        what: What::LinePerTable {
            keys: "datapath/edges",
            metric: "time",
            x: "Edges",
        },
    },
    Spec {
        name: "forward-offloads-on",
        title: "A forwarded packet, beside nftables; offloads on",
        what: What::Tables {
            keys: "forward/offloads-on/",
            metric: "CPU",
        },
    },
    Spec {
        name: "forward-offloads-off",
        title: "A forwarded packet, beside nftables; offloads off",
        what: What::Tables {
            keys: "forward/offloads-off/",
            metric: "CPU",
        },
    },
    Spec {
        name: "setup-rate-offloads-on",
        title: "Passed connections set up; offloads on",
        what: What::Tables {
            keys: "setup/offloads-on/",
            metric: "rate",
        },
    },
    Spec {
        name: "setup-rate-offloads-off",
        title: "Passed connections set up; offloads off",
        what: What::Tables {
            keys: "setup/offloads-off/",
            metric: "rate",
        },
    },
    Spec {
        name: "setup-latency-offloads-on",
        title: "From the SYN to the Edge's first byte, one after the other; offloads on",
        what: What::Rows {
            key: "setup/offloads-on/parallel-1",
            metrics: &["p50", "p99"],
        },
    },
    Spec {
        name: "setup-latency-offloads-off",
        title: "From the SYN to the Edge's first byte, one after the other; offloads off",
        what: What::Rows {
            key: "setup/offloads-off/parallel-1",
            metrics: &["p50", "p99"],
        },
    },
    Spec {
        name: "messages-offloads-on",
        title: "CPU over routing of a kilobyte there and back, 32 connections; offloads on",
        what: What::Rows {
            key: "relay/offloads-on/messages",
            metrics: &["CPU over routing"],
        },
    },
    Spec {
        name: "messages-offloads-off",
        title: "CPU over routing of a kilobyte there and back, 32 connections; offloads off",
        what: What::Rows {
            key: "relay/offloads-off/messages",
            metrics: &["CPU over routing"],
        },
    },
    Spec {
        name: "bulk-offloads-on",
        title: "Bulk; offloads on",
        what: What::Tables {
            keys: "relay/offloads-on/bulk",
            metric: "rate",
        },
    },
    Spec {
        name: "bulk-offloads-off",
        title: "Bulk; offloads off",
        what: What::Tables {
            keys: "relay/offloads-off/bulk",
            metric: "rate",
        },
    },
    Spec {
        name: "handshakes",
        title: "Terminated TLS handshakes that one CPU can carry",
        what: What::Tables {
            keys: "proxy/terminated-tls",
            metric: "rate per CPU",
        },
    },
    Spec {
        name: "idle",
        title: "Memory of a silent connection, by how many there are",
        what: What::LinePerRow {
            keys: "idle/",
            metric: "all told",
            x: "connections",
        },
    },
    Spec {
        name: "reload",
        title: "A reload, by the number of domains",
        what: What::LinePerRow {
            keys: "reload/reloading/",
            metric: "time of the reload",
            x: "domains",
        },
    },
    Spec {
        name: "reload-setup",
        title: "p99 of connections set up while reloading, by the number of domains",
        what: What::LinePerRow {
            keys: "reload/reloading/",
            metric: "setup p99",
            x: "domains",
        },
    },
    Spec {
        name: "reload-ping",
        title: "The longest wait for a message on a connection that stands while reloading, by the number of domains",
        what: What::LinePerRow {
            keys: "reload/reloading/",
            metric: "longest ping",
            x: "domains",
        },
    },
    Spec {
        name: "reload-memory",
        title: "Memory after the reloads, with a connection from before each, by the number of domains",
        what: What::LinePerRow {
            keys: "reload/reloading/",
            metric: "memory",
            x: "domains",
        },
    },
];

pub(super) fn find(name: &str) -> Option<&'static Spec> {
    SPECS.iter().find(|spec| spec.name == name)
}

impl Spec {
    /// `None` where there is nothing to show.
    pub(super) fn plot(&self, results: &Results) -> Option<Plot> {
        match self.what {
            What::Tables { keys, metric } => {
                let tables: Vec<_> = results.tables(keys).collect();
                self.of_tables(&tables, metric)
            }
            What::Rows { key, metrics } => {
                let mut tables = results.tables.iter();
                self.of_rows(tables.find(|table| table.key == key)?, metrics)
            }
            What::LinePerTable { keys, metric, x } => {
                let tables: Vec<_> = results.tables(keys).collect();
                let lines = tables.iter().map(|table| Line {
                    name: table.title.clone(),
                    points: points(table.rows.iter().map(|row| (*table, row)), metric),
                });
                self.lines(lines.collect(), unit(&tables, metric)?, x)
            }
            What::LinePerRow { keys, metric, x } => {
                let tables: Vec<_> = results.tables(keys).collect();
                let lines = names(&tables, metric).into_iter().map(|name| Line {
                    name: name.to_owned(),
                    points: points(of_this_name(&tables, name), metric),
                });
                self.lines(lines.collect(), unit(&tables, metric)?, x)
            }
        }
    }

    fn of_tables(&self, tables: &[&Table], metric: &str) -> Option<Plot> {
        let series = names(tables, metric);
        let group = |table: &&Table| {
            let value = |name: &&str| {
                let row = table.rows.iter().find(|row| row.name == *name)?;
                value(table, row, metric)
            };
            Group {
                name: table.title.clone(),
                values: series.iter().map(value).collect(),
            }
        };
        self.bars(
            unit(tables, metric)?,
            series.iter().map(|name| (*name).to_owned()).collect(),
            tables.iter().map(group).collect(),
        )
    }

    fn of_rows(&self, table: &Table, metrics: &[&str]) -> Option<Plot> {
        let group = |row: &Row| Group {
            name: row.name.clone(),
            values: metrics.iter().map(|it| value(table, row, it)).collect(),
        };
        let mut groups: Vec<_> = table.rows.iter().map(group).collect();
        // Routing has nothing over itself.
        groups.retain(|group| group.values.iter().any(Option::is_some));
        self.bars(
            unit(&[table], metrics.first()?)?,
            metrics.iter().map(|it| (*it).to_owned()).collect(),
            groups,
        )
    }

    fn bars(&self, unit: &Metric, series: Vec<String>, groups: Vec<Group>) -> Option<Plot> {
        let axis = match &series[..] {
            [_] => heading(unit),
            _ if unit.unit.is_empty() => unit.name.clone(),
            _ => unit.unit.clone(),
        };
        let any = groups
            .iter()
            .flat_map(|group| &group.values)
            .any(Option::is_some);
        any.then(|| {
            Plot::Bars(Bars {
                title: self.title.to_owned(),
                axis,
                series,
                groups,
            })
        })
    }

    fn lines(&self, mut lines: Vec<Line>, unit: &Metric, x: &str) -> Option<Plot> {
        lines.retain(|line| !line.points.is_empty());
        lines.truncate(MOST_SERIES);
        (!lines.is_empty()).then(|| {
            Plot::Lines(Lines {
                title: self.title.to_owned(),
                x: Axis::logarithmic(x),
                y: Axis::linear(&heading(unit)),
                lines,
            })
        })
    }
}

/// The names of the rows that have this metric, in order.
fn names<'a>(tables: &[&'a Table], metric: &str) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for table in tables {
        for row in &table.rows {
            if !names.contains(&row.name.as_str()) && value(table, row, metric).is_some() {
                names.push(&row.name);
            }
        }
    }
    names
}

fn of_this_name<'a>(
    tables: &'a [&Table],
    name: &'a str,
) -> impl Iterator<Item = (&'a Table, &'a Row)> {
    tables.iter().flat_map(move |table| {
        let rows = table.rows.iter().filter(move |row| row.name == name);
        rows.map(move |row| (*table, row))
    })
}

fn points<'a>(rows: impl Iterator<Item = (&'a Table, &'a Row)>, metric: &str) -> Vec<(f64, Value)> {
    rows.filter_map(|(table, row)| Some((row.x?, value(table, row, metric)?)))
        .collect()
}

fn unit<'a>(tables: &[&'a Table], metric: &str) -> Option<&'a Metric> {
    let metrics = tables.iter().flat_map(|table| &table.metrics);
    metrics.into_iter().find(|it| it.name == metric)
}

fn value(table: &Table, row: &Row, metric: &str) -> Option<Value> {
    let Spread {
        median, low, high, ..
    } = row.spread(table.column(metric)?)?;
    Some(Value {
        middle: median,
        low,
        high,
    })
}
