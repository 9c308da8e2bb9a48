//! One direction of a flow with all that its entry says.

use std::net::SocketAddr;

use serde::Serialize;
use sni_common::{
    contract::{Direction, Flow, FlowKey, NextHop, VlanTag, Way},
    tcp::state,
    translate::{Translation, options},
};

use crate::cli::{
    read::{Names, RouteNames},
    table::{Column, Row},
    units,
};

/// What an entry is read with.
#[derive(Clone, Copy)]
pub(in crate::cli) struct Reading<'a> {
    /// Names of Edges and IP sets.
    pub(in crate::cli) names: &'a Names,
    /// The configured server names by number.
    pub(in crate::cli) routes: &'a RouteNames,
    /// Monotonic clock, nanoseconds.
    pub(in crate::cli) now_ns: u64,
    /// Names of interfaces.
    pub(in crate::cli) interface_name: fn(u32) -> Option<String>,
}

/// An entry of FLOWS or HALF_OPEN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Entry {
    /// Addresses of packets as they arrive.
    pub(in crate::cli) arrives: Tuple,
    /// Addresses of packets as they leave.
    pub(in crate::cli) leaves: Tuple,
    pub(in crate::cli) direction: String,
    pub(in crate::cli) edge: String,
    pub(in crate::cli) edge_slot: u16,
    pub(in crate::cli) ip_set: String,
    /// The configured server name that decided; `None` where the address did.
    pub(in crate::cli) route: Option<String>,
    pub(in crate::cli) way: String,
    pub(in crate::cli) marks: Vec<&'static str>,
    pub(in crate::cli) next_seq: u32,
    pub(in crate::cli) last_ack: u32,
    /// Change of the TCP checksum by the translation.
    pub(in crate::cli) tcp_checksum_delta: u16,
    /// Change of the IPv4 header checksum by the translation.
    pub(in crate::cli) ip_checksum_delta: u16,
    /// `None` for a flow of which only addresses and ports are changed.
    pub(in crate::cli) translation: Option<Translated>,
    /// `None` before the first packet of this direction.
    pub(in crate::cli) next_hop: Option<Hop>,
    pub(in crate::cli) age_ms: u64,
    pub(in crate::cli) idle_ms: u64,
    pub(in crate::cli) packets: u64,
    pub(in crate::cli) bytes: u64,
}

/// Source and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Tuple {
    pub(in crate::cli) source: SocketAddr,
    pub(in crate::cli) destination: SocketAddr,
}

impl Tuple {
    pub(in crate::cli) fn of(key: &FlowKey) -> Self {
        Self {
            source: units::endpoint(key.source, key.source_port_be),
            destination: units::endpoint(key.destination, key.destination_port_be),
        }
    }
}

impl std::fmt::Display for Tuple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} > {}", self.source, self.destination)
    }
}

/// What else is added to segments of a flow that was handed off or bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Translated {
    /// Added to sequence numbers, acknowledgement numbers, timestamp values and timestamp echoes, modulo 2^32.
    pub(in crate::cli) seq: u32,
    pub(in crate::cli) ack: u32,
    pub(in crate::cli) ts_value: u32,
    pub(in crate::cli) ts_echo: u32,
    /// The window scale of the sender, and the one that the receiver counts by.
    pub(in crate::cli) sender_scale: u8,
    pub(in crate::cli) receiver_scale: u8,
    /// What becomes of options.
    pub(in crate::cli) options: Vec<&'static str>,
}

impl Translated {
    fn new(translation: &Translation) -> Self {
        let bits = [
            (options::TIMESTAMPS, "timestamps"),
            (options::NO_TIMESTAMPS, "no-timestamps"),
            (options::NO_SACK, "no-sack"),
        ];
        let options = bits
            .into_iter()
            .filter(|(bit, _)| translation.options & bit != 0);
        Self {
            seq: translation.seq,
            ack: translation.ack,
            ts_value: translation.ts_value,
            ts_echo: translation.ts_echo,
            sender_scale: translation.sender_scale,
            receiver_scale: translation.receiver_scale,
            options: options.map(|(_, name)| name).collect(),
        }
    }
}

