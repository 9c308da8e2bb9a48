//! EVENTS: what the datapath tells the agent.

use super::{FlowKey, SniName, wire_enum, wire_struct};

/// A record of the EVENTS ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// An [`EventKind`].
    pub kind: u32,
    /// Drop reason where the kind is a drop; else 0.
    pub reason: u32,
    /// The packet as it arrived; for [`EventKind::NeighbourWanted`], its destination is the next hop to resolve.
    pub key: FlowKey,
    /// Interface: where the packet arrived; for [`EventKind::NeighbourWanted`], where the next hop is.
    pub ifindex: u32,
    /// Slot of the Edge where one is chosen; else 0.
    pub edge: u32,
    /// Zero.
    pub padding: u32,
    /// Monotonic clock, nanoseconds.
    pub at_ns: u64,
}
wire_struct!(Event, 64);

wire_enum! {
    /// What happened.
    pub enum EventKind: u32 {
        /// A handshake was completed through the gateway. Only where it is wanted, see [`super::CONTROL_TELL`].
        FlowOpened = 1, "flow-opened";
        /// A flow carried its last FIN, or an acceptable RST; it is reaped when it stays idle. Likewise.
        FlowClosing = 2, "flow-closing";
        /// A packet was dropped. Sampled: the first of a reason on each CPU, then at ever larger distances.
        Dropped = 3, "dropped";
        /// A next hop has no usable neighbour entry.
        NeighbourWanted = 4, "neighbour-wanted";
        /// A packet of a flow that is being handed off acknowledges all that the agent's socket has sent.
        SocketAcked = 5, "socket-acked";
        /// A ClientHello's server name was found in the maps and its connection bound; the record is a [`HelloEvent`]. Likewise, and sampled under load.
        HelloBound = 6, "hello-bound";
    }
}

/// A record of the EVENTS ring about a ClientHello, longer than the others.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HelloEvent {
    /// As of every record; of kind [`EventKind::HelloBound`].
    pub event: Event,
    /// IP set number.
    pub ip_set: u32,
    /// A [`super::Matched`].
    pub matched: u32,
    /// The server name that the client asked for.
    pub name: SniName,
}
wire_struct!(HelloEvent, 328);
