//! What has happened between two samples.

use std::{cmp::Reverse, net::SocketAddr, time::Duration};

use serde::Serialize;
use sni_common::contract::{Counter, DropReason};

use super::sample::{FLOWS_AT_MOST, FlowSample, Sample};
use crate::cli::{
    table::{Column, Row},
    units,
    view::total::Total,
};

/// A frame of `top`; its fields are those of `--json`. Rates are per second.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rates {
    pub(super) generation: u32,
    pub(super) over_ms: u64,
    pub(super) flows: usize,
    pub(super) half_open: usize,
    pub(super) max_flows: u32,
    pub(super) forwarded_packets: f64,
    pub(super) forwarded_bytes: f64,
    pub(super) connections: f64,
    pub(super) dropped: f64,
    pub(super) edges: Vec<EdgeRate>,
    pub(super) pools: Vec<PoolRate>,
    /// Those that have ever been asked for, by rate.
    pub(super) routes: Vec<RouteRate>,
    /// By rate; `None` where there are too many to look at each.
    pub(super) single: Option<Vec<FlowRate>>,
    pub(super) drops: Vec<DropRate>,
}

/// New connections and bytes, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) connections: f64,
    pub(super) to_edge: f64,
    pub(super) to_client: f64,
}

impl Rate {
    fn cells(&self) -> [String; 3] {
        [
            per_second(self.connections),
            bytes(self.to_edge),
            bytes(self.to_client),
        ]
    }

    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.to_edge += other.to_edge;
        self.to_client += other.to_client;
    }

    /// What lists are ordered by: the busiest first.
    fn order(&self) -> Reverse<u64> {
        Reverse((self.connections * 1e6 + self.to_edge + self.to_client) as u64)
    }
}

/// An Edge.
#[derive(Clone, Debug, Serialize)]
pub(super) struct EdgeRate {
    pub(super) name: String,
    address: SocketAddr,
    state: String,
    flows: usize,
    #[serde(flatten)]
    pub(super) rate: Rate,
}

/// A pool: its Edges' sums.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PoolRate {
    pub(super) name: String,
    /// Up, and all.
    up: usize,
    edges: usize,
    pub(super) flows: usize,
    #[serde(flatten)]
    rate: Rate,
}

/// A configured server name.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RouteRate {
    pub(super) name: String,
    destination: String,
    total: u64,
    #[serde(flatten)]
    rate: Rate,
}

/// A flow.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FlowRate {
    client: SocketAddr,
    vip: SocketAddr,
    edge: String,
    way: &'static str,
    route: Option<String>,
    age_ms: u64,
    to_edge: f64,
    to_client: f64,
}

/// A drop reason that has occurred.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DropRate {
    pub(super) reason: &'static str,
    packets: u64,
    pub(super) rate: f64,
    sentence: &'static str,
}

impl Rates {
    /// What has happened from `before` to `now`. Sums that went down (a datapath made anew, a flow's port used again) count as nothing.
    pub(super) fn between(before: &Sample, now: &Sample) -> Self {
        let over = Duration::from_nanos(now.at_ns.saturating_sub(before.at_ns));
        let per_second = |after: u64, before: u64| {
            after.saturating_sub(before) as f64 / over.as_secs_f64().max(f64::EPSILON)
        };
        let rate = |after: &Total, before: Option<&Total>| {
            let before = before.copied().unwrap_or_default();
            Rate {
                connections: per_second(after.connections, before.connections),
                to_edge: per_second(after.to_edge, before.to_edge),
                to_client: per_second(after.to_client, before.to_client),
            }
        };
        let counter =
            |counter| per_second(now.stats.counter(counter), before.stats.counter(counter));
        let edges = edges(before, now, &rate);
        let mut sum = Rate::default();
        for edge in &edges {
            sum.add(&edge.rate);
        }
        let drops: Vec<_> = DropReason::ALL
            .iter()
            .map(|reason| DropRate {
                reason: reason.name(),
                packets: now.stats.drops(*reason),
                rate: per_second(now.stats.drops(*reason), before.stats.drops(*reason)),
                sentence: reason.sentence(),
            })
            .filter(|line| line.packets > 0)
            .collect();
        Self {
            generation: now.generation,
            over_ms: u64::try_from(over.as_millis()).unwrap_or(u64::MAX),
            flows: now.flows,
            half_open: now.half_open,
            max_flows: now.max_flows,
            forwarded_packets: counter(Counter::Forwarded),
            forwarded_bytes: counter(Counter::ForwardedBytes),
            connections: sum.connections,
            dropped: drops.iter().map(|line| line.rate).sum(),
            pools: pools(now, &edges),
            edges,
            routes: routes(before, now, &rate),
            single: now
                .single
                .as_ref()
                .map(|_| single(before, now, &per_second)),
            drops: ordered(drops, |line| Reverse(line.rate as u64)),
        }
    }
}

fn ordered<T, K: Ord>(mut lines: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    lines.sort_by_key(key);
    lines
}

fn edges(
    before: &Sample,
    now: &Sample,
    rate: &impl Fn(&Total, Option<&Total>) -> Rate,
) -> Vec<EdgeRate> {
    let line = |(slot, edge): (&u16, &super::sample::EdgeSample)| EdgeRate {
        name: edge.name.clone(),
        address: edge.address,
        state: edge.state.clone(),
        flows: edge.flows,
        rate: rate(&edge.total, before.edges.get(slot).map(|edge| &edge.total)),
    };
    ordered(now.edges.iter().map(line).collect(), |line: &EdgeRate| {
        line.rate.order()
    })
}

