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
}
wire_struct!(Settings, 24);

impl super::Pool {
    /// Index in POOLS and MAGLEV of a configuration's pool `number`.
    #[inline(always)]
    pub const fn index(generation: u32, number: u32) -> u32 {
        bank(generation) * MAX_POOLS + number
    }
}
