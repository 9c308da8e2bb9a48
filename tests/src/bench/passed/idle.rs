//! What a connection takes that is passed through and silent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::memory::Reading;
use super::report::{left_out_as_json, print_left_out};
use super::stand::{LeftOut, Source, Stand, Terms};
use super::system::{SYSTEMS, System};
use crate::Lab;
use crate::bench::chosen;
use crate::bench::results::{self, Better, Metric};
use crate::peers::Size;
use crate::plot::figure;

/// Files beside connections: of this process, and of proxies.
const OTHER_FILES: u64 = 512;
/// Beyond the connections that are measured. HAProxy wants files for all of it, and refuses to start where it can't have them.
const SPARE: usize = 16;
/// Connections that come and go before: buffers and tables are as large as they get, and the allocators have what they keep.
const BEFORE: usize = 256;
/// How long all hand-offs, and all ends of connections, may take.
const SETTLING: Duration = Duration::from_secs(60);
const KILOBYTE: f64 = 1024.0;
/// All that a connection that is bound or handed off may take, in kilobytes.
const AIM: f64 = 0.5;

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// So many at once.
    pub connections: usize,
    /// How long they are silent before memory is read.
    pub silence: Duration,
    /// Threads or processes of each proxy.
    pub workers: usize,
    /// Only systems of these names; all where there are none.
    pub systems: Vec<String>,
    /// Another build of snigate, for further rows.
    pub other: Option<PathBuf>,
}

/// What one system takes.
#[derive(Debug)]
pub struct Row {
    system: System,
    connections: usize,
    before: Reading,
    after: Reading,
}

/// All that was measured.
#[derive(Debug)]
pub struct Measured {
    rows: Vec<Row>,
    left_out: Vec<LeftOut>,
}

/// How many connections the limit of open files leaves room for: partner and Edge are in one process with a socket each, and so are both
/// sockets of a proxy. The limit is raised as far as it goes, or as `wanted` connections need; what is started afterwards inherits it.
///
/// # Errors
/// The kernel's.
pub fn room(wanted: usize) -> Result<usize> {
    let needed = 2 * (wanted + SPARE) as u64 + OTHER_FILES;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = hard.max(needed);
    // The superuser may go beyond the hard limit, but not in every container.
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, limit, limit) {
        Ok(()) => limit,
        Err(_) => {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            hard
        }
    };
    Ok(usize::try_from(limit.saturating_sub(OTHER_FILES) / 2)?)
}

/// Measures one system after the other, each in a lab of its own that is gone before the next one comes.
///
/// # Errors
/// Something does not start. A system of which a single connection fails is left out.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Measured> {
    let mut rows = Vec::new();
    let mut left_out = Vec::new();
    // Links have no part in this; XDP is on every kernel that snigate runs on.
    let systems = SYSTEMS.into_iter();
    let systems = systems
        .filter(|system| !system.offloads)
        .filter(|system| options.other.is_some() || !system.is_other());
    for system in systems.filter(|system| chosen(&options.systems, system.name)) {
        progress(&format!("starting {}", system.name));
        // The datapath has some nine thousand ports of the gateway's own, which are fewer than the connections may be.
        let terms = Terms {
            source: Source::Preserve,
            ..Terms::plain(Size {
                workers: options.workers,
                connections: options.connections + SPARE,
            })
        };
        let lab = Lab::new("bench-idle", &terms.topology(&system))?;
        match Stand::start(&lab, system, terms, options.other.as_deref())? {
            Ok(stand) => {
                // With the largest numbers a system may come to its end; the others have theirs to tell.
                match measure(&stand, options, &mut progress) {
                    Ok(row) => rows.push(row),
                    Err(error) => left_out.push(LeftOut {
                        system,
                        reason: format!("{} connections: {error:#}", options.connections),
                    }),
                }
            }
            Err(reason) => left_out.push(reason),
        }
    }
    Ok(Measured { rows, left_out })
}

fn measure(stand: &Stand<'_>, options: &Options, progress: &mut impl FnMut(&str)) -> Result<Row> {
    let (name, connections) = (stand.system.name, options.connections);
    let opener = stand.opener()?;
    drop(opener.echoing(BEFORE.min(connections))?);
    stand.drain(SETTLING)?;
    thread::sleep(options.silence);
    let before = Reading::of(stand)?;
    progress(&format!("{connections} connections through {name}"));
    let mut streams = opener.echoing(connections)?;
    stand.settle(connections, SETTLING)?;
    progress(&format!("silence: {name}"));
    thread::sleep(options.silence);
    let after = Reading::of(stand)?;
    progress(&format!("all alive? {name}"));
    for stream in &mut streams {
        stream.ping()?;
    }
    ensure!(
        after.sockets == stand.sockets()?,
        "the gateway's sockets have changed with a message"
    );
    drop(streams);
    // What is still on its way out would be missing from the next system's figures.
    stand.drain(SETTLING)?;
    Ok(Row {
        system: stand.system,
        connections,
        before,
        after,
    })
}

impl Row {
    /// Kilobytes per connection.
    fn each(&self, growth: i128) -> f64 {
        growth as f64 / KILOBYTE / self.connections as f64
    }

    fn processes(&self) -> f64 {
        self.each(grown(self.before.processes, self.after.processes))
    }

    /// A part of the kernel's memory, as entries are allocated when they are needed.
    fn maps(&self) -> f64 {
        self.each(grown(self.before.maps, self.after.maps))
    }

    fn slab(&self) -> f64 {
        self.caches().values().sum()
    }

