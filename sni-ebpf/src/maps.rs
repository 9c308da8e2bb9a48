//! The datapath's maps. Keys, values and sizes are the contract's (`sni_common::contract`); the agent pins each map under its name.

use core::{cell::UnsafeCell, ffi::c_void};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_map_def, bpf_map_type::BPF_MAP_TYPE_SOCKMAP},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use sni_common::{
    contract::{
        Account, AccountKey, AclKey, BudgetKey, CONTROL_SLOTS, Capturing, Edge, Flow, FlowKey,
        HandingOff, HelloBytes, Label, LabelKey, Learned, LearnedKey, Link, Pending, Pool, Service,
        ServiceKey, Settings, SniRoute, SniRouteKey, Stats, SynSeen,
        limits::{
            CAPTURED_BYTES, DEFAULT_MAX_FLOWS, EVENTS_BYTES, FILTER_WORDS, MAX_ACCOUNTS, MAX_ACL,
            MAX_BUDGET, MAX_EDGES, MAX_HALF_OPEN, MAX_HANDING_OFF, MAX_HELLOS, MAX_LABELS,
            MAX_LINKS, MAX_PENDING, MAX_POOLS, MAX_SERVICES, MAX_SNI_LEARNED, MAX_SNI_ROUTES,
            MAX_SYNS_SEEN, MAX_TABLES,
        },
    },
    maglev,
    token_bucket::TokenBucket,
};

/// ABI version, active generation, feature flags.
#[map]
pub static CONTROL: Array<u64> = Array::with_max_entries(CONTROL_SLOTS, 0);
/// What applies to every packet, by bank.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(2, 0);
/// Endpoints that a packet of ours must go to or come from; a superset that spares everybody else the hash lookups.
#[map]
pub static FILTER: Array<u64> = Array::with_max_entries(FILTER_WORDS, 0);
/// Address and port to service.
#[map]
pub static SERVICES: HashMap<ServiceKey, Service> =
    HashMap::with_max_entries(MAX_SERVICES, BPF_F_NO_PREALLOC);
/// Members of each pool, two banks.
#[map]
pub static POOLS: Array<Pool> = Array::with_max_entries(2 * MAX_POOLS, 0);
/// Slot to Edge for each pool, two banks; then the same with the Edges that are up.
#[map]
pub static MAGLEV: Array<maglev::Table> = Array::with_max_entries(MAX_TABLES, 0);
/// Edges by slot.
#[map]
pub static EDGES: Array<Edge> = Array::with_max_entries(MAX_EDGES, 0);
/// Configured server names.
#[map]
pub static SNI_ROUTES: HashMap<SniRouteKey, SniRoute> =
    HashMap::with_max_entries(MAX_SNI_ROUTES, BPF_F_NO_PREALLOC);
/// Server names that clients asked for. A flood of names evicts entries of this map and of no other.
#[map]
pub static SNI_LEARNED: LruHashMap<LearnedKey, Learned> =
    LruHashMap::with_max_entries(MAX_SNI_LEARNED, 0);
/// The agent's listener.
#[map]
pub static LISTENERS: Sockets = Sockets::with_max_entries(1);
/// Established flows, one entry per direction. Not preallocated: memory follows the number of flows.
#[map]
pub static FLOWS: HashMap<FlowKey, Flow> =
    HashMap::with_max_entries(2 * DEFAULT_MAX_FLOWS, BPF_F_NO_PREALLOC);
/// Flows before the handshake is complete. A flood of SYNs evicts entries of this map and of no other.
#[map]
pub static HALF_OPEN: LruHashMap<FlowKey, Flow> =
    LruHashMap::with_max_entries(2 * MAX_HALF_OPEN, 0);
/// Flows of which the agent still has the sockets.
#[map]
pub static HANDING_OFF: HashMap<FlowKey, HandingOff> =
    HashMap::with_max_entries(MAX_HANDING_OFF, BPF_F_NO_PREALLOC);
/// How clients of the agent began. A flood of SYNs evicts entries of this map and of no other.
#[map]
pub static CLIENT_SYNS: LruHashMap<FlowKey, SynSeen> =
    LruHashMap::with_max_entries(MAX_SYNS_SEEN, 0);
/// How Edges answered the agent.
#[map]
pub static EDGE_SYN_ACKS: LruHashMap<FlowKey, SynSeen> =
    LruHashMap::with_max_entries(MAX_SYNS_SEEN, 0);
/// What ended flows and connections have carried.
#[map]
pub static ACCOUNTS: HashMap<AccountKey, Account> =
    HashMap::with_max_entries(MAX_ACCOUNTS, BPF_F_NO_PREALLOC);
/// Denied and allowed source prefixes.
#[map]
pub static ACL: LpmTrie<AclKey, u32> = LpmTrie::with_max_entries(MAX_ACL, BPF_F_NO_PREALLOC);
/// What sources and prefixes may still begin.
#[map]
pub static BUDGET: LruHashMap<BudgetKey, TokenBucket> = LruHashMap::with_max_entries(MAX_BUDGET, 0);
/// VLAN interfaces that a route may name.
#[map]
pub static LINKS: HashMap<u32, Link> = HashMap::with_max_entries(MAX_LINKS, BPF_F_NO_PREALLOC);
/// Counters and drop reasons, per CPU.
#[map]
pub static STATS: PerCpuArray<Stats> = PerCpuArray::with_max_entries(1, 0);
/// What the agent is told.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);
/// Which packets somebody wants to see.
#[map]
pub static CAPTURING: Array<Capturing> = Array::with_max_entries(1, 0);
/// Those packets.
#[map]
pub static CAPTURED: RingBuf = RingBuf::with_byte_size(CAPTURED_BYTES, 0);
/// Names for people; the datapath never reads it.
#[map]
pub static LABELS: HashMap<LabelKey, Label> =
    HashMap::with_max_entries(MAX_LABELS, BPF_F_NO_PREALLOC);

/// Connections that the datapath has begun by itself, until they are bound or the agent's. A flood of ClientHellos evicts entries of this map and of
/// the next one, and of no other.
#[map]
pub static PENDING: LruHashMap<FlowKey, Pending> = LruHashMap::with_max_entries(MAX_PENDING, 0);
/// The bytes of their ClientHellos.
#[map]
pub static HELLOS: LruHashMap<FlowKey, HelloBytes> = LruHashMap::with_max_entries(MAX_HELLOS, 0);

/// Reads a slot of CONTROL.
#[inline(always)]
pub fn control(slot: u32) -> u64 {
    CONTROL.get(slot).copied().unwrap_or(0)
}

/// A map of sockets. Not aya's: its values have four bytes, and those the kernel lets nobody read; of eight bytes it gives the socket's cookie,
/// by which the command line shows whether there is a listener, and which.
#[repr(transparent)]
pub struct Sockets(UnsafeCell<bpf_map_def>);

// SAFETY: the program never touches the definition; the loader puts the map in its place.
unsafe impl Sync for Sockets {}

impl Sockets {
    const fn with_max_entries(max_entries: u32) -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_SOCKMAP,
            key_size: size_of::<u32>() as u32,
            value_size: size_of::<u64>() as u32,
            max_entries,
            map_flags: 0,
            id: 0,
            pinning: 0,
        }))
    }

    /// The map, as helpers want it.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut c_void {
        self.0.get().cast()
    }
}