/// Where packets go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Hop {
    pub(in crate::cli) interface: Option<String>,
    pub(in crate::cli) ifindex: u32,
    pub(in crate::cli) destination_mac: String,
    pub(in crate::cli) source_mac: String,
    pub(in crate::cli) vlans: Vec<Vlan>,
    /// `None` where no route lookup has said.
    pub(in crate::cli) mtu: Option<u32>,
    /// Until the routing table is asked again; 0 where the next packet does.
    pub(in crate::cli) valid_for_ms: u64,
}

/// A VLAN tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Vlan {
    pub(in crate::cli) protocol: &'static str,
    pub(in crate::cli) id: u16,
    pub(in crate::cli) priority: u8,
}

impl Entry {
    /// Decodes an entry.
    pub(in crate::cli) fn new(key: &FlowKey, flow: &Flow, reading: Reading<'_>) -> Self {
        let ms_since = |moment: u64| reading.now_ns.saturating_sub(moment) / 1_000_000;
        Self {
            arrives: Tuple::of(key),
            leaves: Tuple::of(&flow.rewrite),
            direction: Direction::try_from(flow.direction)
                .map_or_else(|e| e.to_string(), |direction| direction.to_string()),
            edge: reading.names.edge(flow.edge),
            edge_slot: flow.edge,
            ip_set: reading.names.ip_set(flow.ip_set),
            route: reading.routes.shown(flow.route),
            way: Way::try_from(flow.way).map_or_else(|e| e.to_string(), |way| way.to_string()),
            marks: marks(flow.state),
            next_seq: flow.next_seq,
            last_ack: flow.last_ack,
            tcp_checksum_delta: flow.port_delta,
            ip_checksum_delta: flow.ip_delta,
            translation: (flow.way != Way::Steered as u8)
                .then(|| Translated::new(&flow.translation)),
            next_hop: (flow.next_hop.ifindex != 0).then(|| Hop::new(flow, reading)),
            age_ms: ms_since(flow.opened_ns),
            idle_ms: ms_since(flow.last_seen_ns),
            packets: flow.packets,
            bytes: flow.bytes,
        }
    }
}

impl Hop {
    fn new(flow: &Flow, reading: Reading<'_>) -> Self {
        let NextHop { ifindex, mtu, .. } = flow.next_hop;
        Self {
            interface: (reading.interface_name)(ifindex),
            ifindex,
            destination_mac: mac(flow.next_hop.destination_mac()),
            source_mac: mac(flow.next_hop.source_mac()),
            vlans: vlans(&flow.next_hop.tags),
            mtu: (mtu != 0).then_some(mtu),
            valid_for_ms: flow.next_hop_until_ns.saturating_sub(reading.now_ns) / 1_000_000,
        }
    }

    /// The interface's name, or its index where it has none (any longer).
    pub(in crate::cli) fn interface(&self) -> String {
        self.interface
            .clone()
            .unwrap_or_else(|| format!("interface {}", self.ifindex))
    }
}

impl std::fmt::Display for Vlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VLAN {} ({}", self.id, self.protocol)?;
        match self.priority {
            0 => write!(f, ")"),
            priority => write!(f, ", priority {priority})"),
        }
    }
}

