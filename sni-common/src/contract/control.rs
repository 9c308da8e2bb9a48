//! CONTROL and SETTINGS: what the whole datapath goes by.

use super::{limits::MAX_POOLS, wire_struct};

/// Slot of CONTROL: [`super::ABI_VERSION`] of whoever made the maps.
pub const CONTROL_ABI: u32 = 0;
/// Slot of CONTROL: the active generation; 0 before the first configuration, when nothing is steered.
///
/// One eight-byte slot, so that the flip is a single store: a packet sees the old or the new configuration.
pub const CONTROL_GENERATION: u32 = 1;
/// Slot of CONTROL: feature flags.
pub const CONTROL_FLAGS: u32 = 2;
/// Slot of CONTROL: the port that the agent's listener is bound to, host byte order; meaningful while LISTENERS holds it.
pub const CONTROL_LISTENER_PORT: u32 = 3;
/// Slot of CONTROL: what SYN-ACKs of the datapath announce, an [`Announced`]; 0 where the datapath answers no SYNs.
pub const CONTROL_ANNOUNCED: u32 = 4;
/// Slot of CONTROL: which of the events that only people want somebody wants now. Each wakes the agent, which costs more than the packet that it tells of.
pub const CONTROL_TELL: u32 = 5;
/// Slot of CONTROL: until when somebody captures packets, monotonic clock, nanoseconds; 0 where nobody does. Whoever captures puts it off again and again
/// ([`super::CAPTURE_LEASE_NS`]), and the datapath clears what has run out: a slot of its own, that both write as a whole.
pub const CONTROL_CAPTURE: u32 = 6;
/// Slots of CONTROL.
pub const CONTROL_SLOTS: u32 = 7;

/// Wanted: [`super::EventKind::FlowOpened`] and [`super::EventKind::FlowClosing`].
pub const TELL_FLOWS: u64 = 1;
/// Wanted: [`super::EventKind::HelloBound`].
pub const TELL_HELLOS: u64 = 1 << 1;

/// Feature flag: diagnostics of every packet of a service through aya-log.
pub const FLAG_LOG: u64 = 1;

/// Which of the two banks of SETTINGS, POOLS and MAGLEV a generation lives in.
#[inline(always)]
pub const fn bank(generation: u32) -> u32 {
    generation & 1
}

/// What applies to every packet of a generation; SETTINGS holds one per bank.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Seed of the choice of an Edge: a hash of the configuration's `seed`.
    pub seed: u64,
    /// SYNs per source, in thousandths per second; 0 sets no limit.
    pub syn_millirate: u32,
    /// SYNs that a source may send at once.
    pub syn_burst: u32,
    /// First port that the datapath may use as the gateway's own toward an Edge, host byte order.
    pub first_port: u16,
    /// How many ports from there.
    pub ports: u16,
    /// Number of prefixes in ACL; 0 spares the lookup.
    pub acl_prefixes: u32,
    /// SYNs per prefix (an IPv4 /24, an IPv6 /48), in thousandths per second; 0 sets no limit.
    pub syn_prefix_millirate: u32,
    /// SYNs that a prefix may send at once.
    pub syn_prefix_burst: u32,
    /// Connections per source that are bound and not answered by an Edge, in thousandths per second; 0 sets no limit.
    pub hello_millirate: u32,
    /// How many of them at once.
    pub hello_burst: u32,
    /// The same per prefix.
    pub hello_prefix_millirate: u32,
    /// Likewise.
    pub hello_prefix_burst: u32,
}
wire_struct!(Settings, 48);

/// What SYN-ACKs of the datapath announce, in one slot of CONTROL. The host completes a connection that the datapath has begun as if its SYN-ACK had
/// been its own, so it must be what the host would have announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Maximum segment size over IPv4, in bytes.
    pub mss_v4: u16,
    /// Likewise over IPv6.
    pub mss_v6: u16,
    /// Window scale of the agent's listener.
    pub scale: u8,
}

impl Announced {
    /// As it stands in the slot; never 0.
    pub const fn to_slot(self) -> u64 {
        self.mss_v4 as u64 | (self.mss_v6 as u64) << 16 | (self.scale as u64) << 32 | 1 << 63
    }

    /// From the slot; `None` where the datapath answers no SYNs.
    #[inline(always)]
    pub const fn from_slot(slot: u64) -> Option<Self> {
        if slot == 0 {
            return None;
        }
        Some(Self {
            mss_v4: slot as u16,
            mss_v6: (slot >> 16) as u16,
            scale: (slot >> 32) as u8,
        })
    }
}

impl super::Pool {
    /// Index of a configuration's pool `number` in POOLS, and in MAGLEV of its table with all its Edges, which lost flows are found again by.
    #[inline(always)]
    pub const fn index(generation: u32, number: u32) -> u32 {
        bank(generation) * MAX_POOLS + number
    }

    /// Index in MAGLEV of its table with the Edges only that are up, which new flows go by. The agent rewrites it in place; it may lag behind the states in
    /// EDGES for a moment.
    #[inline(always)]
    pub const fn available_index(generation: u32, number: u32) -> u32 {
        2 * MAX_POOLS + Self::index(generation, number)
    }
}
