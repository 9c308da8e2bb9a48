//! Tables, what is over routing, and whether the aims are met.

use std::time::Duration;

use serde_json::{Value, json};

use super::LeftOut;
use super::rounds::{Measured, Row, Subject, Table};
use super::work::{Kind, Sample};
use crate::bench::figures::median;
use crate::bench::machine::QUIET;
use crate::bench::results::{self, Better, Metric};

impl Subject {
    /// What is counted, and the processors' time of how much of it is told, in which unit.
    fn units(&self) -> (&'static str, &'static str, f64) {
        match self.kind {
            Kind::Setups { .. } => ("conn/s", "µs/conn", 1e6),
            Kind::Pings | Kind::Messages { .. } => ("msg/s", "µs/msg", 1e6),
            Kind::Bulk { .. } => ("MiB/s", "ms/GiB", 1024.0 * 1e3),
        }
    }
}

impl Row {
    fn values(&self, of: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
        self.samples.iter().filter_map(of).collect()
    }

    fn rates(&self) -> Vec<f64> {
        self.values(|sample| Some(sample.rate))
    }

    /// Microseconds.
    fn p50(&self) -> Option<f64> {
        median(self.values(|sample| Some(micros(sample.latency?[0]))))
    }

    fn p99(&self) -> Option<f64> {
        median(self.values(|sample| Some(micros(sample.latency?[1]))))
    }

    fn cpu(&self) -> Option<f64> {
        median(self.values(|sample| Some(sample.cpu)))
    }

    /// What part of the connections was the agent's to begin with.
    fn agents(&self) -> Option<f64> {
        median(self.values(|sample| sample.agents))
    }

    /// What routing took in the same round is taken away from each sample, and what was done afterwards is added.
    fn all_cpu_over(&self, routing: &Self) -> Vec<f64> {
        let pairs = self.samples.iter().zip(&routing.samples);
        pairs
            .map(|(own, routing)| own.cpu - routing.cpu + self.afterwards)
            .collect()
    }

    fn cpu_over(&self, routing: &Self) -> Option<f64> {
        median(self.all_cpu_over(routing))
    }
}

impl Table {
    fn routing(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.system.is_routing())
    }

    fn haproxy(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.system.is_haproxy())
    }

    /// What the processes of a system did of the connections while it was not measured.
    fn afterwards(&self, row: &Row) -> Option<f64> {
        (self.subject.sets_up() && !row.system.is_routing()).then_some(row.afterwards)
    }

    fn over_routing(&self, row: &Row) -> Option<f64> {
        let routing = self.routing()?;
        (!row.system.is_routing()).then(|| row.cpu_over(routing))?
    }

    /// CPU over routing, as a multiple of HAProxy's; nothing where noise has made HAProxy cheaper than routing.
    fn beside_haproxy(&self, row: &Row) -> Option<f64> {
        let theirs = self.over_routing(self.haproxy()?)?;
        (theirs > 0.0).then_some(self.over_routing(row)? / theirs)
    }

    /// What the datapath should come to here: binding in setting connections up, the hand-off in carrying them.
    fn aims(&self) -> Vec<Aim> {
        let sets_up = self.subject.sets_up();
        let aimed = |row: &&Row| {
            if sets_up {
                row.system.binds()
            } else {
                row.system.hands_off()
            }
        };
        let aims = |row| Some(self.aims_of(row, self.routing()?));
        self.rows
            .iter()
            .filter(aimed)
            .filter_map(aims)
            .flatten()
            .collect()
    }

    fn aims_of(&self, row: &Row, routing: &Row) -> Vec<Aim> {
        let aim = |what, measured: Option<f64>, limit| Aim {
            what: format!("{}: {what}, {}", row.system.name, self.subject.title),
            measured: measured.unwrap_or(f64::NAN),
            limit,
        };
        let beside_routing = |of: fn(&Row) -> Option<f64>| Some(of(row)? / of(routing)?);
        let cpu = || {
            let what = "CPU over routing at most a tenth of HAProxy's";
            aim(what, self.beside_haproxy(row), Limit::AtMost(0.1))
        };
        match self.subject.kind {
            Kind::Setups { parallel: 1 } => vec![
                aim(
                    "p50 at most 1.3 of routing's",
                    beside_routing(Row::p50),
                    Limit::AtMost(1.3),
                ),
                aim(
                    "p99 at most 1.3 of routing's",
                    beside_routing(Row::p99),
                    Limit::AtMost(1.3),
                ),
                cpu(),
            ],
            Kind::Setups { .. } | Kind::Messages { .. } => vec![cpu()],
            Kind::Pings => vec![aim(
                "p50 at most 1.05 of routing's",
                beside_routing(Row::p50),
                Limit::AtMost(1.05),
            )],
            Kind::Bulk { .. } if self.offloads => vec![aim(
                "at least 0.8 of routing's rate",
                beside_routing(|row| median(row.rates())),
                Limit::AtLeast(0.8),
            )],
            Kind::Bulk { .. } => Vec::new(),
        }
    }
}

