//! Flows: the two entries of each brought together.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use sni_common::{
    Address,
    contract::{Direction, Flow, FlowKey, Way},
    tcp::state,
};

use crate::cli::{
    read::{FlowTables, Names, RouteNames},
    table::{Column, Row},
    units,
};
use crate::control::CarriedConnection;

/// A flow with what is there of its two entries.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Pair {
    /// Whether the entries are in HALF_OPEN.
    pub(in crate::cli) half_open: bool,
    /// Key of the client's packets.
    pub(in crate::cli) client_key: FlowKey,
    /// Key of the Edge's packets.
    pub(in crate::cli) edge_key: FlowKey,
    /// Entry of the client's packets.
    pub(in crate::cli) to_edge: Option<Flow>,
    /// Entry of the Edge's packets.
    pub(in crate::cli) to_client: Option<Flow>,
}

impl Pair {
    /// The client.
    pub(in crate::cli) fn client(&self) -> SocketAddr {
        units::endpoint(self.client_key.source, self.client_key.source_port_be)
    }

    /// The public address that it connected to.
    pub(in crate::cli) fn vip(&self) -> SocketAddr {
        units::endpoint(
            self.client_key.destination,
            self.client_key.destination_port_be,
        )
    }

    /// Where the Edge listens.
    pub(in crate::cli) fn edge_address(&self) -> SocketAddr {
        units::endpoint(self.edge_key.source, self.edge_key.source_port_be)
    }

    /// The address that the Edge sees.
    pub(in crate::cli) fn edge_source(&self) -> SocketAddr {
        units::endpoint(self.edge_key.destination, self.edge_key.destination_port_be)
    }

    /// Slot of the Edge.
    pub(in crate::cli) fn edge_slot(&self) -> u16 {
        self.entries().next().map_or(u16::MAX, |entry| entry.edge)
    }

    /// How it came to its Edge.
    pub(in crate::cli) fn way(&self) -> &'static str {
        let way = self.entries().next().map(|entry| Way::try_from(entry.way));
        way.and_then(Result::ok).map_or("unknown", Way::name)
    }

    /// How far it has got.
    pub(in crate::cli) fn state(&self) -> FlowState {
        let (Some(to_edge), Some(to_client)) = (self.to_edge, self.to_client) else {
            return FlowState::Orphaned;
        };
        let either = to_edge.state | to_client.state;
        if either & state::RST != 0 {
            FlowState::Reset
        } else if to_edge.state & to_client.state & state::FIN != 0 {
            FlowState::Closed
        } else if either & state::FIN != 0 {
            FlowState::Closing
        } else if !self.half_open {
            FlowState::Established
        } else if either & state::RECOVERED != 0 {
            FlowState::Recovered
        } else {
            FlowState::HalfOpen
        }
    }

    /// When it was opened, and when it last carried a packet; monotonic clock, nanoseconds.
    pub(in crate::cli) fn times(&self) -> (u64, u64) {
        let opened = self.entries().map(|entry| entry.opened_ns).min();
        let last_seen = self.entries().map(|entry| entry.last_seen_ns).max();
        (opened.unwrap_or_default(), last_seen.unwrap_or_default())
    }

    /// Its entries, that of the client's packets first.
    pub(in crate::cli) fn entries(&self) -> impl Iterator<Item = &Flow> {
        self.to_edge.iter().chain(&self.to_client)
    }
}

/// How far a flow has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum FlowState {
    /// The handshake is not complete.
    HalfOpen,
    /// Found in mid-stream, sent to the Edge that steering chooses, and not yet confirmed by it.
    Recovered,
    /// Data may flow.
    Established,
    /// One side has sent its FIN.
    Closing,
    /// Both have; soon to be reaped.
    Closed,
    /// One side has sent an RST that the other must take; soon to be reaped.
    Reset,
    /// Only one of its two entries is there.
    Orphaned,
}

impl FlowState {
    /// Its name, as in JSON.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Recovered => "recovered",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Orphaned => "orphaned",
        }
    }
}

/// The flows of the tables, ordered by client and public address.
///
/// A pair is made when it is asked for: of a million flows, mostly the first few or none.
pub(in crate::cli) struct Pairs {
    /// Entries of FLOWS, then those of HALF_OPEN.
    entries: Vec<(FlowKey, Flow)>,
    /// How many are of FLOWS.
    established: usize,
    /// Places of the entries of each flow.
    flows: Vec<Places>,
}

