//! Edges: where they are, what pools they serve, and how many flows they have.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;
use sni_common::contract::{
    AccountKey, Direction, Edge, EdgeState, Flow, FlowKey, Pool, SourceMode,
};

use crate::cli::{
    read::{Accounts, FlowTables, Names},
    table::{Column, Row},
    units,
    view::total::{Total, Totals},
};

/// A line of `edge ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct EdgeLine {
    name: String,
    slot: u16,
    address: SocketAddr,
    source: String,
    /// The gateway's own address toward the Edge, where that is what it sees.
    gateway: Option<IpAddr>,
    state: String,
    pools: Vec<Membership>,
    /// Established flows, those that are closing included.
    flows: usize,
    half_open: usize,
    /// Of the flows, and of all that have ended.
    total: Total,
}

/// An Edge's part in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Membership {
    pool: String,
    weight: u16,
}

/// The lines, by slot. `pools` are those of the active generation.
pub(in crate::cli) fn lines(
    edges: &[(u16, Edge)],
    pools: &[(u32, Pool)],
    flows: &FlowTables,
    accounts: &Accounts,
    names: &Names,
) -> Vec<EdgeLine> {
    let totals = Totals::new(accounts, &flows.established);
    let established = by_edge(&flows.established);
    let half_open = by_edge(&flows.half_open);
    let line = |(slot, edge): &(u16, Edge)| EdgeLine {
        name: names.edge(*slot),
        slot: *slot,
        address: units::endpoint(edge.address, edge.port_be),
        source: source(edge),
        gateway: (!edge.gateway.is_unset()).then(|| edge.gateway.into()),
        state: state(edge),
        pools: memberships(*slot, pools, names),
        flows: established.get(slot).copied().unwrap_or_default(),
        half_open: half_open.get(slot).copied().unwrap_or_default(),
        total: totals.of(&AccountKey::edge(*slot)),
    };
    edges.iter().map(line).collect()
}

/// Each flow counts once, by the entry of its client's packets.
pub(in crate::cli) fn by_edge(entries: &[(FlowKey, Flow)]) -> HashMap<u16, usize> {
    let mut counts = HashMap::new();
    for (_, flow) in entries
        .iter()
        .filter(|(_, flow)| flow.direction == Direction::ToEdge as u8)
    {
        *counts.entry(flow.edge).or_default() += 1;
    }
    counts
}

/// Whose address an Edge sees.
pub(in crate::cli) fn source(edge: &Edge) -> String {
    SourceMode::try_from(edge.source).map_or_else(|e| e.to_string(), |mode| mode.to_string())
}

/// Whether an Edge gets new flows.
pub(in crate::cli) fn state(edge: &Edge) -> String {
    EdgeState::try_from(edge.state).map_or_else(|e| e.to_string(), |state| state.to_string())
}

fn memberships(slot: u16, pools: &[(u32, Pool)], names: &Names) -> Vec<Membership> {
    let mut found = Vec::new();
    for (number, pool) in pools {
        let members = pool.members.iter().take(pool.count as usize);
        found.extend(
            members
                .filter(|member| member.edge == slot)
                .map(|member| Membership {
                    pool: names.pool(*number),
                    weight: member.weight,
                }),
        );
    }
    found
}

impl Row for EdgeLine {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("EDGE"),
        Column::left("ADDRESS"),
        Column::left("SOURCE").spare(5),
        Column::left("STATE"),
        Column::wrapping("POOLS"),
        Column::right("FLOWS"),
        Column::right("HALF-OPEN").spare(4),
        Column::right("TOTAL").spare(1),
        Column::right("TO EDGE").spare(2),
        Column::right("TO CLIENT").spare(3),
    ];

    fn cells(&self) -> Vec<String> {
        let source = match self.gateway {
            Some(address) => format!("{} {address}", self.source),
            None => self.source.clone(),
        };
        let pools: Vec<_> = self
            .pools
            .iter()
            .map(|membership| match membership.weight {
                1 => membership.pool.clone(),
                weight => format!("{} (weight {weight})", membership.pool),
            })
            .collect();
        vec![
            self.name.clone(),
            self.address.to_string(),
            source,
            self.state.clone(),
            if pools.is_empty() {
                "-".into()
            } else {
                pools.join(", ")
            },
            units::count(self.flows as u64),
            units::count(self.half_open as u64),
            units::count(self.total.connections),
            units::bytes(self.total.to_edge),
            units::bytes(self.total.to_client),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::made_up;
    use sni_common::contract::{Account, LabelKind, PoolMember};

    #[test]
    fn an_edge_with_its_pools_and_flows() {
        let names = made_up::names(&[
            (LabelKind::Edge, 0, 3, "edge-a"),
            (LabelKind::Pool, 7, 0, "edges"),
            (LabelKind::Pool, 6, 0, "of an older generation"),
        ]);
        let mut gateway_sourced = made_up::edge("203.0.113.140:5061");
        gateway_sourced.source = SourceMode::Gateway as u8;
        gateway_sourced.state = EdgeState::Draining as u8;
        gateway_sourced.gateway = "203.0.113.129".parse::<IpAddr>().unwrap().into();
        let edges = [
            (3, made_up::edge("203.0.113.10:5061")),
            (4, gateway_sourced),
        ];
        let mut pool = Pool {
            count: 1,
            family: 4,
            ..Pool::default()
        };
        pool.members[0] = PoolMember { edge: 3, weight: 2 };
        let flows = made_up::flow_tables(
            &[("198.51.100.1:1", 0, 0), ("198.51.100.1:2", 0, 0)],
            &[("198.51.100.1:3", 0, 0)],
        );

        let ended = Account {
            connections: 40,
            to_edge: 2_000_000,
            to_client: 5,
        };
        let accounts = Accounts::from([(AccountKey::edge(3), ended)]);

        let lines = lines(&edges, &[(0, pool)], &flows, &accounts, &names);
        assert_eq!(
            lines[0].cells(),
            [
                "edge-a",
                "203.0.113.10:5061",
                "preserve",
                "up",
                "edges (weight 2)",
                "2",
                "1",
                "42",
                "2.0 MB",
                "196.0 kB"
            ]
        );
        assert_eq!(
            lines[1].cells(),
            [
                "#4",
                "203.0.113.140:5061",
                "gateway 203.0.113.129",
                "draining",
                "-",
                "0",
                "0",
                "0",
                "0 B",
                "0 B"
            ]
        );
        assert_eq!(lines[1].gateway, Some("203.0.113.129".parse().unwrap()));
    }
}
