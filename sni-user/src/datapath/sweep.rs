//! The sweep: flows that have ended leave the tables.

use std::collections::HashMap;

use sni_common::{
    contract::{Direction, Flow, FlowKey, Pending, Way},
    expiry::{self, Ended, Timeouts},
    tcp::state,
};

use super::{Additions, DatapathError, Maps};

/// What a sweep found and removed; flows, not entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries of FLOWS that live on.
    pub entries: usize,
    /// Established flows that live on.
    pub flows: usize,
    /// Half-open flows that live on.
    pub half_open: usize,
    /// Ended by FIN.
    pub closed: usize,
    /// Ended by RST.
    pub reset: usize,
    /// Idle for too long.
    pub idle: usize,
    /// Half of a flow whose other half is gone.
    pub orphaned: usize,
    /// Handshakes that were never completed.
    pub abandoned: usize,
    /// Connections that the datapath has begun by itself, and that have come no further.
    pub stuck: usize,
    /// Flows that nobody has ended, by the slot of their Edge and the [`Way`] that they came.
    pub open: HashMap<(u16, u8), u32>,
    /// Flows that are over and gone, by how they came and why they are over.
    pub ended: HashMap<EndedFlow, u32>,
}

/// A flow that the sweep has removed.
#[derive(Clone, Copy, Debug)]
pub struct RemovedFlow {
    /// Key of the client's packets.
    pub client_key: FlowKey,
    /// The entry of the client's packets; all zero where there was none.
    pub to_edge: Flow,
    /// The entry of the Edge's packets; likewise.
    pub to_client: Flow,
    /// Why it is over.
    pub why: Ended,
}

impl RemovedFlow {
    fn new(key: FlowKey, flow: Flow, other: Option<Flow>, why: Ended) -> Self {
        let other_key = flow.rewrite.reversed();
        let other = other.unwrap_or_default();
        let (client_key, to_edge, to_client) = if flow.direction == Direction::ToEdge as u8 {
            (key, flow, other)
        } else {
            (other_key, other, flow)
        };
        Self {
            client_key,
            to_edge,
            to_client,
            why,
        }
    }

    /// The entry that there is.
    pub fn either(&self) -> &Flow {
        if self.to_edge == Flow::default() {
            &self.to_client
        } else {
            &self.to_edge
        }
    }
}

/// What is told of a flow that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndedFlow {
    /// A [`Way`].
    pub way: u8,
    /// Whether a configured server name decided about it.
    pub named: bool,
    /// Why it is over.
    pub why: Ended,
}

impl Swept {
    /// Flows to the Edge in this slot that were handed off or bound, and that nobody has ended.
    pub fn handed_off(&self, slot: u16) -> u32 {
        let of = |way: Way| self.open.get(&(slot, way as u8)).copied();
        of(Way::HandedOff).unwrap_or_default() + of(Way::Bound).unwrap_or_default()
    }

    /// Those of all Edges.
    pub fn all_handed_off(&self) -> u32 {
        let mine = |way: u8| way != Way::Steered as u8;
        let open = self.open.iter().filter(|((_, way), _)| mine(*way));
        open.map(|(_, count)| count).sum()
    }
}

