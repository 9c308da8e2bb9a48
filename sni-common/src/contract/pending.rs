//! PENDING and HELLOS: connections that the datapath has begun by itself, until an Edge has answered or the agent has them.

use super::{wire_enum, wire_struct};

/// Room for the bytes of a ClientHello: two segments of an Ethernet's size.
pub const HELLO_ROOM: usize = 3072;

/// Value of PENDING, keyed like FLOWS by the client's packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// When the entry was made; once there is an Edge, when a SYN first went there. Monotonic clock, nanoseconds.
    pub since_ns: u64,
    /// The client's initial sequence number, which the Edge sees as well; host byte order, as all numbers here.
    pub client_isn: u32,
    /// The cookie: the sequence number of the SYN-ACK that the client has acknowledged.
    pub cookie: u32,
    /// The client's timestamp value in the last segment.
    pub ts_value: u32,
    /// The timestamp of the SYN-ACK, as the client echoes it.
    pub ts_echo: u32,
    /// Window of the client's last segment, in bytes.
    pub window: u32,
    /// Bytes of the stream in HELLOS from its first one on, without a gap.
    pub received: u16,
    /// Where the bytes of a segment begin that came before its predecessor; 0 for none.
    pub ahead: u16,
    /// How many they are.
    pub ahead_length: u16,
    /// Maximum segment size that the client has announced, as well as a cookie keeps it.
    pub mss: u16,
    /// Bits of [`client_options`].
    pub options: u8,
    /// Window scale that the client has announced.
    pub scale: u8,
    /// A [`Stage`].
    pub stage: u8,
    /// Edges that were sent a SYN.
    pub tries: u8,
    /// IP set number.
    pub ip_set: u32,
    /// Pool number within the active generation, once there is one.
    pub pool: u32,
    /// Window scale that the client was announced.
    pub own_scale: u8,
    /// Zero.
    pub padding: [u8; 3],
}
wire_struct!(Pending, 56);

/// Bits of [`Pending::options`]: what the client's SYN had, as its echo of the SYN-ACK's timestamp tells.
pub mod client_options {
    /// Timestamps.
    pub const TIMESTAMPS: u8 = 1;
    /// SACK permitted; only with timestamps, for a cookie has no other place for it.
    pub const SACK: u8 = 2;
    /// Window scale; likewise.
    pub const SCALE: u8 = 4;
    /// The options came in Linux' order: see [`super::super::SynSeen::LINUX`].
    pub const LINUX: u8 = 8;
}

wire_enum! {
    /// How far a pending connection has come.
    pub enum Stage: u8 {
        /// The client has acknowledged a cookie, and a ClientHello is awaited.
        Acknowledged = 1, "acknowledged";
        /// A part of a ClientHello has come.
        Hello = 2, "hello";
        /// A SYN is on its way to an Edge; both directions are in HALF_OPEN.
        Bound = 3, "bound";
        /// The Edge has the ClientHello, perhaps; both directions are in FLOWS.
        Delivered = 4, "delivered";
        /// It is the agent's: the host completes it, once it has the stream's first segment.
        Agent = 5, "agent";
        /// Likewise, and the host has that segment.
        Host = 6, "host";
    }
}

/// Value of HELLOS, keyed like PENDING: the first bytes of the client's stream.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloBytes(pub [u8; HELLO_ROOM]);
wire_struct!(HelloBytes, 3072);

impl Default for HelloBytes {
    fn default() -> Self {
        Self([0; HELLO_ROOM])
    }
}