    fn caches(&self) -> BTreeMap<&str, f64> {
        let after = &self.after.slab;
        after
            .iter()
            .map(|(name, after)| {
                let before = self.before.slab.get(name).copied().unwrap_or(0);
                (name.as_str(), self.each(grown(before, *after)))
            })
            .collect()
    }

    fn sockets(&self) -> f64 {
        self.after.sockets as f64 / self.connections as f64
    }
}

fn grown(before: u64, after: u64) -> i128 {
    i128::from(after) - i128::from(before)
}

impl Measured {
    /// The partner's and the Edge's own sockets are in the same kernel: routing has nothing else.
    fn routing(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.system.is_routing())
    }

    fn slab_over_routing(&self, row: &Row) -> Option<f64> {
        Some(row.slab() - self.routing()?.slab())
    }

    /// Processes and kernel; the maps' entries are in the kernel's part.
    fn all_told(&self, row: &Row) -> Option<f64> {
        Some(row.processes() + self.slab_over_routing(row)?)
    }

    fn met(&self, row: &Row) -> Option<bool> {
        let aimed = row.system.hands_off() || row.system.binds();
        let all = self.all_told(row)?;
        aimed.then_some(all <= AIM && row.after.sockets == 0)
    }
}

/// Prints a line for each system.
pub fn print(measured: &Measured) {
    print_left_out(&measured.left_out);
    println!(
        "\n{:14} {:>11} {:>9} {:>9} {:>9} {:>9} {:>8}   {:>12} {:>9}",
        "",
        "connections",
        "processes",
        "kernel",
        "of it maps",
        "all told",
        "sockets",
        "processes MiB",
        "maps MiB"
    );
    let mebibytes = |bytes: u64| bytes as f64 / KILOBYTE / KILOBYTE;
    for row in &measured.rows {
        let told = |value: Option<f64>| value.map_or_else(String::new, |it| format!("{it:.2}"));
        println!(
            "{:14} {:>11} {:>9.2} {:>9} {:>10.2} {:>9} {:>8.2}   {:>13.1} {:>9.1}",
            row.system.name,
            row.connections,
            row.processes(),
            told(measured.slab_over_routing(row)),
            row.maps(),
            told(measured.all_told(row)),
            row.sockets(),
            mebibytes(row.before.processes),
            mebibytes(row.before.maps),
        );
    }
    if let Some(routing) = measured.routing() {
        println!(
            "\nThe ends' own sockets took {:.2} KB of the kernel's memory per connection; that is taken away from all.",
            routing.slab()
        );
    }
    for row in &measured.rows {
        if let (Some(met), Some(all)) = (measured.met(row), measured.all_told(row)) {
            let verdict = if met { "met" } else { "MISSED" };
            println!(
                "aim {verdict}: {}: {all:.2} KB all told, at most {AIM}, and {} sockets, none",
                row.system.name, row.after.sockets
            );
        }
    }
}

/// The same for the document: one table, with the part of the kernel's memory that is over routing's.
#[must_use]
pub fn table(measured: &Measured) -> Option<results::Table> {
    let connections = measured.rows.first()?.connections;
    let row = |row: &Row| {
        let over = measured.slab_over_routing(row);
        let figures = [
            Some(row.processes()),
            over,
            Some(row.maps()),
            measured.all_told(row),
            Some(row.sockets()),
            Some(row.before.processes as f64 / KILOBYTE / KILOBYTE),
            Some(row.before.maps as f64 / KILOBYTE / KILOBYTE),
            Some((row.before.processes + row.before.maps) as f64 / KILOBYTE / KILOBYTE),
        ];
        results::Row {
            name: row.system.name.to_owned(),
            role: row.system.role(),
            x: Some(connections as f64),
            cells: figures.map(Vec::from_iter).into(),
        }
    };
    let systems = measured.rows.iter();
    let systems = systems.filter(|row| !row.system.is_routing());
    Some(results::Table {
        key: format!("idle/{connections}"),
        title: format!("{} silent connections", figure(connections as f64)),
        metrics: vec![
            Metric::new("processes", "KB each", Better::Neither),
            Metric::new("kernel", "KB each", Better::Neither),
            Metric::new("of it maps", "KB each", Better::Neither),
            Metric::new("all told", "KB each", Better::Lower),
            Metric::new("sockets", "each", Better::Neither),
            Metric::new("processes at rest", "MiB", Better::Neither),
            Metric::new("maps at rest", "MiB", Better::Neither),
            Metric::new("at rest, all told", "MiB", Better::Lower),
        ],
        rows: systems.map(row).collect(),
    })
}

/// What was left out, in words.
#[must_use]
pub fn left_out(measured: &Measured) -> Vec<String> {
    measured.left_out.iter().map(LeftOut::told).collect()
}

/// The same for programs.
#[must_use]
pub fn as_json(measured: &Measured) -> Value {
    let row = |row: &Row| {
        json!({
            "system": row.system.name,
            "connections": row.connections,
            "kb_per_connection": {
                "processes": row.processes(),
                "slab": row.slab(),
                "slab_over_routing": measured.slab_over_routing(row),
                "maps": row.maps(),
                "all_told": measured.all_told(row),
                "caches": row.caches(),
            },
            "gateway_sockets": row.after.sockets,
            "at_rest": {
                "processes_bytes": row.before.processes,
                "maps_bytes": row.before.maps,
            },
            "aim_met": measured.met(row),
        })
    };
    json!({
        "left_out": left_out_as_json(&measured.left_out),
        "systems": measured.rows.iter().map(row).collect::<Vec<_>>(),
    })
}