/// Removes every flow that is over by `timeouts` at `now_ns` (monotonic clock).
///
/// Both entries go together, so that a late packet of one direction does not meet half a flow. Entries are read again right before they
/// are removed; a packet that arrives in between is lost on a flow that was over or idle for hours. What they have carried goes to the accounts, and `tell` gets
/// each of them.
///
/// # Errors
/// When the tables can't be read, or the accounts can't be written.
pub fn sweep(
    maps: &mut Maps,
    now_ns: u64,
    timeouts: &Timeouts,
    mut tell: impl FnMut(RemovedFlow),
) -> Result<Swept, DatapathError> {
    let mut swept = Swept::default();
    let mut entries = 0;
    let mut candidates = Vec::new();
    maps.for_each_flow(|key, flow| {
        entries += 1;
        if flow.direction == Direction::ToEdge as u8 && flow.state & (state::FIN | state::RST) == 0
        {
            *swept.open.entry((flow.edge, flow.way)).or_default() += 1;
        }
        if expiry::may_be_over(&flow, now_ns, timeouts) {
            candidates.push(key);
        }
        Ok(())
    })?;
    let mut removed = 0;
    let mut additions = Additions::default();
    for key in candidates {
        // Gone already: as the other direction of a candidate before, or because its client uses the port again.
        let Ok(flow) = maps.flows.get(&key, 0) else {
            continue;
        };
        let other_key = flow.rewrite.reversed();
        let other = maps.flows.get(&other_key, 0).ok();
        let Some(ended) = expiry::established(&flow, other.as_ref(), now_ns, timeouts) else {
            continue;
        };
        removed += maps.remove_flow(&key, &mut additions);
        tell(RemovedFlow::new(key, flow, other, ended));
        let told = EndedFlow {
            way: flow.way,
            named: flow.route != 0,
            why: ended,
        };
        *swept.ended.entry(told).or_default() += 1;
        match ended {
            Ended::Closed => swept.closed += 1,
            Ended::Reset => swept.reset += 1,
            Ended::Idle => swept.idle += 1,
            Ended::Orphaned => swept.orphaned += 1,
        }
    }
    swept.entries = entries - removed;
    swept.flows = swept.entries / 2;
    let accounted = maps.account(&mut additions);

    let half_open: HashMap<FlowKey, Flow> = maps.all_half_open()?.into_iter().collect();
    for (key, flow) in &half_open {
        // As long as either direction is tried, both entries are needed.
        let other = half_open.get(&flow.rewrite.reversed());
        if expiry::half_open(flow, now_ns, timeouts)
            && other.is_none_or(|other| expiry::half_open(other, now_ns, timeouts))
        {
            // Evicted, or promoted, a moment ago.
            let _ = maps.half_open.remove(key);
            swept.abandoned += usize::from(flow.direction == Direction::ToEdge as u8);
        } else {
            swept.half_open += usize::from(flow.direction == Direction::ToEdge as u8);
        }
    }
    swept.stuck = forget_stuck(maps, now_ns)?;
    accounted.map(|()| swept)
}

/// How long a connection may be pending: longer than anybody repeats a SYN or a ClientHello with some hope.
const PENDING_NS: u64 = 30_000_000_000;

/// Removes connections that are pending for too long, and the first bytes of clients that have no pending connection. Both maps forget the oldest
/// entries by themselves; this makes room earlier, and what is listed true.
fn forget_stuck(maps: &mut Maps, now_ns: u64) -> Result<usize, DatapathError> {
    // In this order, and asked again below: who comes in between has both entries by then.
    let hellos: Vec<_> = maps.hellos.keys().filter_map(Result::ok).collect();
    let stuck: Vec<_> = maps
        .all_pending()?
        .into_iter()
        .filter(|(_, pending)| is_stuck(pending, now_ns))
        .map(|(key, _)| key)
        .collect();
    for key in &stuck {
        // Evicted, or no longer pending, a moment ago.
        let _ = maps.pending.remove(key);
    }
    for key in hellos {
        if maps.pending.get(&key, 0).is_err() {
            let _ = maps.hellos.remove(&key);
        }
    }
    Ok(stuck.len())
}

fn is_stuck(pending: &Pending, now_ns: u64) -> bool {
    now_ns.saturating_sub(pending.since_ns) > PENDING_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_connection_has_half_a_minute() {
        let pending = Pending {
            since_ns: 7,
            ..Pending::default()
        };
        assert!(!is_stuck(&pending, 0), "the clocks of two CPUs differ");
        assert!(!is_stuck(&pending, 7 + PENDING_NS));
        assert!(is_stuck(&pending, 8 + PENDING_NS));
    }
}
