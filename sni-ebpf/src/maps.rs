//! The datapath's maps. Keys, values and sizes are the contract's (`sni_common::contract`); the agent pins each map under its name.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use sni_common::{
    Address,
    contract::{
        AclKey, Edge, Flow, FlowKey, Label, LabelKey, Link, Pool, Service, ServiceKey, Settings,
        Stats,
        limits::{
            DEFAULT_MAX_FLOWS, EVENTS_BYTES, FILTER_WORDS, MAX_ACL, MAX_BUDGET, MAX_EDGES,
            MAX_HALF_OPEN, MAX_LABELS, MAX_LINKS, MAX_POOLS, MAX_SERVICES,
        },
    },
    maglev,
    token_bucket::TokenBucket,
};

/// ABI version, active generation, feature flags.
#[map]
pub static CONTROL: Array<u64> = Array::with_max_entries(4, 0);
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
/// Slot to Edge for each pool, two banks.
#[map]
pub static MAGLEV: Array<maglev::Table> = Array::with_max_entries(2 * MAX_POOLS, 0);
/// Edges by slot.
#[map]
pub static EDGES: Array<Edge> = Array::with_max_entries(MAX_EDGES, 0);
/// Established flows, one entry per direction. Not preallocated: memory follows the number of flows.
#[map]
pub static FLOWS: HashMap<FlowKey, Flow> =
    HashMap::with_max_entries(2 * DEFAULT_MAX_FLOWS, BPF_F_NO_PREALLOC);
/// Flows before the handshake is complete. A flood of SYNs evicts entries of this map and of no other.
#[map]
pub static HALF_OPEN: LruHashMap<FlowKey, Flow> =
    LruHashMap::with_max_entries(2 * MAX_HALF_OPEN, 0);
/// Denied and allowed source prefixes.
#[map]
pub static ACL: LpmTrie<AclKey, u32> = LpmTrie::with_max_entries(MAX_ACL, BPF_F_NO_PREALLOC);
/// SYN budget per source.
#[map]
pub static BUDGET: LruHashMap<Address, TokenBucket> = LruHashMap::with_max_entries(MAX_BUDGET, 0);
/// VLAN interfaces that a route may name.
#[map]
pub static LINKS: HashMap<u32, Link> = HashMap::with_max_entries(MAX_LINKS, BPF_F_NO_PREALLOC);
/// Counters and drop reasons, per CPU.
#[map]
pub static STATS: PerCpuArray<Stats> = PerCpuArray::with_max_entries(1, 0);
/// What the agent is told.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);
/// Names for people; the datapath never reads it.
#[map]
pub static LABELS: HashMap<LabelKey, Label> =
    HashMap::with_max_entries(MAX_LABELS, BPF_F_NO_PREALLOC);

/// Reads a slot of CONTROL.
#[inline(always)]
pub fn control(slot: u32) -> u64 {
    CONTROL.get(slot).copied().unwrap_or(0)
}
