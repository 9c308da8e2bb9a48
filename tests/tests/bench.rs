//! Each part of `cargo xtask bench` with the smallest counts: that it works, and not what it says.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use snigate_tests::bench::document::Document;
use snigate_tests::bench::results::{Results, Role};
use snigate_tests::bench::whole::{self, Plan};
use snigate_tests::{Topology, lab_test};

/// One of each kind to a part: starting snigate is what takes the time.
const SYSTEMS: [&str; 7] = [
    "routing",
    "binding, TCX",
    "hand-off, XDP",
    "haproxy",
    "snigate",
    "nftables",
    "steering",
];

#[test]
fn every_part_measures_and_the_page_is_made() {
    let topology = Topology {
        capture: false,
        ..Topology::default()
    };
    lab_test("bench", &topology, |lab| {
        let plan = Plan {
            systems: SYSTEMS.map(str::to_owned).into(),
            ..Plan::smallest()
        };
        let file = lab.dir().join("results.json");
        let (results, failed) = whole::run(&plan, &file, |_| {})?;
        ensure!(failed.is_empty(), "{failed:#?}");
        ensure!(results.left_out.is_empty(), "{:?}", results.left_out);
        for part in whole::parts() {
            let tables = results.tables(part).count();
            ensure!(tables > 0, "nothing of {part}");
        }
        for table in &results.tables {
            for row in &table.rows {
                let mut figures = row.cells.iter().flatten();
                let some = row.cells.iter().any(|cell| !cell.is_empty());
                ensure!(
                    some && figures.all(|figure| figure.is_finite()),
                    "{}: {row:?}",
                    table.key
                );
            }
        }
        competitors(&results)?;

        let page = lab.dir().join("page");
        Document::new(&results)?.write(&page)?;
        let text = fs::read_to_string(page.join("benchmarks.md"))?;
        // The figures that are kept make the same page.
        Document::new(&Results::read(&file)?)?.write(&page)?;
        ensure!(fs::read_to_string(page.join("benchmarks.md"))? == text);
        ensure!(text.contains("No figures to rely on"), "{text}");
        Ok(())
    });
}

/// That snigate is beside a peer where there should be one.
fn competitors(results: &Results) -> Result<()> {
    for part in ["forward/", "setup/", "relay/", "proxy/", "reload/", "idle/"] {
        let table = results.tables(part).next().context(part)?;
        for role in [Role::Ours, Role::Peer] {
            let found = table.rows.iter().any(|row| row.role == role);
            ensure!(found, "{}: nobody is {role:?}: {table:?}", table.key);
        }
    }
    Ok(())
}
