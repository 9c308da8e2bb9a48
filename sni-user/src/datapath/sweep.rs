//! The sweep: flows that have ended leave the tables.

use std::collections::HashMap;

use sni_common::{
    contract::{Flow, FlowKey},
    expiry::{self, Ended, Timeouts},
};

use super::{DatapathError, Maps};

/// What a sweep found and removed; flows, not entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
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
}

/// Removes every flow that is over by `timeouts` at `now_ns` (monotonic clock).
///
/// Both entries go together, so that a late packet of one direction does not meet half a flow. A packet that arrives between the reading
/// and the removal is lost on an idle flow at worst; the entry is read again right before it is removed.
///
/// # Errors
/// When the tables can't be read.
pub fn sweep(maps: &mut Maps, now_ns: u64, timeouts: &Timeouts) -> Result<Swept, DatapathError> {
    let mut swept = Swept::default();
    let entries: HashMap<FlowKey, Flow> = maps.all_flows()?.into_iter().collect();
    let mut seen_alone = 0;
    for (key, flow) in &entries {
        let other_key = flow.rewrite.reversed();
        let other = entries.get(&other_key);
        // Each flow once: by the smaller of its keys.
        if other.is_some() && other_key < *key {
            continue;
        }
        let Some(_) = expiry::established(flow, other, now_ns, timeouts) else {
            if other.is_some() {
                swept.flows += 1;
            } else {
                seen_alone += 1;
            }
            continue;
        };
        let (Ok(flow), other) = (maps.flows.get(key, 0), maps.flows.get(&other_key, 0).ok()) else {
            continue;
        };
        let Some(ended) = expiry::established(&flow, other.as_ref(), now_ns, timeouts) else {
            swept.flows += 1;
            continue;
        };
        // Gone already: the datapath ends a flow itself when its client uses the port again.
        let _ = maps.flows.remove(key);
        let _ = maps.flows.remove(&other_key);
        match ended {
            Ended::Closed => swept.closed += 1,
            Ended::Reset => swept.reset += 1,
            Ended::Idle => swept.idle += 1,
            Ended::Orphaned => swept.orphaned += 1,
        }
    }
    tracing::trace!(
        entries = entries.len(),
        alone = seen_alone,
        "swept the flow table"
    );

    let mut half_open = 0;
    for (key, flow) in maps.all_half_open()? {
        if expiry::half_open(&flow, now_ns, timeouts) {
            let _ = maps.half_open.remove(&key);
            swept.abandoned += usize::from(flow.direction == 0);
        } else {
            half_open += usize::from(flow.direction == 0);
        }
    }
    swept.half_open = half_open;
    Ok(swept)
}