#[derive(Clone, Copy)]
struct Places {
    to_edge: Option<u32>,
    to_client: Option<u32>,
}

impl Pairs {
    /// Brings entries together.
    pub(in crate::cli) fn new(tables: FlowTables) -> Self {
        let established = tables.established.len();
        let mut entries = tables.established;
        entries.extend(tables.half_open);
        let mut order: Vec<_> = (0..)
            .zip(&entries)
            .map(|(place, entry)| (numeric(&client_key(entry)), place))
            .collect();
        let both = |place: u32| {
            let entry = &entries[place as usize];
            (client_key(entry), edge_key(entry))
        };
        // Entries of FLOWS come first among equals.
        order.sort_unstable_by(|(client, a), (other, b)| {
            let further = || numeric(&both(*a).1).cmp(&numeric(&both(*b).1));
            client.cmp(other).then_with(further).then(a.cmp(b))
        });
        let mut flows: Vec<Places> = Vec::new();
        let mut current = None;
        for (_, place) in order {
            if current != Some(both(place)) {
                current = Some(both(place));
                flows.push(Places {
                    to_edge: None,
                    to_client: None,
                });
            }
            if let Some(flow) = flows.last_mut() {
                let direction = if is_to_client(&entries[place as usize].1) {
                    &mut flow.to_client
                } else {
                    &mut flow.to_edge
                };
                // A flow that is on its way into FLOWS right now has entries in both tables.
                direction.get_or_insert(place);
            }
        }
        Self {
            entries,
            established,
            flows,
        }
    }

    /// How many flows there are.
    pub(in crate::cli) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The flows.
    pub(in crate::cli) fn iter(&self) -> impl Iterator<Item = Pair> {
        self.flows.iter().filter_map(|places| {
            let first = places.to_edge.or(places.to_client)? as usize;
            let entry = |place: Option<u32>| place.map(|place| self.entries[place as usize].1);
            Some(Pair {
                half_open: first >= self.established,
                client_key: client_key(&self.entries[first]),
                edge_key: edge_key(&self.entries[first]),
                to_edge: entry(places.to_edge),
                to_client: entry(places.to_client),
            })
        })
    }
}

fn is_to_client(flow: &Flow) -> bool {
    flow.direction == Direction::ToClient as u8
}

fn client_key((key, flow): &(FlowKey, Flow)) -> FlowKey {
    if is_to_client(flow) {
        flow.rewrite.reversed()
    } else {
        *key
    }
}

fn edge_key((key, flow): &(FlowKey, Flow)) -> FlowKey {
    if is_to_client(flow) {
        *key
    } else {
        flow.rewrite.reversed()
    }
}

/// Orders keys as people do; their bytes are in network byte order.
fn numeric(key: &FlowKey) -> (u128, u16, u128, u16) {
    let number = |address: Address| match IpAddr::from(address) {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    };
    (
        number(key.source),
        u16::from_be(key.source_port_be),
        number(key.destination),
        u16::from_be(key.destination_port_be),
    )
}

/// A line of `flow ls`.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct FlowLine {
    pub(in crate::cli) client: SocketAddr,
    pub(in crate::cli) vip: SocketAddr,
    pub(in crate::cli) ip_set: String,
    /// The configured server name that decided; `None` where the address did.
    pub(in crate::cli) route: Option<String>,
    /// What the client has asked for, as far as the agent knows.
    pub(in crate::cli) server_name: Option<String>,
    pub(in crate::cli) edge: String,
    pub(in crate::cli) edge_slot: Option<u16>,
    pub(in crate::cli) edge_address: SocketAddr,
    /// What the Edge sees as the connection's source.
    pub(in crate::cli) edge_source: Option<SocketAddr>,
    /// steered or handed-off: the datapath; relayed or terminated: the agent.
    pub(in crate::cli) way: String,
    pub(in crate::cli) state: FlowState,
    pub(in crate::cli) age_ms: u64,
    pub(in crate::cli) idle_ms: u64,
    pub(in crate::cli) to_edge: Traffic,
    pub(in crate::cli) to_client: Traffic,
}

/// What a direction has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Traffic {
    /// `None` for a connection of the agent, which sees none.
    packets: Option<u64>,
    pub(in crate::cli) bytes: u64,
}

impl Traffic {
    fn of(entry: Option<&Flow>) -> Self {
        entry.map_or_else(Self::default, |entry| Self {
            packets: Some(entry.packets),
            bytes: entry.bytes,
        })
    }

