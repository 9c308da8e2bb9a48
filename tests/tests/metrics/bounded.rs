//! A hundred thousand domains make no series.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::ensure;
use nix::sys::signal::Signal;
use snigate_tests::{deadline::Deadline, lab_test};

use crate::{
    scene::{Scene, WAYS, quiet},
    scrape::Scrape,
};

const DOMAINS: usize = 100_000;
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn domains_make_no_series() {
    lab_test("metrics-bounded", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let mut gateway = scene.gateway("")?;
        let _held = scene.open(WAYS[0])?;
        let few = Scrape::new(&lab.gateway)?;

        let mut tables = scene.tables();
        for n in 0..DOMAINS {
            let _ = write!(
                tables,
                "[[domain]]\nsip_domain = \"d{n}.example\"\npool = \"edges-b\"\n"
            );
        }
        gateway.configure("", &tables)?;
        // An unoptimised agent takes its time for so many; what it says of itself meanwhile is asked for all the same.
        gateway.signal(Signal::SIGHUP)?;
        Deadline::after(PATIENCE).poll("all domains to be active", || {
            let scrape = Scrape::new(&lab.gateway)?;
            let domains = scrape.value("snigate_configuration_items{kind=\"domains\"}")?;
            Ok((domains as usize == DOMAINS + 2).then_some(()))
        })?;
        let name = format!("sip.d{}.example", DOMAINS - 1);
        // Its certificate is not for this name; that it was asked for is enough.
        let asked = scene.ask(&name, WAYS[1].address);
        ensure!(asked.is_err(), "an Edge has a certificate for {name}");
        // Not the answer that a moment ago somebody may have got.
        std::thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        let many = Scrape::new(&lab.gateway)?;
        eprintln!(
            "{} series in {} ms, with {DOMAINS} domains",
            many.series().len(),
            began.elapsed().as_millis()
        );
        let routes = many.value("snigate_map_entries{map=\"SNI_ROUTES\",type=\"hash\"}")?;
        ensure!(routes as usize >= DOMAINS, "{routes}");

        let (few, many) = (few.series(), many.series());
        let more: Vec<_> = many.difference(&few).collect();
        // What has happened for the first time meanwhile.
        ensure!(more.len() < 10, "{more:#?}");
        ensure!(many.len() < 500, "{} series", many.len());
        Ok(())
    });
}
