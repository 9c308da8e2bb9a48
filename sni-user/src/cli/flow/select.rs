//! Which flows a command means.

use std::net::{IpAddr, SocketAddr};

use sni_common::{Address, contract::Flow, contract::FlowKey};

use crate::cli::{
    CliError,
    read::{FlowTables, Names},
    view::flow::Pair,
};
use crate::control::CarriedConnection;

/// A flow by its addresses.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Target {
    /// The client's address and port, such as 198.51.100.1:4711 or [2001:db8::1]:4711
    #[arg(value_name = "CLIENT:PORT")]
    pub(super) client: SocketAddr,
    /// The public address and port, where a client uses its port for several
    #[arg(value_name = "VIP:PORT")]
    pub(super) vip: Option<SocketAddr>,
}

impl Target {
    /// Whether this is the flow.
    pub(super) fn matches(&self, pair: &Pair) -> bool {
        pair.client() == self.client && self.vip.is_none_or(|vip| pair.vip() == vip)
    }

    /// Whether it is this connection of the agent.
    pub(super) fn is_carried(&self, connection: &CarriedConnection) -> bool {
        connection.client == self.client && self.vip.is_none_or(|vip| connection.vip == vip)
    }

    /// That there is none.
    pub(super) fn missing(&self) -> CliError {
        CliError::NoFlow {
            client: self.client,
            vip: self.vip,
        }
    }
}

/// Leaves only entries of an Edge's flows.
pub(super) fn only_edge(
    tables: &mut FlowTables,
    name: &str,
    names: &Names,
) -> Result<(), CliError> {
    let slots = names.edge_slots(name);
    if slots.is_empty() {
        return Err(unknown_edge(name, names));
    }
    retain(tables, |_, flow| slots.contains(&flow.edge));
    Ok(())
}

/// The error for an Edge that the maps have no name of.
pub(in crate::cli) fn unknown_edge(name: &str, names: &Names) -> CliError {
    let known = match names.edges()[..] {
        [] => "the datapath knows none".into(),
        ref known => format!("the datapath knows {}", known.join(", ")),
    };
    CliError::NoEdge {
        name: name.to_owned(),
        known,
    }
}

/// Leaves only entries of a client's flows, at any of its ports or at this one.
pub(super) fn only_client(tables: &mut FlowTables, client: IpAddr, port: Option<u16>) {
    let address = Address::from(client);
    let is_client = |candidate: Address, port_be| {
        candidate == address && port.is_none_or(|port| u16::from_be(port_be) == port)
    };
    // The client is the source of its packets, and the destination of what the Edge's packets become.
    retain(tables, |key, flow| {
        is_client(key.source, key.source_port_be)
            || is_client(flow.rewrite.destination, flow.rewrite.destination_port_be)
    });
}

fn retain(tables: &mut FlowTables, keep: impl Fn(&FlowKey, &Flow) -> bool) {
    tables.established.retain(|(key, flow)| keep(key, flow));
    tables.half_open.retain(|(key, flow)| keep(key, flow));
}

/// A client, with or without a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

impl Client {
    pub(super) fn includes(self, client: SocketAddr) -> bool {
        client.ip() == self.address && self.port.is_none_or(|port| client.port() == port)
    }
}

impl std::str::FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self {
                address,
                port: None,
            });
        }
        let endpoint: SocketAddr = text.parse().map_err(|_| {
            "write an address, such as 198.51.100.1 or 2001:db8::1, with or without a port, such as [2001:db8::1]:4711".to_owned()
        })?;
        Ok(Self {
            address: endpoint.ip(),
            port: Some(endpoint.port()),
        })
    }
}
