//! What a reload takes, and what it does to connections meanwhile, by the number of domains.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::config::{self, PASSED};
use super::results::{Better, Metric, Role, Row, Table};
use crate::addresses::{SIP_TLS, VIP_1, partner};
use crate::gateway::{Gateway, Tuning};
use crate::peers::{Opener, StreamEdge};
use crate::plot::figure;
use crate::{Lab, Topology};

/// Every connection takes a port, which rests for a minute.
const PARTNERS: u8 = 8;
/// How often the observers look whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often.
    pub rounds: u32,
    /// How long each sample takes at least.
    pub sample: Duration,
    /// Numbers of domains.
    pub domains: Vec<usize>,
}

/// What was seen in one sample, in microseconds; of reloads in milliseconds.
#[derive(Clone, Debug, Default)]
struct Seen {
    setups: Vec<f64>,
    pings: Vec<f64>,
    reloads: Vec<f64>,
}

/// Measures; a table for each number of domains.
///
/// # Errors
/// Something does not start, a reload is refused, or a single connection fails.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Vec<Table>> {
    options
        .domains
        .iter()
        .map(|domains| measure(*domains, options, &mut progress))
        .collect()
}

fn measure(domains: usize, options: &Options, progress: &mut impl FnMut(&str)) -> Result<Table> {
    progress(&format!("starting with {domains} domains"));
    let topology = Topology {
        offloads: true,
        capture: false,
        partner_addresses: PARTNERS,
        ..Topology::default()
    };
    let lab = Lab::new("bench-reload", &topology)?;
    lab.partner.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    lab.partner
        .sysctl("net/ipv4/ip_local_port_range", "10000 65000")?;
    let _edge = StreamEdge::start(&lab.edge_a, SIP_TLS)?;
    let tuning = Tuning {
        quiet: true,
        hook: Some("tcx"),
        ..Tuning::default()
    };
    let tables = config::tables("source = \"preserve\"", "bind = true", &further(domains));
    let gateway = Gateway::start_tuned(&lab, tuning, "", &tables)?;
    let opener = Opener::new(&lab.partner, (VIP_1.v4, SIP_TLS).into(), PASSED)?;
    let opener = opener.from_each_of((0..PARTNERS).map(|n| partner(n).v4.into()).collect());
    // The Edge's hardware address is known, and the program is warm.
    opener.setups(1, LOOK)?;
    let (mut resting, mut reloading) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let place = format!("round {round} of {}: {domains} domains", options.rounds);
        progress(&format!("{place}, at rest"));
        resting.push(observe(&opener, || {
            thread::sleep(options.sample);
            Ok(Vec::new())
        })?);
        progress(&format!("{place}, reloading"));
        reloading.push(observe(&opener, || reload(&gateway, options.sample))?);
    }
    let rows = [("at rest", &resting), ("reloading", &reloading)];
    Ok(Table {
        key: format!("reload/{domains}"),
        title: format!("{} domains", figure(domains as f64)),
        metrics: vec![
            Metric::new("time of the reload", "ms", Better::Neither),
            Metric::new("setup p50", "µs", Better::Neither),
            Metric::new("setup p99", "µs", Better::Neither),
            Metric::new("ping p50", "µs", Better::Neither),
            Metric::new("ping p99", "µs", Better::Neither),
            Metric::new("longest ping", "µs", Better::Neither),
        ],
        rows: rows.map(|(name, seen)| row(name, domains, seen)).into(),
    })
}

fn row(name: &str, domains: usize, seen: &[Seen]) -> Row {
    let each = |of: fn(&Seen) -> &Vec<f64>, quantile: f64| -> Vec<f64> {
        seen.iter()
            .filter_map(|seen| self::quantile(of(seen), quantile))
            .collect()
    };
    Row {
        name: name.to_owned(),
        role: Role::Ours,
        x: Some(domains as f64),
        cells: vec![
            each(|seen| &seen.reloads, 0.5),
            each(|seen| &seen.setups, 0.5),
            each(|seen| &seen.setups, 0.99),
            each(|seen| &seen.pings, 0.5),
            each(|seen| &seen.pings, 0.99),
            each(|seen| &seen.pings, 1.0),
        ],
    }
}

fn quantile(values: &[f64], quantile: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted
        .get((last as f64 * quantile).round() as usize)
        .copied()
}

/// Domains that nobody asks for, beside the one that is asked for.
fn further(domains: usize) -> String {
    (1..domains)
        .map(|n| format!("\n[[domain]]\nsip_domain = \"customer-{n}.example\"\npool = \"edges\"\n"))
        .collect()
}

/// Loads the configuration again, over and over, for so long, and once at least; the times are in milliseconds.
fn reload(gateway: &Gateway<'_>, time: Duration) -> Result<Vec<f64>> {
    let end = Instant::now() + time;
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        gateway.output(&["reload"])?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if Instant::now() >= end {
            return Ok(times);
        }
    }
}

/// Opens connections one after the other, and sends messages on one that stands, for as long as `body` takes.
fn observe(opener: &Opener<'_>, body: impl FnOnce() -> Result<Vec<f64>>) -> Result<Seen> {
    let over = AtomicBool::new(false);
    let mut stream = opener.echoing(1)?;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let seen = thread::scope(|scope| {
        let setups = scope.spawn(|| {
            let mut setups = Vec::new();
            while !over.load(Ordering::Relaxed) {
                setups.extend(opener.setups(1, LOOK)?.into_iter().map(micros));
            }
            Ok::<_, anyhow::Error>(setups)
        });
        let pings = scope.spawn(|| {
            let mut pings = Vec::new();
            while !over.load(Ordering::Relaxed) {
                for stream in &mut stream {
                    pings.push(micros(stream.ping()?));
                }
            }
            Ok::<_, anyhow::Error>(pings)
        });
        let reloads = body();
        over.store(true, Ordering::Relaxed);
        let panicked = |_| Err(anyhow!("an observer panicked"));
        Ok::<_, anyhow::Error>(Seen {
            setups: setups.join().unwrap_or_else(panicked)?,
            pings: pings.join().unwrap_or_else(panicked)?,
            reloads: reloads?,
        })
    })?;
    ensure!(
        !seen.setups.is_empty() && !seen.pings.is_empty(),
        "nothing was seen"
    );
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_up_to_the_longest() {
        let values = [4.0, 1.0, 3.0, 2.0, 5.0];
        assert_eq!(quantile(&values, 0.5), Some(3.0));
        assert_eq!(quantile(&values, 1.0), Some(5.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
