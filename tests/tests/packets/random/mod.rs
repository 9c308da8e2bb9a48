//! Random packets, most of them valid ones gone wrong: whatever arrives, nothing goes where it must not, and what goes is whole.
//!
//! A short round of them is a test; `cargo xtask fuzz datapath` runs rounds for as long as it is told to. By hand: `SNIGATE_PACKETS_SEED` is the first
//! round's seed, `SNIGATE_PACKETS_SECONDS` how long to go on with others, `SNIGATE_PACKETS_CASES` how many packets each table of a round gets.

mod damage;
mod frames;
mod history;
mod rules;
mod sender;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use snigate_tests::addresses::{EDGE_A, EDGE_B};
use snigate_tests::packets::plan::Configuration;
use snigate_tests::packets::{Program, Rig, Scene, packet_test};

use crate::bind::talk::ANNOUNCED;
use history::{Event, History, Lines};
use sender::Sender;

const SEED: u64 = 5061;
const CASES: u32 = 8_000;
/// Few, so that the table is full at times.
const MAX_FLOWS: u32 = 16;
/// Reading the tables after every packet would take most of the time.
const CHECK_FLOWS_EVERY: u32 = 500;

/// One service, one Edge each: what goes to the other's is a leak.
const TWO_CUSTOMERS: Configuration = Configuration {
    source: "preserve",
    edges: &[("edge-a", EDGE_A)],
    second: &[("edge-b", EDGE_B)],
};

/// What decides about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The service's address.
    Address,
    /// The server name; and some flows are handed off.
    Name,
}

/// A datapath and its configuration.
#[derive(Clone, Copy, Debug)]
struct Table {
    source: &'static str,
    by: By,
}

#[test]
fn nothing_goes_where_it_must_not() {
    packet_test("random packets", |rig| {
        let first = variable("SNIGATE_PACKETS_SEED").unwrap_or(SEED);
        let seconds = variable("SNIGATE_PACKETS_SECONDS").unwrap_or(0);
        let cases = variable("SNIGATE_PACKETS_CASES").unwrap_or(CASES.into()) as u32;
        let (begin, mut packets) = (Instant::now(), 0);
        for seed in first.. {
            packets += round(rig, seed, cases)?;
            if begin.elapsed() >= Duration::from_secs(seconds) {
                let rate = f64::from(packets) / begin.elapsed().as_secs_f64();
                println!("seeds {first} to {seed}: {packets} packets, {rate:.0} each second");
                break;
            }
        }
        Ok(())
    });
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Every table with so many packets of this seed. Returns how many they were.
fn round(rig: &Rig, seed: u64, cases: u32) -> Result<u32> {
    let mut packets = 0;
    for program in Program::BOTH {
        let mut scene = Scene::at(rig, &format!("random, {seed}"), MAX_FLOWS, program)?;
        for (by, source) in [
            (By::Address, "preserve"),
            (By::Address, "gateway"),
            (By::Name, "preserve"),
            (By::Name, "gateway"),
        ] {
            let table = Table { source, by };
            let what = format!("seed {seed}, {program:?}, {table:?}");
            packets += run(&mut scene, table, seed, cases).context(what)?;
        }
    }
    Ok(packets)
}

impl Table {
    /// Configures a datapath, and forgets whatever it knew.
    fn prepare(self, scene: &mut Scene<'_>) -> Result<()> {
        let configuration = Configuration {
            source: self.source,
            ..TWO_CUSTOMERS
        };
        let mut text = configuration.render(LIMITS);
        if self.by == By::Name {
            for pool in ["pool-1", "pool-2"] {
                text = text.replace(&format!("steer = \"{pool}\""), "inspect = true");
            }
            text += DOMAINS;
        }
        scene.reset("random")?;
        scene.configure(&text)?;
        Ok(scene.datapath().maps.announce(Some(ANNOUNCED))?)
    }
}

/// Nobody is to be turned away for the number of what he sends.
const LIMITS: &str = "[limits]
syn_per_source = \"1000000/s\"
syn_per_prefix = \"1000000/s\"
hello_per_source = \"1000000/s\"
hello_per_prefix = \"1000000/s\"
";

/// Whose names lead to which pool.
const DOMAINS: &str = "[[domain]]
sip_domain = \"fabrikam.example\"
pool = \"pool-1\"
[[domain]]
sip_domain = \"contoso.example\"
pool = \"pool-2\"
";

fn run(scene: &mut Scene<'_>, table: Table, seed: u64, cases: u32) -> Result<u32> {
    let lines = Lines::listen(scene)?;
    table.prepare(scene)?;
    let mut sender = Sender::new(table, seed);
    let mut history = History::new(table, &lines);
    if let Err(error) = packets(scene, &mut sender, &mut history, cases) {
        let again =
            format!("SNIGATE_PACKETS_CASES={cases} cargo xtask fuzz datapath --seed {seed}");
        return Err(history.shortened(scene, error, &again));
    }
    // A test whose packets are all dropped would prove nothing.
    history.seen.is_enough(table)?;
    Ok(history.seen.packets)
}

/// Sends until the kernel has run so many: some are too short for it.
fn packets(
    scene: &mut Scene<'_>,
    sender: &mut Sender,
    history: &mut History<'_>,
    cases: u32,
) -> Result<()> {
    for case in 0.. {
        if history.seen.packets == cases {
            break;
        }
        let mut events = sender.next(scene, case)?;
        if case % CHECK_FLOWS_EVERY == 0 {
            events.push(Event::Look);
        }
        for event in events {
            let outcome = history
                .apply(scene, event)
                .with_context(|| format!("packet {case}"))?;
            sender.learn(outcome);
        }
    }
    Ok(())
}
