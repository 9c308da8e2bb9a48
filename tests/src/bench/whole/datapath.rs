//! A packet at a time, through BPF_PROG_TEST_RUN.

use anyhow::Result;

use super::{Measured, Plan, Progress};
use crate::bench::results::{Better, Metric, Role, Row, Table};
use crate::packets::Rig;
use crate::packets::bench::{Bench, Class, Point};
use crate::packets::measure::{Times, stay_on_this_cpu};
use crate::plot::figure;

pub(super) fn measure(plan: &Plan, progress: &mut Progress<'_>) -> Result<Measured> {
    progress("a packet at a time");
    let only = plan.only("datapath");
    let rounds = plan.rounds;
    let rig = Rig::new()?;
    let tables = rig.run(|rig| {
        stay_on_this_cpu()?;
        let mut bench = Bench::new(rig, &only)?;
        let facts = bench.facts()?;
        let classes = bench.classes(rounds, |_| {})?;
        let flows = bench.curve(rounds, |_| {})?;
        let edges = bench.edges(rounds)?;
        let program = Table {
            key: "datapath/program".to_owned(),
            title: "the program".to_owned(),
            metrics: vec![
                Metric::new("size", "bytes of BPF", Better::Neither),
                Metric::new("verified", "instructions", Better::Neither),
            ],
            rows: vec![Row {
                name: "the program for XDP".to_owned(),
                role: Role::Ours,
                x: None,
                cells: vec![
                    vec![f64::from(facts.translated_bytes)],
                    vec![f64::from(facts.verified_instructions)],
                ],
            }],
        };
        Ok([
            program,
            of_classes(&classes),
            curve(
                "datapath/flows",
                "an established IPv4 flow's packet, each of another flow at random",
                &flows,
            ),
            curve("datapath/edges", "a SYN, IPv4", &edges),
        ])
    })?;
    let mut tables = Vec::from(tables);
    tables.retain(|table| !table.rows.is_empty());
    Ok(Measured {
        tables,
        ..Measured::default()
    })
}

fn time() -> Metric {
    Metric::new("time", "ns", Better::Neither)
}

/// The tenth, the half and nine tenths of all calls stayed below these.
fn cell(times: &Times) -> Vec<f64> {
    [0.1, 0.5, 0.9]
        .map(|share| f64::from(times.quantile(share)))
        .into()
}

fn of_classes(classes: &[Class]) -> Table {
    let row = |class: &Class| Row {
        name: class.name.clone(),
        role: Role::Ours,
        x: None,
        cells: vec![
            cell(&class.times),
            class.aim.map(f64::from).into_iter().collect(),
        ],
    };
    Table {
        key: "datapath/classes".to_owned(),
        title: "a packet, by class".to_owned(),
        metrics: vec![time(), Metric::new("aim, at most", "ns", Better::Neither)],
        rows: classes.iter().map(row).collect(),
    }
}

fn curve(key: &str, title: &str, points: &[Point]) -> Table {
    let row = |point: &Point| Row {
        name: figure(f64::from(point.count)),
        role: Role::Ours,
        x: Some(f64::from(point.count)),
        cells: vec![cell(&point.times)],
    };
    Table {
        key: key.to_owned(),
        title: title.to_owned(),
        metrics: vec![time()],
        rows: points.iter().map(row).collect(),
    }
}
