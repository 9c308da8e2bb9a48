//! One look at the maps: sums since the datapath was loaded.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use sni_common::contract::{AccountKey, Direction, Edge, Flow, FlowKey, Stats};

use crate::{
    cli::{
        CliError,
        read::{self, Names, RouteNames},
        units,
        view::{
            edge::{by_edge, state},
            flow::{Pair, Pairs},
            route::Destination,
            total::{Total, Totals},
        },
    },
    datapath::{Maps, map_kind},
};

/// So many flows are compared one by one; of more, `top` shows sums only.
pub(super) const FLOWS_AT_MOST: usize = 50_000;

/// What the maps said at some moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Monotonic clock, nanoseconds.
    pub(super) at_ns: u64,
    pub(super) generation: u32,
    pub(super) flows: usize,
    pub(super) half_open: usize,
    pub(super) max_flows: u32,
    pub(super) stats: Stats,
    pub(super) edges: BTreeMap<u16, EdgeSample>,
    /// Slots of the Edges of each pool; a pool has a number for each address family and one name.
    pub(super) pools: BTreeMap<String, Vec<u16>>,
    /// By name.
    pub(super) routes: BTreeMap<String, RouteSample>,
    /// `None` where there are more than [`FLOWS_AT_MOST`].
    pub(super) single: Option<HashMap<FlowId, FlowSample>>,
}

/// An Edge's part.
#[derive(Clone, Debug)]
pub(super) struct EdgeSample {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) state: String,
    pub(super) flows: usize,
    pub(super) total: Total,
}

/// A configured name's part.
#[derive(Clone, Debug)]
pub(super) struct RouteSample {
    pub(super) destination: String,
    pub(super) total: Total,
}

/// Client and public address.
pub(super) type FlowId = (SocketAddr, SocketAddr);

/// A flow's part.
#[derive(Clone, Debug)]
pub(super) struct FlowSample {
    pub(super) edge: String,
    pub(super) way: &'static str,
    pub(super) route: Option<String>,
    pub(super) opened_ns: u64,
    pub(super) to_edge: u64,
    pub(super) to_client: u64,
}

impl Sample {
    /// Reads the maps.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn take(maps: &Maps, now_ns: fn() -> u64) -> Result<Self, CliError> {
        let names = read::names(maps)?;
        let tables = read::flows(maps)?;
        let totals = Totals::new(&read::accounts(maps)?, &tables.established);
        let flows_of = by_edge(&tables.established);
        let edge = |(slot, edge): (u16, Edge)| {
            let sample = EdgeSample {
                name: names.edge(slot),
                address: address(&edge),
                state: state(&edge),
                flows: flows_of.get(&slot).copied().unwrap_or_default(),
                total: totals.of(&AccountKey::edge(slot)),
            };
            (slot, sample)
        };
        let (flows, half_open) = (count(&tables.established), count(&tables.half_open));
        Ok(Self {
            at_ns: now_ns(),
            generation: names.generation,
            flows,
            half_open,
            max_flows: map_kind(maps.pin_path(), "FLOWS", "")?.max_entries / 2,
            stats: maps.stats()?,
            edges: read::edges(maps)?.into_iter().map(edge).collect(),
            pools: pools(maps, &names)?,
            routes: routes(maps, &names, &totals)?,
            single: (flows + half_open <= FLOWS_AT_MOST)
                .then(|| Ok::<_, CliError>(single(tables, &names, &read::route_names(maps)?)))
                .transpose()?,
        })
    }
}

fn address(edge: &Edge) -> SocketAddr {
    units::endpoint(edge.address, edge.port_be)
}

/// Each flow counts once, by the entry of its client's packets.
fn count(entries: &[(FlowKey, Flow)]) -> usize {
    let to_edge = |(_, flow): &&(FlowKey, Flow)| flow.direction == Direction::ToEdge as u8;
    entries.iter().filter(to_edge).count()
}

fn pools(maps: &Maps, names: &Names) -> Result<BTreeMap<String, Vec<u16>>, CliError> {
    let mut pools: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for (number, pool) in read::pools_of(maps, names.generation)? {
        let members = pool.members.iter().take(pool.count as usize);
        let slots = pools.entry(names.pool(number)).or_default();
        slots.extend(members.map(|member| member.edge));
    }
    Ok(pools)
}

fn routes(
    maps: &Maps,
    names: &Names,
    totals: &Totals,
) -> Result<BTreeMap<String, RouteSample>, CliError> {
    let mut found = BTreeMap::new();
    maps.for_each_route(|key, route| {
        if key.generation == names.generation {
            let sample = RouteSample {
                destination: Destination::of_route(&route, key.generation, names).to_string(),
                total: totals.of(&AccountKey::route(key.name.number(), 0)),
            };
            found.insert(key.name.to_string(), sample);
        }
        Ok(())
    })?;
    Ok(found)
}

fn single(
    tables: read::FlowTables,
    names: &Names,
    routes: &RouteNames,
) -> HashMap<FlowId, FlowSample> {
    let pairs = Pairs::new(tables);
    let sample = |pair: Pair| {
        let bytes = |entry: Option<Flow>| entry.map_or(0, |entry| entry.bytes);
        let flow = FlowSample {
            edge: names.edge(pair.edge_slot()),
            way: pair.way(),
            route: pair.entries().find_map(|entry| routes.shown(entry.route)),
            opened_ns: pair.times().0,
            to_edge: bytes(pair.to_edge),
            to_client: bytes(pair.to_client),
        };
        ((pair.client(), pair.vip()), flow)
    };
    pairs.iter().map(sample).collect()
}
