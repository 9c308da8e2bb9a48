//! SERVICES, POOLS, EDGES, ACL: the configuration as the datapath reads it.

use super::{limits::MAX_POOL_MEMBERS, wire_enum, wire_struct};
use crate::Address;

/// Key of SERVICES.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Configuration that the entry belongs to.
    pub generation: u32,
    /// Public address.
    pub address: Address,
    /// Port in network byte order; 0 for the entry that marks the address itself as a VIP.
    pub port_be: u16,
    /// IP protocol number; 0 in the entry that marks the address.
    pub protocol: u8,
    /// Zero.
    pub padding: u8,
}
wire_struct!(ServiceKey, 24);

impl ServiceKey {
    /// The TCP service at an address; `port_be` in network byte order.
    #[inline(always)]
    pub const fn tcp(generation: u32, address: Address, port_be: u16) -> Self {
        Self {
            generation,
            address,
            port_be,
            protocol: 6,
            padding: 0,
        }
    }

    /// The entry that says that an address is a VIP, whatever the port.
    #[inline(always)]
    pub const fn vip(generation: u32, address: Address) -> Self {
        Self {
            generation,
            address,
            port_be: 0,
            protocol: 0,
            padding: 0,
        }
    }
}

/// Value of SERVICES.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// A [`Mode`].
    pub mode: u8,
    /// Bits: [`SERVICE_BIND`].
    pub flags: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// Pool number within the generation; meaningful where the mode is [`Mode::Steer`].
    pub pool: u32,
    /// IP set number; an IP set keeps it for as long as its name.
    pub ip_set: u32,
}
wire_struct!(Service, 12);

/// Bit of a service's flags: the datapath may bind connections whose server name it knows. Only where the mode is [`Mode::Inspect`].
pub const SERVICE_BIND: u8 = 1;

wire_enum! {
    /// What decides about a connection to a service.
    pub enum Mode: u8 {
        /// The entry marks the address as a VIP and is no service.
        Vip = 0, "vip";
        /// The destination address decides, in the datapath.
        Steer = 1, "steer";
        /// The ClientHello decides.
        Inspect = 2, "inspect";
    }
}

/// Value of POOLS. The choice itself is made from the MAGLEV table of the same index.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Members in use; 0 for a pool that does not exist.
    pub count: u32,
    /// 4 or 6: all members are of one address family.
    pub family: u32,
    /// The members.
    pub members: [PoolMember; MAX_POOL_MEMBERS],
}
wire_struct!(Pool, 264);

impl Default for Pool {
    fn default() -> Self {
        Self {
            count: 0,
            family: 0,
            members: [PoolMember::default(); MAX_POOL_MEMBERS],
        }
    }
}

/// One Edge's part in a pool.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolMember {
    /// Slot in EDGES.
    pub edge: u16,
    /// Share relative to the other members.
    pub weight: u16,
}
wire_struct!(PoolMember, 4);

/// Value of EDGES.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    /// Where it listens; unset in a free slot.
    pub address: Address,
    /// The gateway's own address toward it; unset where the client's address is preserved.
    pub gateway: Address,
    /// Port in network byte order.
    pub port_be: u16,
    /// A [`SourceMode`].
    pub source: u8,
    /// An [`EdgeState`].
    pub state: u8,
    /// Until when it is taken to have no timestamps (RFC 7323), because it has answered a SYN with timestamps without them; monotonic clock, seconds. The
    /// datapath's; 0 whenever the agent writes the entry.
    pub no_timestamps_until_s: u32,
}
wire_struct!(Edge, 40);

wire_enum! {
    /// Whose address an Edge sees.
    pub enum SourceMode: u8 {
        /// The client's: the gateway is the Edge's router.
        Preserve = 0, "preserve";
        /// The gateway's own, with a port it owns.
        Gateway = 1, "gateway";
    }
}

wire_enum! {
    /// Whether an Edge gets new flows.
    pub enum EdgeState: u8 {
        /// New flows are welcome.
        Up = 0, "up";
        /// None, by an operator's command, whatever checks say. It stands here until it is taken back or the Edge leaves the configuration.
        Draining = 1, "draining";
        /// None: it does not answer, or not well.
        Down = 2, "down";
    }
}

/// Key data of ACL, matched from the front: the generation always in full, then the prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AclKey {
    /// Configuration that the entry belongs to.
    pub generation: u32,
    /// Prefix of a source address.
    pub address: Address,
}
wire_struct!(AclKey, 20);

impl AclKey {
    /// Bits of the key before the address.
    pub const GENERATION_BITS: u32 = 32;
    /// Bits of a lookup: generation and whole address.
    pub const BITS: u32 = Self::GENERATION_BITS + Address::BITS;
}

wire_enum! {
    /// Value of ACL; the longest prefix decides.
    pub enum AclAction: u32 {
        /// New flows are refused.
        Deny = 1, "deny";
        /// New flows are let in without a budget.
        Allow = 2, "allow";
    }
}

/// Key of BUDGET.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BudgetKey {
    /// Who: [`Address::source_group`] or [`Address::source_prefix`].
    pub source: Address,
    /// For what: a [`BudgetKind`].
    pub kind: u32,
}
wire_struct!(BudgetKey, 20);

wire_enum! {
    /// What a budget is for.
    pub enum BudgetKind: u32 {
        /// SYNs of a source.
        Syn = 0, "syn";
        /// SYNs of a prefix.
        SynPrefix = 1, "syn-prefix";
        /// Connections of a source that no Edge has answered.
        Hello = 2, "hello";
        /// Those of a prefix.
        HelloPrefix = 3, "hello-prefix";
    }
}
