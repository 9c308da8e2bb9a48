//! Ports of the agent's own toward Edges.
//!
//! The kernel can't be asked for one: it knows of no flow that lives in the datapath without a socket, and would sooner or later take the port of one. The
//! Edge's answers would then go to that flow's client.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::net::host;

/// Linux' own default of `net.ipv4.ip_local_port_range`.
const DEFAULT: (u16, u16) = (32_768, 60_999);

/// The ports that the host takes for its own connections.
#[derive(Debug)]
pub(super) struct Ports {
    first: u16,
    count: u16,
    random: RandomState,
    draws: AtomicU64,
}

impl Ports {
    /// Those of this host.
    pub(super) fn of_host() -> Self {
        let range = host::local_port_range().unwrap_or_else(|error| {
            tracing::warn!(%error, "taking {} to {} for connections to Edges", DEFAULT.0, DEFAULT.1);
            DEFAULT
        });
        Self::new(range)
    }

    fn new((first, last): (u16, u16)) -> Self {
        Self {
            first,
            count: last.saturating_sub(first).saturating_add(1),
            random: RandomState::new(),
            draws: AtomicU64::new(0),
        }
    }

    /// All of them once, from a random one on (RFC 6056, 3.3.1).
    pub(super) fn drawn(&self) -> impl Iterator<Item = u16> {
        let draw = self.draws.fetch_add(1, Ordering::Relaxed);
        let start = self.random.hash_one(draw) % u64::from(self.count);
        let (first, count) = (self.first, u64::from(self.count));
        (0..count).map(move |step| first + ((start + step) % count) as u16)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_port_comes_once_and_the_first_one_differs() {
        for range in [DEFAULT, (1024, u16::MAX), (1, u16::MAX), (5, 5)] {
            let ports = Ports::new(range);
            let all: Vec<_> = ports.drawn().collect();
            let different: HashSet<_> = all.iter().copied().collect();
            assert_eq!(all.len(), usize::from(range.1 - range.0) + 1);
            assert_eq!(all.len(), different.len());
            assert!(all.iter().all(|port| (range.0..=range.1).contains(port)));
        }
        let ports = Ports::new(DEFAULT);
        let firsts: HashSet<_> = (0..64).filter_map(|_| ports.drawn().next()).collect();
        assert!(firsts.len() > 32, "{firsts:?}");
    }
}
