//! The usual flow of a row, in both address families, and the usual configuration.

use std::net::{IpAddr, SocketAddr};

use super::frame::{ACK, FIN, PSH, SYN, Tcp};
use super::rig::Port;
use super::row::Step;
use crate::addresses::{EDGE_A, EDGE_B, Host, PARTNER, SIP_TLS, VIP_1, VIP_2};
use sni_common::contract::Counter;

/// The client's initial sequence number; its SYN is the last before the numbers wrap.
pub const CLIENT_ISN: u32 = u32::MAX - 1;
/// The Edge's.
pub const EDGE_ISN: u32 = 7_000_000;
/// TCP options of a SYN: MSS 1460, SACK permitted, timestamps, window scale 7.
pub const SYN_OPTIONS: [u8; 20] = [
    2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7,
];

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Its name, for a row's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// A host's address in this family.
    #[must_use]
    pub fn of(self, host: Host) -> IpAddr {
        match self {
            Self::V4 => host.v4.into(),
            Self::V6 => host.v6.into(),
        }
    }

    /// A host's address and a port.
    #[must_use]
    pub fn socket(self, host: Host, port: u16) -> SocketAddr {
        SocketAddr::new(self.of(host), port)
    }
}

/// The addresses of a flow and the ways its packets go.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The client.
    pub client: SocketAddr,
    /// What it connects to.
    pub service: SocketAddr,
    /// As whom the Edge sees the client.
    pub source: SocketAddr,
    /// The Edge.
    pub edge: SocketAddr,
    /// Where the Edge is.
    pub lan: Port,
}

impl Path {
    /// From the partner to the first VIP and on to edge-a, which sees the partner.
    #[must_use]
    pub fn usual(family: Family) -> Self {
        let client = family.socket(PARTNER, 40_000);
        Self {
            client,
            service: family.socket(VIP_1, SIP_TLS),
            source: client,
            edge: family.socket(EDGE_A, SIP_TLS),
            lan: Port::Lan0,
        }
    }

    /// From another client, which the Edge sees as it is.
    #[must_use]
    pub fn from(self, client: SocketAddr) -> Self {
        Self {
            client,
            source: client,
            ..self
        }
    }

    /// To the second VIP.
    #[must_use]
    pub fn to_second_service(self) -> Self {
        let address = family_of(self.service).of(VIP_2);
        Self {
            service: SocketAddr::new(address, SIP_TLS),
            ..self
        }
    }

    /// To edge-b.
    #[must_use]
    pub fn to_edge_b(self) -> Self {
        self.to_edge(EDGE_B, Port::Lan1)
    }

    /// To some other Edge.
    #[must_use]
    pub fn to_edge(self, edge: Host, lan: Port) -> Self {
        Self {
            edge: family_of(self.service).socket(edge, SIP_TLS),
            lan,
            ..self
        }
    }

    /// Seen by the Edge as somebody else.
    #[must_use]
    pub fn seen_as(self, source: SocketAddr) -> Self {
        Self { source, ..self }
    }

    /// A packet of the client's, as it arrives.
    #[must_use]
    pub fn client_packet(&self) -> Tcp {
        Tcp::new(Port::Wan0.arriving(), self.client, self.service)
    }

    /// A packet of the Edge's, as it arrives.
    #[must_use]
    pub fn edge_packet(&self) -> Tcp {
        Tcp::new(self.lan.arriving(), self.edge, self.source)
    }

    /// The client's packet as the Edge gets it.
    #[must_use]
    pub fn at_edge(&self, packet: &Tcp) -> Tcp {
        packet.forwarded(self.lan.leaving(), self.source, self.edge)
    }

    /// The Edge's packet as the client gets it.
    #[must_use]
    pub fn at_client(&self, packet: &Tcp) -> Tcp {
        packet.forwarded(Port::Wan0.leaving(), self.service, self.client)
    }

    /// The client's packet, forwarded to the Edge.
    #[must_use]
    pub fn up(&self, packet: &Tcp) -> Step {
        Step::forwarded(Port::Wan0, packet, &self.at_edge(packet))
    }

    /// The Edge's packet, forwarded to the client.
    #[must_use]
    pub fn down(&self, packet: &Tcp) -> Step {
        Step::forwarded(self.lan, packet, &self.at_client(packet))
    }

    /// The client's SYN.
    #[must_use]
    pub fn syn(&self) -> Tcp {
        self.client_packet()
            .flags(SYN)
            .seq(CLIENT_ISN)
            .options(&SYN_OPTIONS)
    }

