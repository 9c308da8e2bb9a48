//! Map contents for tests.

use std::net::{IpAddr, SocketAddr};

use sni_common::contract::{Direction, Edge, Flow, FlowKey, LabelKey, LabelKind};

use crate::cli::read::{FlowTables, Names};

/// When the made-up flows were opened; their last packet came a minute later.
pub(in crate::cli) const AT: u64 = 1_000_000_000_000;

/// Labels, in generation 7.
pub(in crate::cli) fn names(labels: &[(LabelKind, u32, u32, &str)]) -> Names {
    let label = |(kind, generation, number, name): &(LabelKind, u32, u32, &str)| {
        let key = LabelKey {
            kind: *kind as u32,
            generation: *generation,
            number: *number,
        };
        (key, (*name).to_owned())
    };
    Names {
        generation: 7,
        labels: labels.iter().map(label).collect(),
    }
}

/// An Edge that is up and sees the client's address.
pub(in crate::cli) fn edge(address: &str) -> Edge {
    let address: SocketAddr = address.parse().unwrap();
    Edge {
        address: address.ip().into(),
        port_be: address.port().to_be(),
        ..Edge::default()
    }
}

/// Flows of these clients, with the states of both entries, to the first public address of their family and to the Edge in slot 3.
pub(in crate::cli) fn flow_tables(
    established: &[(&str, u8, u8)],
    half_open: &[(&str, u8, u8)],
) -> FlowTables {
    FlowTables {
        established: established.iter().flat_map(entries).collect(),
        half_open: half_open.iter().flat_map(entries).collect(),
    }
}

fn entries((client, to_edge, to_client): &(&str, u8, u8)) -> [(FlowKey, Flow); 2] {
    let client: SocketAddr = client.parse().unwrap();
    let (vip, edge): (IpAddr, IpAddr) = if client.is_ipv4() {
        (
            "198.51.100.10".parse().unwrap(),
            "203.0.113.10".parse().unwrap(),
        )
    } else {
        (
            "2001:db8:1::10".parse().unwrap(),
            "2001:db8:a::10".parse().unwrap(),
        )
    };
    let key = |destination: IpAddr| FlowKey {
        source: client.ip().into(),
        destination: destination.into(),
        source_port_be: client.port().to_be(),
        destination_port_be: 5061_u16.to_be(),
    };
    let (client_key, out) = (key(vip), key(edge));
    let flow = Flow {
        edge: 3,
        ip_set: 1,
        opened_ns: AT,
        last_seen_ns: AT + 60_000_000_000,
        ..Flow::default()
    };
    let to_edge = Flow {
        rewrite: out,
        direction: Direction::ToEdge as u8,
        state: *to_edge,
        next_seq: 1000,
        last_ack: 1900,
        packets: 12,
        bytes: 3400,
        ..flow
    };
    let to_client = Flow {
        rewrite: client_key.reversed(),
        direction: Direction::ToClient as u8,
        state: *to_client,
        last_seen_ns: AT + 59_000_000_000,
        next_seq: 2000,
        last_ack: 1000,
        packets: 9,
        bytes: 98_000,
        ..flow
    };
    [(client_key, to_edge), (out.reversed(), to_client)]
}