struct Aim {
    what: String,
    /// A ratio.
    measured: f64,
    limit: Limit,
}

#[derive(Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Aim {
    /// `None` where there is nothing to tell it by.
    fn met(&self) -> Option<bool> {
        let met = match self.limit {
            Limit::AtMost(limit) => self.measured <= limit,
            Limit::AtLeast(limit) => self.measured >= limit,
        };
        self.measured.is_finite().then_some(met)
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn range(values: &[f64]) -> Option<[f64; 2]> {
    let low = values.iter().copied().min_by(f64::total_cmp)?;
    let high = values.iter().copied().max_by(f64::total_cmp)?;
    Some([low, high])
}

/// Prints what was not measured, a block for each table, and the aims.
pub fn print(measured: &Measured) {
    if let Some(busy) = median(measured.background.clone()) {
        println!(
            "While nothing was measured, {:.0} % of the CPUs' time was used{}.",
            busy * 100.0,
            if busy > QUIET {
                ": CPU figures have others' work in them"
            } else {
                ""
            }
        );
    }
    print_left_out(&measured.left_out);
    for table in &measured.tables {
        print_table(table);
    }
    let aims: Vec<_> = measured.tables.iter().flat_map(Table::aims).collect();
    if !aims.is_empty() {
        println!("\naims");
    }
    for aim in aims {
        let verdict = match aim.met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "no figure",
        };
        println!("{verdict:9}  {:6.3}  {}", aim.measured, aim.what);
    }
}

pub(super) fn print_left_out(left_out: &[LeftOut]) {
    for one in left_out {
        println!("Left out: {}", one.told());
    }
}

fn print_table(table: &Table) {
    let (rate, cpu, per) = table.subject.units();
    let links = if table.offloads { "on" } else { "off" };
    println!("\n{}; offloads {links}", table.subject.title);
    println!(
        "{:14} {rate:>9}  {:>19}  {:>9} {:>8} {:>8}  {cpu:>8} {:>12} {:>9}",
        "", "lowest to highest", "/ routing", "p50 µs", "p99 µs", "over routing", "/ haproxy"
    );
    for row in &table.rows {
        let rates = row.rates();
        let spread = range(&rates).map(|[low, high]| format!("{low:.0} to {high:.0}"));
        let median_of = |row: &Row| median(row.rates());
        let relative = median_of(row).zip(table.routing().and_then(median_of));
        let over = table.over_routing(row);
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or_else(String::new, |value| format!("{value:.digits$}"))
        };
        println!(
            "{:14} {:>9}  {:>19}  {:>9} {:>8} {:>8}  {:>8} {:>12} {:>9}",
            row.system.name,
            figure(median_of(row), 0),
            spread.unwrap_or_default(),
            figure(relative.map(|(own, routing)| own / routing), 2),
            figure(row.p50(), 1),
            figure(row.p99(), 1),
            figure(row.cpu().map(|it| it * per), 1),
            figure(over.map(|it| it * per), 1),
            figure(table.beside_haproxy(row), 2),
        );
    }
    for row in table.rows.iter().filter(|row| row.system.binds()) {
        if let Some(part) = row.agents() {
            let percent = part * 100.0;
            let name = row.system.name;
            println!("{name}: {percent:.2} % of the connections were left to the agent.");
        }
    }
}

