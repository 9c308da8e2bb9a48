//! Scrapes while connections come and go: neither is in the other's way.

use std::{io::Write as _, net::TcpStream, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use snigate_tests::{
    deadline::Deadline,
    lab_test,
    peers::{Limit, Storm},
};

use crate::{
    TIMEOUT,
    promtool::Promtool,
    scene::{Scene, WAYS, quiet},
    scrape::{ADDRESS, Scrape},
};

/// Connections of each way.
const CONNECTIONS: usize = 150;
/// Who scrapes at once: more than are answered at once.
const SCRAPERS: usize = 12;
const PAUSE: Duration = Duration::from_millis(20);

#[test]
fn scrapes_and_connections_do_not_wait_for_each_other() {
    lab_test("metrics-load", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _gateway = scene.gateway("datapath_time = true")?;
        let names: Result<Vec<_>> = WAYS.iter().map(|way| scene.tls(way.server_name)).collect();
        let names = names?;
        let mut storms = Vec::new();
        for (way, tls) in WAYS.iter().zip(&names) {
            let partner = scene.partner(tls);
            storms.push(Storm::start(
                &partner,
                way.address,
                2,
                Limit::Connections(CONNECTIONS),
            )?);
        }
        let is_over = || storms.iter().all(|storm| storm.ended() >= CONNECTIONS);
        let scrapes = thread::scope(|scope| -> Result<usize> {
            let scraper = || -> Result<usize> {
                let mut earlier = Scrape::new(&lab.gateway)?;
                let mut scrapes = 1;
                while !is_over() {
                    let scrape = Scrape::new(&lab.gateway)?;
                    scrape.ensure_no_less_than(&earlier)?;
                    earlier = scrape;
                    scrapes += 1;
                    thread::sleep(PAUSE);
                }
                Ok(scrapes)
            };
            let scrapers: Vec<_> = (0..SCRAPERS).map(|_| scope.spawn(scraper)).collect();
            let scrapes = scrapers
                .into_iter()
                .map(|scraper| scraper.join().map_err(|_| anyhow!("a scraper panicked"))?);
            scrapes.sum()
        })?;
        ensure!(scrapes > SCRAPERS, "{scrapes} scrapes");
        for (storm, way) in storms.into_iter().zip(WAYS) {
            let report = storm.finish()?;
            report.ensure_no_failure().context(way.name)?;
        }
        let scrape = Deadline::after(TIMEOUT).poll("every connection to be counted", || {
            let scrape = Scrape::new(&lab.gateway)?;
            let opened = |way: &str| {
                let label = format!("way=\"{way}\"");
                scrape.sum("snigate_connections_opened_total", &[&label]) as usize
            };
            // A connection may be over before it is handed off, and one that is handed off may have been relayed before.
            let passed = opened("bound") + opened("handed-off") + opened("relayed");
            let all = opened("steered") == CONNECTIONS
                && opened("terminated") == CONNECTIONS
                && passed >= 3 * CONNECTIONS;
            Ok(all.then_some(scrape))
        });
        let scrape = scrape.with_context(|| {
            Scrape::new(&lab.gateway).map_or_else(|e| e.to_string(), |it| it.text)
        })?;
        match Promtool::find("metrics-load") {
            Some(promtool) => promtool.lint(&scrape.text),
            None => Ok(()),
        }
    });
}

/// Those who connect and say nothing take the places of those who scrape, for a while, and of nobody else.
#[test]
fn silent_clients_of_the_endpoint_keep_nobody() {
    lab_test("metrics-silent", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _gateway = scene.gateway("")?;
        let silent = lab.gateway.run(|| -> Result<Vec<TcpStream>> {
            let connect = |_| -> Result<TcpStream> {
                let mut stream = TcpStream::connect_timeout(&ADDRESS, Duration::from_secs(5))?;
                stream.write_all(b"GET /metrics HT")?;
                Ok(stream)
            };
            (0..2 * SCRAPERS).map(connect).collect()
        })?;
        for way in WAYS {
            let mut connection = scene.open(way).context(way.name)?;
            connection.ping()?;
            connection.close()?;
        }
        Scrape::new(&lab.gateway).context("behind those who are silent")?;
        drop(silent);
        Ok(())
    });
}
