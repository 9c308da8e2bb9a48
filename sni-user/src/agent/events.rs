//! What the datapath tells the agent.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use sni_common::{
    contract::{DropReason, Event, EventKind, LabelKind},
    token_bucket::TokenBucket,
};

use crate::{clock::monotonic_ns, datapath::Maps, neighbours::NextHopAddress};

/// Lines about one reason in a second, at most. The datapath samples, but a flood's sample is a flood, too.
const LINES_PER_SECOND: u32 = 10;

/// Takes events, and keeps the log readable.
#[derive(Default)]
pub(super) struct Events {
    /// Next hops that the datapath needs.
    pub(super) wanted: HashSet<NextHopAddress>,
    budgets: HashMap<u32, TokenBucket>,
}

impl Events {
    pub(super) fn take(&mut self, event: Event, maps: &Maps) {
        let key = &event.key;
        let (source, destination) = (IpAddr::from(key.source), IpAddr::from(key.destination));
        let (source_port, destination_port) = (
            u16::from_be(key.source_port_be),
            u16::from_be(key.destination_port_be),
        );
        match EventKind::try_from(event.kind) {
            Ok(EventKind::NeighbourWanted) => {
                self.wanted.insert((event.ifindex, destination));
            }
            Ok(EventKind::Dropped) if !self.may_say(event.reason) => {}
            Ok(EventKind::Dropped) => {
                let reason = DropReason::try_from(event.reason);
                let (name, sentence) = reason.map_or(
                    ("unknown", "A reason that this version does not know."),
                    |reason| (reason.name(), reason.sentence()),
                );
                tracing::warn!(reason = name, %source, source_port, %destination, destination_port, "dropped (sampled): {sentence}");
            }
            Ok(kind) if tracing::enabled!(tracing::Level::DEBUG) => {
                let edge = maps
                    .label(LabelKind::Edge, 0, event.edge)
                    .unwrap_or_default();
                tracing::debug!(%kind, %source, source_port, %destination, destination_port, edge, "flow");
            }
            Ok(_) => {}
            Err(unknown) => {
                tracing::warn!(%unknown, "an event of a kind that this version does not know")
            }
        }
    }

    fn may_say(&mut self, reason: u32) -> bool {
        // Reasons are few, but this side of the boundary can't know that.
        if self.budgets.len() > 64 {
            self.budgets.clear();
        }
        let now = monotonic_ns();
        let bucket = self.budgets.entry(reason).or_default();
        bucket.take(now, LINES_PER_SECOND * 1000, LINES_PER_SECOND)
    }
}
