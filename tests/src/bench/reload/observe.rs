//! What connections notice meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::stand::System;
use crate::bench::results::Role;
use crate::peers::{Opener, Stream};

/// How often the observers look whether it is over.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// What was seen in one sample, in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) setups: Vec<f64>,
    pub(super) pings: Vec<f64>,
}

/// Connections that have failed: a peer's are counted, and one of snigate's ends the bench.
#[derive(Debug)]
pub(super) struct Failures {
    may: bool,
    count: AtomicU64,
}

impl Failures {
    pub(super) fn of(system: System) -> Self {
        Self {
            may: system.role() == Role::Peer,
            count: AtomicU64::new(0),
        }
    }

    /// What came of a connection; nothing, if it has failed and may.
    pub(super) fn bear<T: Default>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() && self.may {
            self.count.fetch_add(1, Ordering::Relaxed);
            return Ok(T::default());
        }
        outcome
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Opens connections one after the other, and sends messages on the one that stands, for as long as `body` takes.
pub(super) fn observe<T>(
    opener: &Opener<'_>,
    standing: &mut Vec<Stream>,
    failures: &Failures,
    body: impl FnOnce() -> Result<T>,
) -> Result<(Seen, T)> {
    let over = AtomicBool::new(false);
    let (setups, pings, outcome) = thread::scope(|scope| {
        let setups = scope.spawn(|| setups(opener, failures, &over));
        let pings = scope.spawn(|| pings(opener, standing, failures, &over));
        let outcome = body();
        over.store(true, Ordering::Relaxed);
        let panicked = |_| Err(anyhow!("an observer panicked"));
        (
            setups.join().unwrap_or_else(panicked),
            pings.join().unwrap_or_else(panicked),
            outcome,
        )
    });
    let seen = Seen {
        setups: setups?,
        pings: pings?,
    };
    ensure!(
        !seen.setups.is_empty() && !seen.pings.is_empty(),
        "nothing was seen"
    );
    Ok((seen, outcome?))
}

fn setups(opener: &Opener<'_>, failures: &Failures, over: &AtomicBool) -> Result<Vec<f64>> {
    let mut setups = Vec::new();
    while !over.load(Ordering::Relaxed) {
        failures.bear(opener.set_up(1, LOOK, &mut setups))?;
    }
    Ok(setups.into_iter().map(micros).collect())
}

/// On another connection, if the one that stands is lost.
fn pings(
    opener: &Opener<'_>,
    standing: &mut Vec<Stream>,
    failures: &Failures,
    over: &AtomicBool,
) -> Result<Vec<f64>> {
    let mut pings = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let Some(stream) = standing.first_mut() else {
            *standing = failures.bear(opener.echoing(1))?;
            continue;
        };
        match failures.bear(stream.ping().map(Some))? {
            Some(ping) => pings.push(micros(ping)),
            None => standing.clear(),
        }
    }
    Ok(pings)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Make;

    #[test]
    fn a_peer_s_failures_are_counted_and_one_of_ours_is_an_error() -> Result<()> {
        let peer = Failures::of(System::Proxy(Make::Nginx));
        assert_eq!(peer.bear(Ok(1))?, 1);
        assert_eq!(peer.bear::<u32>(Err(anyhow!("reset")))?, 0);
        assert_eq!(peer.count(), 1);
        let ours = Failures::of(System::Snigate);
        assert!(ours.bear::<()>(Err(anyhow!("reset"))).is_err());
        Ok(())
    }
}
