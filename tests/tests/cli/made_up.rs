//! Flows put into the maps by hand.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use sni_common::{
    contract::{Direction, Flow, FlowKey, NextHop},
    tcp::state,
};
use sni_user::datapath::Datapath;
use snigate_tests::addresses::{EDGE_A, EDGE_B, PARTNER, SIP_TLS, VIP_1};

use crate::rig::{Commands, SECOND, monotonic_ns};

/// A flow of the partner's port through the first public address, in the words of the datapath.
struct MadeUp {
    edge: (u16, IpAddr),
    client: SocketAddr,
    vip: SocketAddr,
    seen_as: SocketAddr,
    states: (u8, u8),
}

impl MadeUp {
    fn entries(&self) -> [(FlowKey, Flow); 2] {
        let (slot, edge) = self.edge;
        let client_key = key(self.client, self.vip);
        let out = key(self.seen_as, SocketAddr::new(edge, SIP_TLS));
        let now = monotonic_ns();
        let flow = Flow {
            edge: slot,
            ip_set: 0,
            opened_ns: now.saturating_sub(150 * SECOND),
            last_seen_ns: now.saturating_sub(90 * SECOND),
            next_seq: 1000,
            last_ack: 2000,
            port_delta: 0x1234,
            next_hop: NextHop {
                ifindex: 1,
                ethernet: [0x0000_0002, 0x0002_0a00, 0x0100_0000],
                mtu: 1500,
                ..NextHop::default()
            },
            ..Flow::default()
        };
        let to_edge = Flow {
            rewrite: out,
            direction: Direction::ToEdge as u8,
            state: self.states.0,
            packets: 12,
            bytes: 3400,
            ..flow
        };
        let to_client = Flow {
            rewrite: client_key.reversed(),
            direction: Direction::ToClient as u8,
            state: self.states.1,
            packets: 9,
            bytes: 98_000,
            next_seq: 2000,
            last_ack: 1000,
            ..flow
        };
        [(client_key, to_edge), (out.reversed(), to_client)]
    }
}

fn key(source: SocketAddr, destination: SocketAddr) -> FlowKey {
    FlowKey {
        source: source.ip().into(),
        destination: destination.ip().into(),
        source_port_be: source.port().to_be(),
        destination_port_be: destination.port().to_be(),
    }
}

/// The slot of each of the configuration's Edges, by what `edge ls` says.
pub(crate) fn slots(commands: &Commands<'_>) -> Result<[u16; 3]> {
    let edges = commands.json("edge ls")?;
    let slot = |name: &str| {
        let edges = edges.as_array().context("a list")?;
        let edge = edges
            .iter()
            .find(|edge| edge["name"] == name)
            .with_context(|| format!("{name} in {edges:?}"))?;
        Ok::<_, anyhow::Error>(u16::try_from(edge["slot"].as_u64().context("a slot")?)?)
    };
    Ok([slot("edge-a")?, slot("edge-b")?, slot("edge-six")?])
}

/// An established flow, one through the gateway's own address that is closing, one half-open, and one over IPv6 that was recovered.
pub(crate) fn insert_flows(datapath: &mut Datapath, slots: [u16; 3]) -> Result<()> {
    let [edge_a, edge_b, edge_six] = slots;
    let client = |port| SocketAddr::new(PARTNER.v4.into(), port);
    let vip = SocketAddr::new(VIP_1.v4.into(), SIP_TLS);
    let a = (edge_a, EDGE_A.v4.into());
    let established = [
        MadeUp {
            edge: a,
            client: client(4001),
            vip,
            seen_as: client(4001),
            states: (0, state::SYN_ACKED),
        },
        MadeUp {
            edge: (edge_b, EDGE_B.v4.into()),
            client: client(4002),
            vip,
            seen_as: "203.0.113.129:20005".parse()?,
            states: (state::FIN, 0),
        },
    ];
    let six: SocketAddr = SocketAddr::new(PARTNER.v6.into(), 4004);
    let half_open = [
        MadeUp {
            edge: a,
            client: client(4003),
            vip,
            seen_as: client(4003),
            states: (0, 0),
        },
        MadeUp {
            edge: (edge_six, EDGE_A.v6.into()),
            client: six,
            vip: SocketAddr::new(VIP_1.v6.into(), SIP_TLS),
            seen_as: six,
            states: (state::RECOVERED, 0),
        },
    ];
    for (key, flow) in established.iter().flat_map(MadeUp::entries) {
        datapath.maps.flows.insert(key, flow, 0)?;
    }
    for (key, flow) in half_open.iter().flat_map(MadeUp::entries) {
        datapath.maps.half_open.insert(key, flow, 0)?;
    }
    Ok(())
}
