//! The flow tables as a row reads them: both entries of a flow together, and coherent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{Direction, Flow, FlowKey};

use super::rig::Port;
use super::scene::Scene;

/// Both tables of flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows {
    /// FLOWS.
    pub established: Vec<FlowState>,
    /// HALF_OPEN.
    pub half_open: Vec<FlowState>,
}

/// A flow, from both of its entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowState {
    /// The client.
    pub client: SocketAddr,
    /// What it connected to.
    pub service: SocketAddr,
    /// As whom the Edge sees the client.
    pub source: SocketAddr,
    /// The Edge.
    pub edge: SocketAddr,
    /// From the client to the Edge.
    pub to_edge: Leg,
    /// From the Edge to the client.
    pub to_client: Leg,
}

/// One direction's account and state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leg {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP headers included.
    pub bytes: u64,
    /// Bits of [`sni_common::tcp::state`].
    pub state: u8,
    /// The next sequence number.
    pub next_seq: u32,
    /// The last acknowledgement.
    pub last_ack: u32,
}

fn leg(entry: &Flow) -> Leg {
    Leg {
        packets: entry.packets,
        bytes: entry.bytes,
        state: entry.state,
        next_seq: entry.next_seq,
        last_ack: entry.last_ack,
    }
}

fn source(key: &FlowKey) -> SocketAddr {
    SocketAddr::new(IpAddr::from(key.source), u16::from_be(key.source_port_be))
}

fn destination(key: &FlowKey) -> SocketAddr {
    SocketAddr::new(
        IpAddr::from(key.destination),
        u16::from_be(key.destination_port_be),
    )
}

impl Scene<'_> {
    /// The flows in both tables, after checking that they are coherent.
    ///
    /// # Errors
    /// The tables can't be read, or contradict themselves.
    pub fn flows(&self) -> Result<Flows> {
        let established = self.maps().all_flows()?;
        let half_open = self.maps().all_half_open()?;
        Ok(Flows {
            established: self.pairs(&established).context("in FLOWS")?,
            half_open: self.pairs(&half_open).context("in HALF_OPEN")?,
        })
    }

    fn pairs(&self, entries: &[(FlowKey, Flow)]) -> Result<Vec<FlowState>> {
        let by_key: BTreeMap<FlowKey, Flow> = entries.iter().copied().collect();
        let mut flows = Vec::new();
        for (key, entry) in &by_key {
            self.check_next_hop(entry)?;
            let reverse = entry.rewrite.reversed();
            let other = by_key
                .get(&reverse)
                .with_context(|| format!("an entry without its other direction: {entry:?}"))?;
            ensure!(
                other.rewrite.reversed() == *key
                    && other.edge == entry.edge
                    && other.direction != entry.direction,
                "two entries that do not belong together: {entry:?} and {other:?}"
            );
            if entry.direction != Direction::ToEdge as u8 {
                continue;
            }
            let edge = self.maps().edges.get(&entry.edge.into(), 0)?;
            ensure!(
                edge.address == entry.rewrite.destination
                    && edge.port_be == entry.rewrite.destination_port_be,
                "a flow to something else than its Edge: {entry:?}"
            );
            flows.push(FlowState {
                client: source(key),
                service: destination(key),
                source: source(&entry.rewrite),
                edge: destination(&entry.rewrite),
                to_edge: leg(entry),
                to_client: leg(other),
            });
        }
        flows.sort();
        Ok(flows)
    }

    /// The interface of a next hop can't be seen in a test run's result; its MAC address can, and here is that they belong together.
    fn check_next_hop(&self, entry: &Flow) -> Result<()> {
        // Without an MTU it is the last hop of the client's own frames, whose addresses are anybody's.
        if entry.next_hop.ifindex == 0 || entry.next_hop.mtu == 0 {
            return Ok(());
        }
        let port = Port::ALL
            .into_iter()
            .find(|port| self.rig().index(*port) == entry.next_hop.ifindex)
            .with_context(|| format!("a next hop by no interface of ours: {entry:?}"))?;
        ensure!(
            port.mac() == entry.next_hop.source_mac(),
            "a next hop by {} with another interface's address: {entry:?}",
            port.name()
        );
        Ok(())
    }
}

/// The key of packets between two addresses.
#[must_use]
pub fn key(source: SocketAddr, destination: SocketAddr) -> FlowKey {
    FlowKey {
        source: source.ip().into(),
        destination: destination.ip().into(),
        source_port_be: source.port().to_be(),
        destination_port_be: destination.port().to_be(),
    }
}
