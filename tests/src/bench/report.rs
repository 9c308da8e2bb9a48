//! Medians and ratios.

use std::time::Duration;

use serde_json::{Value, json};

use super::figures;
use super::results::{self, Better, Metric};
use super::{Kind, Row, Sample, Subject, System, Table, Way};

impl Subject {
    /// What is counted, and per how many of that the processors' time is told.
    fn unit(&self) -> (&'static str, f64, &'static str) {
        match self.kind {
            Kind::Connections { .. } => ("conn/s", 1.0, "µs/conn"),
            Kind::Bulk { .. } => ("MiB/s", 1.024, "ms/GiB"),
            Kind::Pings => ("pings/s", 1.0, "µs/ping"),
        }
    }
}

impl Sample {
    fn latency(&self, quantile: f64) -> Option<Duration> {
        figures::quantile(&self.latencies, quantile)
    }
}

impl Row {
    /// Units per second of each round, in order of size.
    fn rates(&self) -> Vec<f64> {
        let mut rates: Vec<_> = self.samples.iter().map(super::Sample::rate).collect();
        rates.sort_by(f64::total_cmp);
        rates
    }

    fn median(&self) -> f64 {
        figures::median(self.rates()).unwrap_or(f64::NAN)
    }

    /// Microseconds: the median of the rounds' own.
    fn latency(&self, quantile: f64) -> Option<f64> {
        let each = self.samples.iter().map(|it| it.latency(quantile));
        let each = each.map(|it| Some(it?.as_secs_f64() * 1e6));
        figures::median(each.collect::<Option<Vec<_>>>()?)
    }
}

impl Table {
    fn snigate(&self) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|row| row.system == System::Snigate)
    }

    /// Seconds of the processors' time per unit, a figure for each round. What is terminated is the proxy's own work, and told by its processes. What is
    /// passed through the datapath may carry, whose work is charged to whoever runs when a packet comes; so there it is the whole machine's, without
    /// what the same took in the same round without a proxy.
    fn cpu(&self, row: &Row) -> Vec<f64> {
        let each = |used: Duration, sample: &Sample| used.as_secs_f64() / sample.units;
        if self.subject.way != Way::Pass {
            let own = row.samples.iter();
            return own.filter_map(|it| Some(each(it.cpu?, it))).collect();
        }
        let direct = self.rows.iter().find(|row| row.system == System::Direct);
        let Some(direct) = direct.filter(|_| row.system != System::Direct) else {
            return Vec::new();
        };
        let pairs = row.samples.iter().zip(&direct.samples);
        pairs
            .map(|(own, direct)| each(own.machine, own) - each(direct.machine, direct))
            .collect()
    }

    /// Microseconds.
    fn median_cpu(&self, row: &Row) -> Option<f64> {
        Some(figures::median(self.cpu(row))? * 1e6)
    }
}

/// Prints a block for each subject.
pub fn print(tables: &[Table]) {
    for table in tables {
        let (rate, per, cpu) = table.subject.unit();
        println!("\n{}", table.subject.title);
        println!(
            "{:18} {rate:>9}  {:>17}  {:>9} {:>8} {:>8}  {cpu:>8} {:>9}",
            "", "lowest to highest", "/ snigate", "p50 µs", "p99 µs", "/ snigate"
        );
        let snigate = table.snigate();
        for row in &table.rows {
            let rates = row.rates();
            let range = match (rates.first(), rates.last()) {
                (Some(low), Some(high)) => format!("{low:.0} to {high:.0}"),
                _ => String::new(),
            };
            let relative = |of: &dyn Fn(&Row) -> Option<f64>| {
                let ratio = of(row)? / of(snigate?)?;
                Some(format!("{ratio:.2}"))
            };
            let micros = |quantile| Some(format!("{:.0}", row.latency(quantile)?));
            println!(
                "{:18} {:>9.0}  {range:>17}  {:>9} {:>8} {:>8}  {:>8} {:>9}",
                row.system.name(),
                row.median(),
                relative(&|row| Some(row.median())).unwrap_or_default(),
                micros(0.5).unwrap_or_default(),
                micros(0.99).unwrap_or_default(),
                table
                    .median_cpu(row)
                    .map(|it| format!("{:.0}", it * per))
                    .unwrap_or_default(),
                relative(&|row| table.median_cpu(row)).unwrap_or_default(),
            );
        }
    }
}

/// The same for the document.
#[must_use]
pub fn tables(tables: &[Table]) -> Vec<results::Table> {
    tables.iter().map(Table::for_results).collect()
}

impl Table {
    fn for_results(&self) -> results::Table {
        let (rate, per, cpu) = self.subject.unit();
        let terminates = self.subject.way != Way::Pass;
        let sets_up = matches!(self.subject.kind, Kind::Connections { .. });
        let row = |row: &Row| {
            let each = |of: &dyn Fn(&Sample) -> Option<f64>| -> Vec<f64> {
                row.samples.iter().filter_map(of).collect()
            };
            let micros = |quantile| each(&|it| Some(it.latency(quantile)?.as_secs_f64() * 1e6));
            let seconds = self.cpu(row);
            let per_cpu = || {
                let told = seconds.iter().filter(|it| **it > 0.0);
                told.map(|seconds| 1.0 / seconds).collect()
            };
            results::Row {
                name: row.system.name().to_owned(),
                role: row.system.role(),
                x: None,
                cells: vec![
                    each(&|sample| Some(sample.rate())),
                    micros(0.5),
                    micros(0.99),
                    seconds.iter().map(|seconds| seconds * 1e6 * per).collect(),
                    if sets_up && terminates {
                        per_cpu()
                    } else {
                        Vec::new()
                    },
                    each(&|sample| sample.resumed.map(|part| part * 100.0)),
                ],
            }
        };
        results::Table {
            key: format!("proxy/{}", self.subject.key),
            title: self.subject.title.to_owned(),
            metrics: vec![
                Metric::new("rate", rate, Better::Higher),
                Metric::new("p50", "µs", Better::Lower),
                Metric::new("p99", "µs", Better::Lower),
                Metric::new(
                    if terminates {
                        "CPU of the proxy"
                    } else {
                        "CPU over no proxy"
                    },
                    cpu,
                    Better::Lower,
                ),
                Metric::new(
                    "rate per CPU",
                    &format!("{rate} for each CPU of the proxy's"),
                    Better::Neither,
                ),
                Metric::new("resumed", "%", Better::Neither),
            ],
            rows: self.rows.iter().map(row).collect(),
        }
    }
}

/// The same for programs.
#[must_use]
pub fn as_json(tables: &[Table]) -> Value {
    tables
        .iter()
        .map(|table| {
            let (rate, per, cpu) = table.subject.unit();
            let rows = table.rows.iter().map(|row| {
                json!({
                    "system": row.system.name(),
                    "median": row.median(),
                    "rounds": row.samples.iter().map(super::Sample::rate).collect::<Vec<_>>(),
                    "p50_us": row.latency(0.5),
                    "p99_us": row.latency(0.99),
                    "cpu": table.median_cpu(row).map(|it| it * per),
                })
            });
            json!({
                "subject": table.subject.key,
                "title": table.subject.title,
                "unit": rate,
                "cpu_unit": cpu,
                "systems": rows.collect::<Vec<_>>(),
            })
        })
        .collect()
}