/// The tags of a frame, the outer first.
pub(in crate::cli) fn vlans(tags: &[VlanTag; 2]) -> Vec<Vlan> {
    let present = tags.iter().filter(|tag| tag.protocol_be != 0);
    present
        .map(|tag| {
            let control = u16::from_be(tag.control_be);
            Vlan {
                protocol: match u16::from_be(tag.protocol_be) {
                    0x8100 => "802.1Q",
                    0x88a8 => "802.1ad",
                    _ => "unknown",
                },
                id: control & 0x0fff,
                priority: (control >> 13) as u8,
            }
        })
        .collect()
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn marks(state: u8) -> Vec<&'static str> {
    let bits = [
        (state::FIN, "fin"),
        (state::RST, "rst"),
        (state::SYN_ACKED, "syn-acked"),
        (state::RECOVERED, "recovered"),
        (state::HANDING_OFF, "handing-off"),
    ];
    bits.into_iter()
        .filter(|(bit, _)| state & bit != 0)
        .map(|(_, name)| name)
        .collect()
}

impl Row for Entry {
    const COLUMNS: &'static [Column] = &[
        Column::left("ARRIVES"),
        Column::left("LEAVES"),
        Column::wrapping("EDGE"),
        Column::left("DIRECTION"),
        Column::left("WAY").spare(7),
        Column::left("MARKS").spare(1),
        Column::right("NEXT SEQ").spare(4),
        Column::right("LAST ACK").spare(5),
        Column::right("PACKETS").spare(2),
        Column::right("BYTES").spare(3),
        Column::right("IDLE").spare(6),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.arrives.to_string(),
            self.leaves.to_string(),
            self.edge.clone(),
            self.direction.clone(),
            self.way.clone(),
            if self.marks.is_empty() {
                "-".into()
            } else {
                self.marks.join(" ")
            },
            self.next_seq.to_string(),
            self.last_ack.to_string(),
            units::count(self.packets),
            units::bytes(self.bytes),
            units::duration(std::time::Duration::from_millis(self.idle_ms)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::made_up::{self, AT};

    fn names_of_interfaces(ifindex: u32) -> Option<String> {
        (ifindex == 2).then(|| "lan0".into())
    }

    #[test]
    fn everything_in_an_entry_is_decoded() {
        let tables = made_up::flow_tables(&[("198.51.100.1:4711", state::FIN, 0)], &[]);
        let (key, mut flow) = tables.established[0];
        let ethernet = [2, 0, 0, 0, 0, 10, 2, 0, 0, 0, 0, 1];
        for (word, bytes) in flow
            .next_hop
            .ethernet
            .iter_mut()
            .zip(ethernet.as_chunks().0)
        {
            *word = u32::from_ne_bytes(*bytes);
        }
        flow.next_hop.ifindex = 2;
        flow.next_hop.mtu = 1400;
        flow.next_hop.tags[0] = VlanTag {
            protocol_be: 0x8100_u16.to_be(),
            control_be: 0xa064_u16.to_be(),
        };
        flow.next_hop_until_ns = AT + 62_500_000_000;
        let names = made_up::names(&[]);
        let reading = Reading {
            names: &names,
            routes: &RouteNames::default(),
            now_ns: AT + 61_000_000_000,
            interface_name: names_of_interfaces,
        };
        let entry = Entry::new(&key, &flow, reading);
        assert_eq!(
            entry.arrives.to_string(),
            "198.51.100.1:4711 > 198.51.100.10:5061"
        );
        assert_eq!(
            entry.leaves.to_string(),
            "198.51.100.1:4711 > 203.0.113.10:5061"
        );
        assert_eq!((entry.direction.as_str(), entry.idle_ms), ("to-edge", 1000));
        assert_eq!(entry.marks, ["fin"]);
        let hop = entry.next_hop.unwrap();
        assert_eq!(
            hop,
            Hop {
                interface: Some("lan0".into()),
                ifindex: 2,
                destination_mac: "02:00:00:00:00:0a".into(),
                source_mac: "02:00:00:00:00:01".into(),
                vlans: vec![Vlan {
                    protocol: "802.1Q",
                    id: 100,
                    priority: 5
                }],
                mtu: Some(1400),
                valid_for_ms: 1500,
            }
        );
        assert_eq!(hop.vlans[0].to_string(), "VLAN 100 (802.1Q, priority 5)");
    }
}
