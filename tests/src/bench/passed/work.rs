//! What the partner does while it is measured, and what it takes of the machine.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::stand::Stand;
use crate::bench::{figures, machine};
use crate::peers::{Stream, converse, pour};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Connections that are opened, answered and closed, so many at once.
    Setups { parallel: usize },
    /// A kilobyte there and back, on one connection.
    Pings,
    /// The same on so many, one under way on each.
    Messages { connections: usize },
    /// So many connections at once, as fast as they can, towards the Edge.
    Bulk { connections: usize },
}

/// What came of one measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Messages, mebibytes or connections per second.
    pub(super) rate: f64,
    /// p50 and p99, of what is measured one by one.
    pub(super) latency: Option<[Duration; 2]>,
    /// Seconds of the whole machine's CPUs per unit, without those of other systems' processes.
    pub(super) cpu: f64,
    /// How many units there were, those of the warm-up included.
    pub(super) units: f64,
    /// The part of the connections that snigate's agent has had.
    pub(super) agents: Option<f64>,
}

/// The part of the CPUs' time that is used while nothing is measured.
pub(super) fn at_rest(time: Duration) -> Result<f64> {
    let cpus = std::thread::available_parallelism()?.get();
    let (start, before) = (Instant::now(), machine::busy()?);
    std::thread::sleep(time);
    let used = machine::busy()? - before;
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64() / cpus as f64)
}

/// `others` are the systems that are not measured now: what they still do of connections that have ended is not this one's work.
pub(super) fn measure(
    stand: &Stand<'_>,
    others: &[&Stand<'_>],
    kind: Kind,
    time: Duration,
) -> Result<Sample> {
    let opener = stand.opener()?;
    // Caches, windows, hardware addresses, and the scheduler's idea of who belongs where.
    let warming = time / 8;
    let standing = |streams: Vec<Stream>| {
        stand.settle(streams.len(), Duration::from_secs(5))?;
        Ok::<_, anyhow::Error>(streams)
    };
    match kind {
        Kind::Setups { parallel } => {
            let before = opener.setups(parallel, warming)?.len() as f64;
            let mut sample = setups(stand, others, || opener.setups(parallel, time))?;
            sample.units += before;
            Ok(sample)
        }
        Kind::Bulk { connections } => {
            // The Edge closes a stream once it has told what it counted.
            pour(&mut standing(opener.counting(connections)?)?, warming)?;
            let mut streams = standing(opener.counting(connections)?)?;
            sampled(others, || {
                const MEBIBYTE: f64 = 1024.0 * 1024.0;
                Ok((pour(&mut streams, time)? as f64 / MEBIBYTE, Vec::new()))
            })
        }
        Kind::Messages { connections } => {
            let mut streams = standing(opener.echoing(connections)?)?;
            converse(&mut streams, warming)?;
            sampled(others, || {
                Ok((converse(&mut streams, time)? as f64, Vec::new()))
            })
        }
        Kind::Pings => {
            let mut streams = standing(opener.echoing(1)?)?;
            let stream = streams.first_mut().context("a stream")?;
            ping(stream, warming)?;
            sampled(others, || {
                let pings = ping(stream, time)?;
                Ok((pings.len() as f64, pings))
            })
        }
    }
}

/// With the number of connections that the agent has had of them: what is bound should leave it alone.
fn setups(
    stand: &Stand<'_>,
    others: &[&Stand<'_>],
    work: impl FnOnce() -> Result<Vec<Duration>>,
) -> Result<Sample> {
    let before = stand.agents()?;
    let mut count = 0;
    let sample = sampled(others, || {
        let setups = work()?;
        count = setups.len();
        Ok((setups.len() as f64, setups))
    })?;
    let agents = stand.agents()?.saturating_sub(before);
    let part = stand.system.by().map(|_| agents as f64 / count as f64);
    Ok(Sample {
        agents: part,
        ..sample
    })
}

fn ping(stream: &mut Stream, time: Duration) -> Result<Vec<Duration>> {
    let end = Instant::now() + time;
    let mut pings = Vec::new();
    while Instant::now() < end {
        pings.push(stream.ping()?);
    }
    Ok(pings)
}

/// Does it between two looks at the clocks; it tells how many units it was and how long each took.
fn sampled(
    others: &[&Stand<'_>],
    work: impl FnOnce() -> Result<(f64, Vec<Duration>)>,
) -> Result<Sample> {
    let of_others = || {
        let used = others.iter().map(|other| other.used());
        used.sum::<Result<Duration>>()
    };
    let others_before = of_others()?;
    let (start, before) = (Instant::now(), machine::busy()?);
    let (units, latencies) = work()?;
    let (time, busy) = (start.elapsed(), machine::busy()?.saturating_sub(before));
    let busy = busy.saturating_sub(of_others()?.saturating_sub(others_before));
    let quantile = |share| figures::quantile(&latencies, share);
    Ok(Sample {
        rate: units / time.as_secs_f64(),
        latency: quantile(0.5)
            .zip(quantile(0.99))
            .map(|(p50, p99)| [p50, p99]),
        cpu: busy.as_secs_f64() / units,
        units,
        agents: None,
    })
}