    /// The Edge's answer to it.
    #[must_use]
    pub fn syn_ack(&self) -> Tcp {
        self.edge_packet()
            .flags(SYN)
            .seq(EDGE_ISN)
            .ack(CLIENT_ISN.wrapping_add(1))
            .options(&SYN_OPTIONS)
    }

    /// The client's answer to that.
    #[must_use]
    pub fn handshake_ack(&self) -> Tcp {
        self.client_packet()
            .seq(CLIENT_ISN.wrapping_add(1))
            .ack(EDGE_ISN + 1)
    }

    /// The client's `n`th octets, after the handshake; nothing of the Edge's is acknowledged.
    #[must_use]
    pub fn client_data(&self, at: u32, data: &[u8]) -> Tcp {
        self.client_packet()
            .flags(PSH)
            .seq(CLIENT_ISN.wrapping_add(1).wrapping_add(at))
            .ack(EDGE_ISN + 1)
            .data(data)
    }

    /// The Edge's octets from `at` on, after the handshake; `acked` of the client's are acknowledged.
    #[must_use]
    pub fn edge_data(&self, at: u32, acked: u32, data: &[u8]) -> Tcp {
        self.edge_packet()
            .flags(PSH)
            .seq(EDGE_ISN + 1 + at)
            .ack(CLIENT_ISN.wrapping_add(1).wrapping_add(acked))
            .data(data)
    }

    /// The client's FIN after `sent` octets.
    #[must_use]
    pub fn client_fin(&self, sent: u32) -> Tcp {
        self.client_packet()
            .flags(FIN | ACK)
            .seq(CLIENT_ISN.wrapping_add(1).wrapping_add(sent))
            .ack(EDGE_ISN + 1)
    }

    /// The Edge's FIN after `sent` octets, when it has got `got` sequence numbers.
    #[must_use]
    pub fn edge_fin(&self, sent: u32, got: u32) -> Tcp {
        self.edge_packet()
            .flags(FIN | ACK)
            .seq(EDGE_ISN + 1 + sent)
            .ack(CLIENT_ISN.wrapping_add(1).wrapping_add(got))
    }

    /// The steps that open the flow.
    #[must_use]
    pub fn handshake(&self) -> Vec<Step> {
        vec![
            self.up(&self.syn()).counts(Counter::Steered),
            self.down(&self.syn_ack()),
            self.up(&self.handshake_ack()).counts(Counter::Opened),
        ]
    }
}

fn family_of(address: SocketAddr) -> Family {
    if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// A configuration: two Edges in a pool each, two IP sets on the two VIPs, both with edge-a; `more` is appended.
#[must_use]
pub fn configuration(more: &str) -> String {
    Configuration::default().render(more)
}

/// What varies among the configurations.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    /// `source` of the Edges.
    pub source: &'static str,
    /// Edges of the first VIP's pool.
    pub edges: &'static [(&'static str, Host)],
    /// Edges of the second VIP's pool.
    pub second: &'static [(&'static str, Host)],
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            source: "preserve",
            edges: Self::DEFAULT_EDGES,
            second: Self::DEFAULT_EDGES,
        }
    }
}

impl Configuration {
    /// The pool that most rows do with.
    pub const DEFAULT_EDGES: &'static [(&'static str, Host)] = &[("edge-a", EDGE_A)];

    /// As TOML, with `more` behind it. An Edge's IPv6 address is an Edge of its own, with a 6 after the name.
    #[must_use]
    pub fn render(&self, more: &str) -> String {
        let mut text = String::from(
            "[gateway]\ninterfaces = [\"wan0\", \"lan0\", \"lan1\"]\nseed = \"packets\"\n",
        );
        let mut edges = [self.edges, self.second].concat();
        edges.sort_by_key(|(name, _)| *name);
        edges.dedup_by_key(|(name, _)| *name);
        for (name, host) in &edges {
            for (suffix, address) in [("", host.both()[0]), ("6", host.both()[1])] {
                text += &format!(
                    "[[edge]]\nname = \"{name}{suffix}\"\naddress = \"{}\"\nsource = \"{}\"\n",
                    SocketAddr::new(address, SIP_TLS),
                    self.source
                );
            }
        }
        for (set, vip, edges) in [("1", VIP_1, self.edges), ("2", VIP_2, self.second)] {
            let names: Vec<_> = edges
                .iter()
                .flat_map(|(name, _)| [format!("\"{name}\""), format!("\"{name}6\"")])
                .collect();
            text += &format!(
                "[[pool]]\nname = \"pool-{set}\"\nedges = [{}]\n\
                 [[ip_set]]\nname = \"set-{set}\"\naddresses = [\"{}\", \"{}\"]\nsteer = \"pool-{set}\"\n",
                names.join(", "),
                vip.v4,
                vip.v6
            );
        }
        text + more
    }
}