/// The same for the document; `bench` is the first part of the tables' keys.
#[must_use]
pub fn tables(bench: &str, measured: &Measured) -> Vec<results::Table> {
    let tables = measured.tables.iter();
    tables.map(|table| table.for_results(bench)).collect()
}

impl Table {
    fn for_results(&self, bench: &str) -> results::Table {
        let (rate, cpu, per) = self.subject.units();
        let links = if self.offloads { "on" } else { "off" };
        let routing = self.routing();
        let row = |row: &Row| {
            let over = routing.filter(|_| !row.system.is_routing());
            let over = over.map_or_else(Vec::new, |routing| row.all_cpu_over(routing));
            let scaled = |values: Vec<f64>| values.into_iter().map(|it| it * per).collect();
            results::Row {
                name: row.system.name.to_owned(),
                role: row.system.role(),
                x: None,
                cells: vec![
                    row.rates(),
                    row.values(|sample| Some(micros(sample.latency?[0]))),
                    row.values(|sample| Some(micros(sample.latency?[1]))),
                    scaled(row.values(|sample| Some(sample.cpu))),
                    scaled(over),
                    scaled(self.afterwards(row).into_iter().collect()),
                    row.values(|sample| Some(1.0 / sample.cpu)),
                    row.values(|sample| sample.agents.map(|part| part * 100.0)),
                ],
            }
        };
        results::Table {
            key: format!("{bench}/{}", self.key()),
            title: format!("{}; offloads {links}", self.subject.title),
            metrics: vec![
                Metric::new("rate", rate, Better::Higher),
                Metric::new("p50", "µs", Better::Lower),
                Metric::new("p99", "µs", Better::Lower),
                Metric::new("CPU, both ends included", cpu, Better::Neither),
                Metric::new("CPU over routing", cpu, Better::Lower),
                Metric::new("of it afterwards", cpu, Better::Neither),
                Metric::new(
                    "rate per busy CPU, both ends included",
                    rate,
                    Better::Neither,
                ),
                Metric::new("left to the agent", "%", Better::Neither),
            ],
            rows: self.rows.iter().map(row).collect(),
        }
    }
}

/// What was left out, in words.
#[must_use]
pub fn left_out(measured: &Measured) -> Vec<String> {
    measured.left_out.iter().map(LeftOut::told).collect()
}

/// The same for programs.
#[must_use]
pub fn as_json(measured: &Measured) -> Value {
    let table = |table: &Table| {
        let (rate, cpu, per) = table.subject.units();
        let row = |row: &Row| {
            json!({
                "system": row.system.name,
                "median": median(row.rates()),
                "rounds": row.rates(),
                "p50_us": row.p50(),
                "p99_us": row.p99(),
                "cpu": row.cpu().map(|it| it * per),
                "cpu_over_routing": table.over_routing(row).map(|it| it * per),
                "by_agent": row.agents(),
            })
        };
        json!({
            "table": table.key(),
            "title": table.subject.title,
            "unit": rate,
            "cpu_unit": cpu,
            "systems": table.rows.iter().map(row).collect::<Vec<_>>(),
        })
    };
    let aims = measured.tables.iter().flat_map(Table::aims);
    let aims = aims.map(|aim| json!({"aim": aim.what, "ratio": aim.measured, "met": aim.met()}));
    json!({
        "background": measured.background,
        "left_out": left_out_as_json(&measured.left_out),
        "tables": measured.tables.iter().map(table).collect::<Vec<_>>(),
        "aims": aims.collect::<Vec<_>>(),
    })
}

pub(super) fn left_out_as_json(left_out: &[LeftOut]) -> Value {
    left_out
        .iter()
        .map(|LeftOut { system, reason }| {
            json!({"system": system.name, "links": system.links(), "reason": reason})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_without_a_figure_is_neither_met_nor_missed() {
        let aim = |measured, limit| Aim {
            what: String::new(),
            measured,
            limit,
        };
        assert_eq!(aim(0.1, Limit::AtMost(0.1)).met(), Some(true));
        assert_eq!(aim(0.79, Limit::AtLeast(0.8)).met(), Some(false));
        assert_eq!(aim(f64::NAN, Limit::AtMost(1.0)).met(), None);
    }
}
