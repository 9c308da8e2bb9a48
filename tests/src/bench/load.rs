//! What the partners do while it is measured.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::peers::{Limit, Partner, Storm};

/// Connections that are made before resumed ones are counted: each leaves a ticket.
const TICKETS: usize = 32;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// What came of one measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Connections, pings or mebibytes.
    pub units: f64,
    /// In this time.
    pub time: Duration,
    /// How long each connection took until its TLS handshake was over, or each ping.
    pub latencies: Vec<Duration>,
    /// What the proxy has used of the processors; nothing without a proxy.
    pub cpu: Option<Duration>,
    /// What everything on the machine has.
    pub machine: Duration,
    /// The part of the TLS handshakes that went on from an earlier session; nothing where there were none.
    pub resumed: Option<f64>,
}

impl Sample {
    fn new(units: f64, time: Duration, latencies: Vec<Duration>) -> Self {
        Self {
            units,
            time,
            latencies,
            cpu: None,
            machine: Duration::ZERO,
            resumed: None,
        }
    }

    /// Units per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.units / self.time.as_secs_f64()
    }
}

/// How clients connect.
#[derive(Clone, Copy)]
pub(super) struct Clients {
    pub(super) count: usize,
    pub(super) resume: bool,
}

/// Has sessions to go on from, where clients do.
pub(super) fn prepare(partner: &Partner<'_>, address: SocketAddr, clients: Clients) -> Result<()> {
    if clients.resume {
        let limit = Limit::Connections(TICKETS);
        let storm = Storm::resuming(partner, address, clients.count, limit)?;
        storm.finish()?.ensure_no_failure()?;
    }
    Ok(())
}

pub(super) fn connect(
    partner: &Partner<'_>,
    address: SocketAddr,
    clients: Clients,
    time: Duration,
) -> Result<Sample> {
    let start = if clients.resume {
        Storm::resuming
    } else {
        Storm::start
    };
    let report = start(partner, address, clients.count, Limit::Time(time))?.finish()?;
    report.ensure_no_failure()?;
    let setups = report.connections.iter().map(|it| it.setup).collect();
    let count = report.connections.len() as f64;
    let resumed = report.connections.iter().filter(|it| it.resumed).count();
    Ok(Sample {
        resumed: Some(resumed as f64 / count),
        ..Sample::new(count, report.duration, setups)
    })
}

pub(super) fn pour(
    partner: &Partner<'_>,
    address: SocketAddr,
    connections: usize,
    time: Duration,
) -> Result<Sample> {
    let start = Instant::now();
    let poured: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| partner.pour(address, time)))
            .collect();
        let end = |thread: thread::ScopedJoinHandle<'_, Result<_>>| {
            let panicked = |_| Err(anyhow!("a thread panicked"));
            thread.join().unwrap_or_else(panicked)
        };
        threads.into_iter().map(end).collect::<Result<_>>()
    })?;
    let time = start.elapsed();
    let bytes: u64 = poured.iter().map(|(bytes, _)| bytes).sum();
    Ok(Sample::new(bytes as f64 / MEBIBYTE, time, Vec::new()))
}

pub(super) fn ping(partner: &Partner<'_>, address: SocketAddr, time: Duration) -> Result<Sample> {
    let mut connection = partner.echo(address)?;
    let start = Instant::now();
    let mut pings = Vec::new();
    while start.elapsed() < time {
        pings.push(connection.ping()?);
    }
    let time = start.elapsed();
    // Dropped rather than closed: nginx does not say goodbye for an Edge that does.
    Ok(Sample::new(pings.len() as f64, time, pings))
}
