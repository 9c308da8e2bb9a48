//! Between the datapath and the host's own sockets: LISTENERS, and the mark of the agent's packets.

/// The entry of LISTENERS that serves every inspected address and port.
pub const LISTENER: u32 = 0;

/// Bit of a packet's mark: it belongs to a socket of this host, whatever its destination address.
///
/// Set on answers of Edges to the agent's transparent sockets, whose addresses are the clients'. A rule of the host's routing sends marked packets
/// to the local table.
pub const TRANSPARENT_MARK: u32 = 0x0100_0000;