    fn cell(self) -> String {
        let bytes = units::bytes(self.bytes);
        match self.packets {
            Some(packets) => format!("{}/{bytes}", units::count(packets)),
            None => bytes,
        }
    }
}

impl FlowLine {
    /// The line of a flow at `now_ns`.
    pub(in crate::cli) fn new(
        pair: &Pair,
        names: &Names,
        routes: &RouteNames,
        now_ns: u64,
    ) -> Self {
        let (opened, last_seen) = pair.times();
        let ip_set = pair.entries().next().map_or(u32::MAX, |entry| entry.ip_set);
        Self {
            client: pair.client(),
            vip: pair.vip(),
            ip_set: names.ip_set(ip_set),
            route: pair.entries().find_map(|entry| routes.shown(entry.route)),
            server_name: None,
            edge: names.edge(pair.edge_slot()),
            edge_slot: Some(pair.edge_slot()),
            edge_address: pair.edge_address(),
            edge_source: Some(pair.edge_source()),
            way: pair.way().to_owned(),
            state: pair.state(),
            age_ms: now_ns.saturating_sub(opened) / 1_000_000,
            idle_ms: now_ns.saturating_sub(last_seen) / 1_000_000,
            to_edge: Traffic::of(pair.to_edge.as_ref()),
            to_client: Traffic::of(pair.to_client.as_ref()),
        }
    }
}

impl FlowLine {
    /// The line of a connection that the agent carries.
    pub(in crate::cli) fn carried(
        connection: CarriedConnection,
        names: &Names,
        routes: &RouteNames,
    ) -> Self {
        let bytes = |bytes| Traffic {
            packets: None,
            bytes,
        };
        Self {
            client: connection.client,
            vip: connection.vip,
            ip_set: connection.ip_set.unwrap_or_else(|| "-".into()),
            route: routes.shown(connection.route),
            server_name: connection.server_name,
            edge_slot: names.edge_slots(&connection.edge).first().copied(),
            edge: connection.edge,
            edge_address: connection.edge_address,
            edge_source: None,
            way: connection.way,
            state: FlowState::Established,
            age_ms: connection.age_ms,
            idle_ms: connection.idle_ms,
            to_edge: bytes(connection.to_edge),
            to_client: bytes(connection.to_client),
        }
    }
}

