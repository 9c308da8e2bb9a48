//! Edges: where they are, what pools they serve, and how many flows they have.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::Serialize;
use sni_common::contract::{
    AccountKey, Direction, Edge, EdgeState, Flow, FlowKey, Pool, SourceMode,
};

use crate::{
    cli::{
        read::{Accounts, FlowTables, Names},
        table::{Column, Row},
        units,
        view::total::{Total, Totals},
    },
    control::EdgeStatus,
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
    #[serde(flatten)]
    standing: Standing,
    pools: Vec<Membership>,
    /// Established flows, those that are closing included.
    flows: usize,
    half_open: usize,
    /// Of the flows, and of all that have ended.
    total: Total,
}

/// Whether an Edge gets new connections, as the datapath has it; and what the running agent knows of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Standing {
    state: String,
    since_ms: Option<u64>,
    why: Option<String>,
    checked_ms: Option<u64>,
}

impl Standing {
    /// Of an Edge called `name`; `known` is what the agent says.
    pub(in crate::cli) fn new(name: &str, edge: &Edge, known: &[EdgeStatus]) -> Self {
        let state = state(edge);
        let address = units::endpoint(edge.address, edge.port_be);
        let is_it = |it: &&EdgeStatus| it.name == name && it.address == address;
        // The agent was asked a moment before or after the datapath: of another state it says nothing.
        let known = known.iter().find(is_it).filter(|it| it.state == state);
        Self {
            since_ms: known.map(|it| it.since_ms),
            why: known.and_then(|it| it.why.clone()),
            checked_ms: known.and_then(|it| it.checked_ms),
            state,
        }
    }

    /// Its name in the map.
    pub(in crate::cli) fn state(&self) -> &str {
        &self.state
    }

    /// A line for who wants to know why the Edge called `name` gets no new connections; none where it does.
    pub(in crate::cli) fn trouble(&self, name: &str) -> Option<TroubleLine> {
        (self.state != EdgeState::Up.name()).then(|| TroubleLine {
            name: name.to_owned(),
            standing: self.clone(),
        })
    }
}

impl From<&EdgeStatus> for Standing {
    fn from(known: &EdgeStatus) -> Self {
        Self {
            state: known.state.clone(),
            since_ms: Some(known.since_ms),
            why: known.why.clone(),
            checked_ms: known.checked_ms,
        }
    }
}

/// Why an Edge gets no new connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct TroubleLine {
    name: String,
    #[serde(flatten)]
    standing: Standing,
}

impl Row for TroubleLine {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("NOT UP"),
        Column::left("STATE"),
        Column::left("FOR"),
        Column::left("CHECKED").spare(1),
        Column::wrapping("WHY"),
    ];

    fn cells(&self) -> Vec<String> {
        let time = |ms: Option<u64>| {
            ms.map_or_else(
                || "-".to_owned(),
                |ms| units::duration(Duration::from_millis(ms)),
            )
        };
        let Standing {
            state,
            since_ms,
            why,
            checked_ms,
        } = &self.standing;
        let checked = checked_ms.map(|ms| format!("{} ago", time(Some(ms))));
        let unknown = "no agent runs that could tell";
        vec![
            self.name.clone(),
            state.clone(),
            time(*since_ms),
            checked.unwrap_or_else(|| "-".to_owned()),
            why.as_deref().unwrap_or(unknown).to_owned(),
        ]
    }
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
    known: &[EdgeStatus],
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
        standing: Standing::new(&names.edge(*slot), edge, known),
        pools: memberships(*slot, pools, names),
        flows: established.get(slot).copied().unwrap_or_default(),
        half_open: half_open.get(slot).copied().unwrap_or_default(),
        total: totals.of(&AccountKey::edge(*slot)),
    };
    edges.iter().map(line).collect()
}

impl EdgeLine {
    /// See [`Standing::trouble`].
    pub(in crate::cli) fn trouble(&self) -> Option<TroubleLine> {
        self.standing.trouble(&self.name)
    }
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
            self.standing.state.clone(),
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

        let lines = lines(&edges, &[(0, pool)], &flows, &accounts, &names, &[]);
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
        let trouble = lines[1].trouble().expect("a line").cells();
        assert_eq!(
            trouble,
            ["#4", "draining", "-", "-", "no agent runs that could tell"]
        );
        assert_eq!(lines[0].trouble(), None);
    }

    #[test]
    fn what_the_agent_knows_stands_beside_the_state() {
        let known = crate::control::fake::status().edges;
        let mut edge = made_up::edge("203.0.113.10:5061");
        assert_eq!(
            Standing::new("edge-a", &edge, &known).trouble("edge-a"),
            None
        );
        edge.state = EdgeState::Down as u8;
        let standing = Standing::new("edge-a", &edge, &known);
        assert_eq!(
            standing.trouble("edge-a").expect("a line").cells(),
            [
                "edge-a",
                "down",
                "12s",
                "700ms ago",
                "it can't be connected to: Connection refused"
            ]
        );
        // Another Edge of that name, whose flows live on.
        let moved = made_up::edge("203.0.113.11:5061");
        assert_eq!(Standing::new("edge-a", &moved, &known).since_ms, None);
    }
}