/// An Edge that serves several pools counts in each.
fn pools(now: &Sample, edges: &[EdgeRate]) -> Vec<PoolRate> {
    let line = |(name, slots): (&String, &Vec<u16>)| {
        let mut pool = PoolRate {
            name: name.clone(),
            up: 0,
            edges: slots.len(),
            flows: 0,
            rate: Rate::default(),
        };
        let members = slots.iter().filter_map(|slot| now.edges.get(slot));
        for edge in members.filter_map(|member| edges.iter().find(|it| it.name == member.name)) {
            pool.up += usize::from(edge.state == "up");
            pool.flows += edge.flows;
            pool.rate.add(&edge.rate);
        }
        pool
    };
    ordered(now.pools.iter().map(line).collect(), |line: &PoolRate| {
        line.rate.order()
    })
}

fn routes(
    before: &Sample,
    now: &Sample,
    rate: &impl Fn(&Total, Option<&Total>) -> Rate,
) -> Vec<RouteRate> {
    let asked = now
        .routes
        .iter()
        .filter(|(_, route)| route.total != Total::default());
    let lines = asked.map(|(name, route)| RouteRate {
        name: name.clone(),
        destination: route.destination.clone(),
        total: route.total.connections,
        rate: rate(&route.total, before.routes.get(name).map(|it| &it.total)),
    });
    ordered(lines.collect(), |line: &RouteRate| {
        (line.rate.order(), Reverse(line.total))
    })
}

fn single(before: &Sample, now: &Sample, per_second: &impl Fn(u64, u64) -> f64) -> Vec<FlowRate> {
    let earlier = |id, opened_ns| -> Option<&FlowSample> {
        let flow = before.single.as_ref()?.get(id)?;
        // Else it is another flow with its addresses and ports.
        (flow.opened_ns == opened_ns).then_some(flow)
    };
    let flows = now.single.iter().flatten().map(|(id, flow)| {
        let was = earlier(id, flow.opened_ns).map_or((0, 0), |was| (was.to_edge, was.to_client));
        FlowRate {
            client: id.0,
            vip: id.1,
            edge: flow.edge.clone(),
            way: flow.way,
            route: flow.route.clone(),
            age_ms: now.at_ns.saturating_sub(flow.opened_ns) / 1_000_000,
            to_edge: per_second(flow.to_edge, was.0),
            to_client: per_second(flow.to_client, was.1),
        }
    });
    ordered(flows.collect(), |line: &FlowRate| {
        (
            Reverse((line.to_edge + line.to_client) as u64),
            line.age_ms,
            line.client,
        )
    })
}

/// A rate of things that are counted: whole numbers once there are several.
pub(super) fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0".into(),
        ..10.0 => format!("{rate:.1}"),
        _ => units::count(rate as u64),
    }
}

/// A rate of bytes.
pub(super) fn bytes(rate: f64) -> String {
    units::bytes(rate as u64)
}

/// Why flows are not listed.
pub(super) fn too_many() -> String {
    format!(
        "more than {} flows: `snigate flow ls` lists them, their rates are not looked at one by one",
        units::count(FLOWS_AT_MOST as u64)
    )
}

impl Row for EdgeRate {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("EDGE"),
        Column::left("ADDRESS").spare(1),
        Column::left("STATE"),
        Column::right("FLOWS"),
        Column::right("NEW/S"),
        Column::right("TO EDGE/S"),
        Column::right("TO CLIENT/S"),
    ];

    fn cells(&self) -> Vec<String> {
        let place = [
            self.name.clone(),
            self.address.to_string(),
            self.state.clone(),
            units::count(self.flows as u64),
        ];
        place.into_iter().chain(self.rate.cells()).collect()
    }
}

impl Row for PoolRate {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("POOL"),
        Column::right("EDGES UP"),
        Column::right("FLOWS"),
        Column::right("NEW/S"),
        Column::right("TO EDGE/S"),
        Column::right("TO CLIENT/S"),
    ];

    fn cells(&self) -> Vec<String> {
        let pool = [
            self.name.clone(),
            format!("{} of {}", self.up, self.edges),
            units::count(self.flows as u64),
        ];
        pool.into_iter().chain(self.rate.cells()).collect()
    }
}

impl Row for RouteRate {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("ROUTE"),
        Column::wrapping("GOES TO"),
        Column::right("TOTAL").spare(1),
        Column::right("NEW/S"),
        Column::right("TO EDGE/S"),
        Column::right("TO CLIENT/S"),
    ];

    fn cells(&self) -> Vec<String> {
        let route = [
            self.name.clone(),
            self.destination.clone(),
            units::count(self.total),
        ];
        route.into_iter().chain(self.rate.cells()).collect()
    }
}

impl Row for FlowRate {
    const COLUMNS: &'static [Column] = &[
        Column::left("CLIENT"),
        Column::wrapping("ROUTE").spare(2),
        Column::wrapping("EDGE"),
        Column::left("WAY"),
        Column::right("AGE").spare(1),
        Column::right("TO EDGE/S"),
        Column::right("TO CLIENT/S"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.client.to_string(),
            self.route.clone().unwrap_or_else(|| self.vip.to_string()),
            self.edge.clone(),
            self.way.to_owned(),
            units::duration(Duration::from_millis(self.age_ms)),
            bytes(self.to_edge),
            bytes(self.to_client),
        ]
    }
}

impl Row for DropRate {
    const COLUMNS: &'static [Column] = &[
        Column::left("DROPPED"),
        Column::right("PACKETS/S"),
        Column::right("PACKETS"),
        Column::wrapping("WHAT HAPPENED"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.reason.to_owned(),
            per_second(self.rate),
            units::count(self.packets),
            self.sentence.to_owned(),
        ]
    }
}
