//! Connections: by route, way and result, and how long they took to begin.

use std::collections::HashMap;

use super::{Exposition, ExpositionError, Family};

pub(super) const FAMILIES: &[&Family] = &[
    &OPENED,
    &ENDED,
    &REFUSED,
    &KEPT,
    &OPEN,
    &HALF_OPEN,
    &AGENT,
    &AGENT_LIMIT,
    &AGENT_EVENTS,
    &HELLOS,
    &HELLO_TIMES,
    &CONNECT_TIMES,
    &HANDSHAKE_TIMES,
];

pub(super) const OPENED: Family = Family::counter(
    "snigate_connections_opened_total",
    &["way"],
    "Connections that go to an Edge, by way; one that was relayed before it was handed off counts as both.",
);
pub(super) const ENDED: Family = Family::counter(
    "snigate_connections_ended_total",
    &["route", "way", "result"],
    "Connections to Edges that are over, by what decided about them (address, name, default), way, and how they ended.",
);
pub(super) const REFUSED: Family = Family::counter(
    "snigate_connections_refused_total",
    &["reason"],
    "Inspected connections that the agent did not carry; what the datapath refuses is in snigate_dropped_packets_total.",
);
pub(super) const KEPT: Family = Family::counter(
    "snigate_connections_kept_total",
    &["reason"],
    "Times that a passed-through connection stayed in the relay rather than being handed off to the datapath.",
);
const OPEN: Family = Family::gauge(
    "snigate_open_connections",
    &["edge", "way"],
    "Connections that nobody has ended; those of the datapath as the last sweep has found them.",
);
const HALF_OPEN: Family = Family::gauge(
    "snigate_half_open_flows",
    &[],
    "Flows of the datapath whose handshake is not complete, as the last sweep has found them.",
);
const AGENT: Family = Family::gauge(
    "snigate_agent_connections",
    &[],
    "Inspected connections that the agent holds: ClientHellos awaited, relayed, terminated.",
);
const AGENT_LIMIT: Family = Family::gauge(
    "snigate_agent_connections_limit",
    &[],
    "As many as the agent may hold (max_connections); further ones wait.",
);
const AGENT_EVENTS: Family = Family::counter(
    "snigate_agent_events_total",
    &["event"],
    "Everything that the agent counts, by the names of `snigate status`.",
);
pub(super) const HELLOS: Family = Family::counter(
    "snigate_hellos_total",
    &["reader", "result"],
    "What came of reading ClientHellos, in the datapath and in the agent.",
);
pub(super) const HELLO_TIMES: Family = Family::histogram(
    "snigate_hello_seconds",
    BUCKETS,
    &[],
    "Time from accepting a connection until its ClientHello was complete, in the agent.",
);
pub(super) const CONNECT_TIMES: Family = Family::histogram(
    "snigate_edge_connect_seconds",
    BUCKETS,
    &["result"],
    "Time of the agent's attempts to connect to an Edge by TCP.",
);
pub(super) const HANDSHAKE_TIMES: Family = Family::histogram(
    "snigate_tls_handshake_seconds",
    BUCKETS,
    &["peer", "result"],
    "Time of TLS handshakes of terminated connections, with the partner and with the Edge.",
);

/// From a server in the same rack to the longest timeout.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The connections of now.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// By Edge and way.
    pub(crate) by_edge: HashMap<(String, &'static str), u64>,
    /// None before the first sweep.
    pub(crate) half_open: Option<usize>,
    pub(crate) agent: u64,
    pub(crate) agent_limit: u32,
}

/// Adds them, and what the agent has counted by name.
pub(crate) fn expose<'a>(
    to: &Exposition,
    open: &Open,
    agent_events: impl IntoIterator<Item = (&'a String, &'a u64)>,
) -> Result<(), ExpositionError> {
    let connections = to.family(&OPEN)?;
    for ((edge, way), count) in &open.by_edge {
        connections.add(&[edge, way], *count as f64);
    }
    if let Some(half_open) = open.half_open {
        to.single(&HALF_OPEN, half_open as f64)?;
    }
    to.single(&AGENT, open.agent as f64)?;
    to.single(&AGENT_LIMIT, f64::from(open.agent_limit))?;
    let events = to.family(&AGENT_EVENTS)?;
    for (event, count) in agent_events {
        events.add(&[event], *count as f64);
    }
    Ok(())
}
