//! FLOWS and HALF_OPEN: one entry per direction of a flow.

use super::{wire_enum, wire_struct};
use crate::{Address, checksum, translate::Translation};

/// The addresses and ports of a packet; key of FLOWS and HALF_OPEN as the packet arrives, and part of the value as it leaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, network byte order.
    pub source_port_be: u16,
    /// Destination port, network byte order.
    pub destination_port_be: u16,
}
wire_struct!(FlowKey, 36);

impl FlowKey {
    /// The key of packets in the other direction.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port_be: self.destination_port_be,
            destination_port_be: self.source_port_be,
        }
    }

    /// Both ports as they stand in a TCP header.
    #[inline(always)]
    pub const fn ports_word(&self) -> u32 {
        // Little-endian hosts only, as the BPF target: the source port is the lower half.
        self.source_port_be as u32 | (self.destination_port_be as u32) << 16
    }
}

/// One direction of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Addresses and ports that a packet of this direction leaves with. Its reverse is the key of the other direction.
    pub rewrite: FlowKey,
    /// Slot of the Edge in EDGES.
    pub edge: u16,
    /// A [`Direction`].
    pub direction: u8,
    /// Bits of [`crate::tcp::state`].
    pub state: u8,
    /// Change of the TCP checksum by the ports of the rewrite (see [`crate::checksum`]), folded.
    pub port_delta: u16,
    /// Change of a checksum over the addresses, folded: of the IPv4 header's, without the TTL, and of the TCP pseudo header's.
    pub ip_delta: u16,
    /// The next sequence number this side would send, host byte order; as it arrives, before any translation.
    pub next_seq: u32,
    /// The last acknowledgement number it sent, host byte order; likewise.
    pub last_ack: u32,
    /// IP set number.
    pub ip_set: u32,
    /// Where packets of this direction go; see `next_hop_until_ns`.
    pub next_hop: NextHop,
    /// A [`Way`].
    pub way: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// `next_hop` is looked up again after this; monotonic clock, nanoseconds.
    pub next_hop_until_ns: u64,
    /// When the flow was opened; monotonic clock, nanoseconds.
    pub opened_ns: u64,
    /// When this direction last carried a packet; monotonic clock, nanoseconds.
    pub last_seen_ns: u64,
    /// Packets of this direction. Not atomic: packets of one flow that arrive on two CPUs at once may be counted once.
    pub packets: u64,
    /// Bytes of this direction, IP headers included; counted like `packets`. What the agent carried before a hand-off is in both, counted by its
    /// sockets: without IP and TCP headers.
    pub bytes: u64,
    /// What a server name decided: [`super::SniName::number`] of the route; 0 where the address did.
    pub route: u64,
    /// What else is added to segments; all zero for a steered flow.
    pub translation: Translation,
    /// Zero.
    pub padding2: u32,
}
// An entry of FLOWS with its key and the kernel's own 56 bytes just fits the allocator's class of 256 bytes.
wire_struct!(Flow, 160);

impl Flow {
    /// The next sequence number of this direction, as its receiver counts.
    #[inline(always)]
    pub const fn sent(&self) -> u32 {
        self.next_seq.wrapping_add(self.translation.seq)
    }

    /// What this direction has acknowledged, as the sender of what was acknowledged counts.
    #[inline(always)]
    pub const fn acknowledged(&self) -> u32 {
        self.last_ack.wrapping_add(self.translation.ack)
    }
}

wire_enum! {
    /// How a flow came to be in the datapath.
    pub enum Way: u8 {
        /// The address decided; addresses and ports are all that is changed.
        Steered = 0, "steered";
        /// The agent has peeked the ClientHello, connected to the Edge, and given both sockets up.
        HandedOff = 1, "handed-off";
        /// The datapath has read the ClientHello itself, and has connected to the Edge; the agent knows nothing of it.
        Bound = 2, "bound";
    }
}

/// Value of HANDING_OFF, keyed like FLOWS: the flow is in the datapath, and the agent still has the socket that packets of this direction would
/// belong to. Only the agent writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandingOff {
    /// The acknowledgement, as packets of this direction carry it, that covers all that the socket has sent, host byte order. Pure acknowledgements
    /// before it are the socket's.
    pub need_ack: u32,
    /// Zero.
    pub padding: u32,
}
wire_struct!(HandingOff, 8);

/// Value of CLIENT_SYNS and EDGE_SYN_ACKS, keyed like FLOWS by the segment as it arrived: how the peer of one of the agent's sockets began, which the
/// socket does not tell; and that its packets pass the datapath at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynSeen {
    /// Timestamp value (RFC 7323), host byte order.
    pub ts_value: u32,
    /// Bits of [`SynSeen::TIMESTAMPS`] and [`SynSeen::LINUX`].
    pub flags: u32,
    /// Its sequence number, host byte order: that of the SYN itself, one before the stream's first byte.
    pub seq: u32,
}
wire_struct!(SynSeen, 12);

impl SynSeen {
    /// There is a timestamp.
    pub const TIMESTAMPS: u32 = 1;
    /// The options begin as Linux writes them (`tcp_options_write` of net/ipv4/tcp_output.c): maximum segment size, SACK permitted, timestamps. Such a
    /// peer takes segments without timestamps, where RFC 7323, 3.2, would have them dropped.
    pub const LINUX: u32 = 2;
}

impl FlowKey {
    /// What a rewrite to `to` changes in a checksum over the addresses, folded: the IPv4 header's, and the TCP pseudo header's.
    #[inline(always)]
    pub const fn address_change(&self, to: &Self) -> u16 {
        checksum::fold(
            checksum::change_address(&self.source, &to.source)
                + checksum::change_address(&self.destination, &to.destination),
        )
    }

    /// What it changes in the TCP checksum by the ports, folded.
    #[inline(always)]
    pub const fn port_change(&self, to: &Self) -> u16 {
        checksum::fold(checksum::change(self.ports_word(), to.ports_word()))
    }
}

wire_enum! {
    /// Which way an entry's packets go.
    pub enum Direction: u8 {
        /// From the client toward the Edge.
        ToEdge = 0, "to-edge";
        /// From the Edge toward the client.
        ToClient = 1, "to-client";
    }
}

/// How a packet leaves: interface, Ethernet addresses, VLAN tags.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Interface index; 0 for none known.
    pub ifindex: u32,
    /// Destination and source MAC address, as the first twelve bytes of a frame; by the word, as the datapath copies them.
    pub ethernet: [u32; 3],
    /// Outer and inner VLAN tag; a single tag is the outer.
    pub tags: [VlanTag; 2],
    /// Largest IP packet that goes there, in bytes; 0 where no route lookup has said.
    pub mtu: u32,
}
wire_struct!(NextHop, 28);

impl NextHop {
    /// The MAC address that frames are sent to.
    pub fn destination_mac(&self) -> [u8; 6] {
        self.mac(0)
    }

    /// The MAC address that frames are sent from.
    pub fn source_mac(&self) -> [u8; 6] {
        self.mac(6)
    }

    fn mac(&self, at: usize) -> [u8; 6] {
        core::array::from_fn(|i| self.ethernet[(at + i) / 4].to_ne_bytes()[(at + i) % 4])
    }
}

/// A VLAN tag as it stands in a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanTag {
    /// Tag protocol identifier, network byte order: 0x8100 (802.1Q) or 0x88a8 (802.1ad); 0 for no tag.
    pub protocol_be: u16,
    /// Priority, drop eligible indicator and VLAN number, network byte order.
    pub control_be: u16,
}
wire_struct!(VlanTag, 4);
