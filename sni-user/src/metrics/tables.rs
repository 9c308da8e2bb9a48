//! How full the maps are.

use std::time::Instant;

use super::{Exposition, ExpositionError, Family, measured::LastSweep};
use crate::datapath::Fill;

pub(super) const FAMILIES: &[&Family] = &[&ENTRIES, &MAX_ENTRIES, &SWEEP_AGE];

const ENTRIES: Family = Family::gauge(
    "snigate_map_entries",
    &["map", "type"],
    "Entries of a map; a full one of type lruhash forgets the oldest entry, one of type hash takes no other. A flow has two in FLOWS.",
);
const MAX_ENTRIES: Family = Family::gauge(
    "snigate_map_max_entries",
    &["map", "type"],
    "Entries that fit into a map.",
);
const SWEEP_AGE: Family = Family::gauge(
    "snigate_sweep_age_seconds",
    &[],
    "Time since the flow table was swept last: every five seconds, less often with millions of flows.",
);

/// Adds how full they are; FLOWS as the last sweep has left it.
pub(crate) fn expose(
    to: &Exposition,
    fill: &[Fill],
    last_sweep: Option<&LastSweep>,
    now: Instant,
) -> Result<(), ExpositionError> {
    let (entries, max_entries) = (to.family(&ENTRIES)?, to.family(&MAX_ENTRIES)?);
    let swept = last_sweep.map(|last| last.found.entries as u64);
    for map in fill {
        let labels = [map.map, &*map.kind];
        if let Some(count) = map.entries.or(swept) {
            entries.add(&labels, count as f64);
        }
        max_entries.add(&labels, f64::from(map.max_entries));
    }
    if let Some(last) = last_sweep {
        let age = now.saturating_duration_since(last.at);
        to.single(&SWEEP_AGE, age.as_secs_f64())?;
    }
    Ok(())
}