impl Row for FlowLine {
    const COLUMNS: &'static [Column] = &[
        Column::left("CLIENT"),
        Column::left("VIP"),
        Column::wrapping("ROUTE").spare(6),
        Column::wrapping("EDGE"),
        Column::left("SEEN AS").spare(8),
        Column::left("WAY").spare(7),
        Column::left("STATE"),
        Column::right("AGE").spare(5),
        Column::right("IDLE").spare(2),
        Column::right("TO EDGE").spare(3),
        Column::right("TO CLIENT").spare(4),
    ];

    fn cells(&self) -> Vec<String> {
        let duration = |ms| units::duration(std::time::Duration::from_millis(ms));
        let seen_as = match self.edge_source {
            Some(source) if source == self.client => "the client".to_owned(),
            Some(source) => source.to_string(),
            None => "-".to_owned(),
        };
        vec![
            self.client.to_string(),
            self.vip.to_string(),
            self.route.clone().unwrap_or_else(|| self.ip_set.clone()),
            self.edge.clone(),
            seen_as,
            self.way.clone(),
            self.state.name().to_owned(),
            duration(self.age_ms),
            duration(self.idle_ms),
            self.to_edge.cell(),
            self.to_client.cell(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::made_up::{self, AT};
    use sni_common::contract::LabelKind;

    fn pair(tables: FlowTables) -> Vec<Pair> {
        Pairs::new(tables).iter().collect()
    }

    fn lines(tables: FlowTables) -> Vec<FlowLine> {
        let names = made_up::names(&[
            (LabelKind::Edge, 0, 3, "edge-a"),
            (LabelKind::IpSet, 0, 1, "one"),
        ]);
        pair(tables)
            .iter()
            .map(|pair| FlowLine::new(pair, &names, &RouteNames::default(), AT + 90_000_000_000))
            .collect()
    }

    #[test]
    fn two_entries_are_one_flow() {
        let lines = lines(made_up::flow_tables(&[("198.51.100.1:4711", 0, 0)], &[]));
        assert_eq!(
            serde_json::to_value(&lines).unwrap(),
            serde_json::json!([{
                "client": "198.51.100.1:4711",
                "vip": "198.51.100.10:5061",
                "ip_set": "one",
                "route": null,
                "server_name": null,
                "edge": "edge-a",
                "edge_slot": 3,
                "edge_address": "203.0.113.10:5061",
                "edge_source": "198.51.100.1:4711",
                "way": "steered",
                "state": "established",
                "age_ms": 90_000,
                "idle_ms": 30_000,
                "to_edge": { "packets": 12, "bytes": 3400 },
                "to_client": { "packets": 9, "bytes": 98_000 },
            }])
        );
        assert_eq!(
            lines[0].cells(),
            [
                "198.51.100.1:4711",
                "198.51.100.10:5061",
                "one",
                "edge-a",
                "the client",
                "steered",
                "established",
                "1m 30s",
                "30s",
                "12/3.4 kB",
                "9/98.0 kB",
            ]
        );
    }

    #[test]
    fn a_connection_of_the_agent_has_a_line_too() {
        let names = made_up::names(&[(LabelKind::Edge, 0, 3, "edge-a")]);
        let connection = crate::control::fake::connection();
        let line = FlowLine::carried(connection, &names, &RouteNames::default());
        assert_eq!(line.edge_slot, Some(3));
        assert_eq!(
            line.cells()[2..],
            [
                "#000000000000004d",
                "edge-a",
                "-",
                "terminated",
                "established",
                "1m 30s",
                "30s",
                "3.4 kB",
                "98.0 kB",
            ]
        );
    }

    #[test]
    fn states_are_told_from_both_entries_and_their_table() {
        let state_of = |half_open: bool, to_edge, to_client| {
            let flow = [("198.51.100.1:4711", to_edge, to_client)];
            let tables = if half_open {
                made_up::flow_tables(&[], &flow)
            } else {
                made_up::flow_tables(&flow, &[])
            };
            pair(tables)[0].state()
        };
        use super::state::{FIN, RECOVERED, RST, SYN_ACKED};
        assert_eq!(state_of(true, 0, SYN_ACKED), FlowState::HalfOpen);
        assert_eq!(state_of(true, RECOVERED, 0), FlowState::Recovered);
        // The marks of the handshake stay in the entries.
        assert_eq!(state_of(false, RECOVERED, 0), FlowState::Established);
        assert_eq!(state_of(false, 0, SYN_ACKED), FlowState::Established);
        assert_eq!(state_of(false, FIN, 0), FlowState::Closing);
        assert_eq!(state_of(false, FIN, FIN), FlowState::Closed);
        assert_eq!(state_of(false, FIN, FIN | RST), FlowState::Reset);
    }

    #[test]
    fn half_a_flow_is_shown_as_that() {
        for lost in [0, 1] {
            let mut tables = made_up::flow_tables(&[("[2001:db8:1::1]:4711", 0, 0)], &[]);
            tables.established.remove(lost);
            let pairs = pair(tables);
            assert_eq!(pairs.len(), 1);
            assert_eq!(pairs[0].state(), FlowState::Orphaned);
            assert_eq!(pairs[0].client().to_string(), "[2001:db8:1::1]:4711");
            assert_eq!(pairs[0].vip().to_string(), "[2001:db8:1::10]:5061");
            assert_eq!(pairs[0].edge_slot(), 3);
        }
    }

    #[test]
    fn a_flow_in_both_tables_is_established() {
        let flow = [("198.51.100.1:4711", 0, state::SYN_ACKED)];
        let pairs = pair(made_up::flow_tables(&flow, &flow));
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].state(), FlowState::Established);
    }

    #[test]
    fn flows_are_in_the_order_of_their_clients() {
        let flow = |client| (client, 0, 0);
        let lines = lines(made_up::flow_tables(
            &[
                flow("198.51.100.20:9"),
                flow("198.51.100.3:10"),
                flow("198.51.100.3:9"),
            ],
            &[flow("198.51.100.4:1")],
        ));
        let clients: Vec<_> = lines.iter().map(|line| line.client.to_string()).collect();
        assert_eq!(
            clients,
            [
                "198.51.100.3:9",
                "198.51.100.3:10",
                "198.51.100.4:1",
                "198.51.100.20:9"
            ]
        );
    }

    #[test]
    fn an_edge_without_a_label_is_its_slot() {
        let tables = made_up::flow_tables(&[("198.51.100.1:4711", 0, 0)], &[]);
        let line = FlowLine::new(
            &pair(tables)[0],
            &made_up::names(&[]),
            &RouteNames::default(),
            AT,
        );
        assert_eq!((line.edge.as_str(), line.ip_set.as_str()), ("#3", "#1"));
    }
}
