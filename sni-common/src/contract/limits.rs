//! Sizes that are part of the contract: they bound loops, arrays and maps on both sides.

/// Pools in one configuration, counting a pool with Edges of both address families twice.
pub const MAX_POOLS: u32 = 512;
/// Tables in MAGLEV: of each pool in two banks one with all its Edges, and one with those that are up.
pub const MAX_TABLES: u32 = 4 * MAX_POOLS;
/// Members of one pool; the same bound as [`crate::maglev::MAX_MEMBERS`].
pub const MAX_POOL_MEMBERS: usize = crate::maglev::MAX_MEMBERS;
/// Edge slots. An Edge keeps its slot for as long as a flow may refer to it.
pub const MAX_EDGES: u32 = 4096;
/// Services (address, port) of two configurations together.
pub const MAX_SERVICES: u32 = 131_072;
/// Prefixes of two configurations together.
pub const MAX_ACL: u32 = 131_072;
/// Flows whose handshake is not complete; two entries each.
pub const MAX_HALF_OPEN: u32 = 131_072;
/// Sources with a budget.
pub const MAX_BUDGET: u32 = 131_072;
/// VLAN interfaces on top of the gateway's interfaces.
pub const MAX_LINKS: u32 = 1024;
/// Names of things, for people who read the maps.
pub const MAX_LABELS: u32 = 16_384;
/// Bytes of the event ring.
pub const EVENTS_BYTES: u32 = 1 << 20;
/// Bytes of the ring of captured packets.
pub const CAPTURED_BYTES: u32 = 1 << 21;
/// Flows by default, two entries each; the agent sets the size from `max_flows`.
pub const DEFAULT_MAX_FLOWS: u32 = 1_000_000;
/// Server names of two configurations together.
pub const MAX_SNI_ROUTES: u32 = 262_144;
/// Server names that clients asked for, by IP set.
pub const MAX_SNI_LEARNED: u32 = 65_536;
/// Directions of flows that are being handed off at once.
pub const MAX_HANDING_OFF: u32 = 131_072;
/// SYNs of clients, and SYN-ACKs of Edges, that are remembered; each is needed until the agent has handed the connection off.
pub const MAX_SYNS_SEEN: u32 = 65_536;
/// Connections to inspected services that have shown a valid cookie and are neither bound nor the agent's yet, or whose Edge has not answered.
pub const MAX_PENDING: u32 = 65_536;
/// Of them, those with bytes of a ClientHello.
pub const MAX_HELLOS: u32 = 8192;
/// Accounts of routes, IP sets and Edges.
pub const MAX_ACCOUNTS: u32 = 262_144;
/// Words of FILTER: both sets.
pub const FILTER_WORDS: u32 = 2 * super::FILTER_BITS / 64;

const _: () = assert!(MAX_EDGES < crate::maglev::NO_EDGE as u32);
