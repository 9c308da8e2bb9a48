//! Two Edges, a partner, and a gateway with an address for each way that a connection can go.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use snigate_tests::{
    Lab, Topology,
    addresses::{EDGE_A, EDGE_B, SIP_TLS, VIP_1, VIP_2, VIP_3, at},
    gateway::Gateway,
    peers::{Connection, Edge, EdgeTls, Partner, PartnerTls},
    pki::{Identity, Pki},
};

use crate::TIMEOUT;

/// A way, and what leads to it.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) server_name: &'static str,
    /// The Edge that has the connections.
    pub(crate) edge: &'static str,
    /// What decides about them.
    pub(crate) route: &'static str,
}

const PASSED: &str = "sip.contoso.example";
const TERMINATED: &str = "sip.tailspin.example";

const fn way(
    name: &'static str,
    address: Ipv4Addr,
    server_name: &'static str,
    edge: &'static str,
    route: &'static str,
) -> Way {
    let address = SocketAddr::new(std::net::IpAddr::V4(address), SIP_TLS);
    Way {
        name,
        address,
        server_name,
        edge,
        route,
    }
}

pub(crate) const STEERED: Way = way("steered", VIP_1.v4, PASSED, "edge-a", "address");
pub(crate) const BOUND: Way = way("bound", VIP_2.v4, PASSED, "edge-b", "name");
pub(crate) const HANDED_OFF: Way = way("handed-off", VIP_3.v4, PASSED, "edge-b", "name");
/// Kept in the relay, by an IP set whose default decides.
pub(crate) const RELAYED: Way = way(
    "relayed",
    Ipv4Addr::new(198, 51, 100, 40),
    "sip.fabrikam.example",
    "edge-b",
    "default",
);
pub(crate) const OWN: Way = way("terminated", VIP_2.v4, TERMINATED, "edge-b", "name");

pub(crate) const WAYS: [&Way; 5] = [&STEERED, &BOUND, &HANDED_OFF, &RELAYED, &OWN];

/// Nothing is captured: these tests are about numbers.
pub(crate) fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

pub(crate) struct Scene<'lab> {
    lab: &'lab Lab,
    pki: Pki,
    partner: Identity,
    own: Identity,
    gateway: Identity,
    _edges: [Edge; 2],
}

impl<'lab> Scene<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Result<Self> {
        let pki = Pki::new("federation", &lab.dir())?;
        let names = [PASSED, "sip.fabrikam.example", "edge.hoster.example"];
        let tls = EdgeTls::new(&pki.server("edges", &names)?, &pki)?;
        Ok(Self {
            partner: pki.server("partner", &["sip.partner.example"])?,
            own: pki.server("own", &[TERMINATED])?,
            gateway: pki.server("gateway", &["gateway.hoster.example"])?,
            _edges: [
                Edge::start(&lab.edge_a, SIP_TLS, Some(&tls))?,
                Edge::start(&lab.edge_b, SIP_TLS, Some(&tls))?,
            ],
            pki,
            lab,
        })
    }

    /// A gateway for all of the ways; `keys` are further ones of `[gateway]`.
    pub(crate) fn gateway(&self, keys: &str) -> Result<Gateway<'lab>> {
        Gateway::start_with(self.lab, keys, &self.tables())
    }

    /// Everything but `[gateway]`.
    pub(crate) fn tables(&self) -> String {
        let roots = self.pki.roots().display();
        let mut text = format!(
            "[identity]\ngateway_certificate = {:?}\ngateway_key = {:?}\n\
             [acme]\ndirectory = \"https://192.0.2.1/directory\"\nstate = {:?}\n\
             [limits]\nsyn_per_source = \"100000/s\"\nhello_per_source = \"100000/s\"\n",
            self.gateway.chain,
            self.gateway.key,
            self.lab.dir().join("acme")
        );
        for (letter, edge) in [("a", EDGE_A), ("b", EDGE_B)] {
            text += &format!(
                "[[edge]]\nname = \"edge-{letter}\"\naddress = \"{}\"\ntls = {{ name = \"edge.hoster.example\", roots = \"{roots}\" }}\n\
                 [[pool]]\nname = \"edges-{letter}\"\nedges = [\"edge-{letter}\"]\n",
                at(edge.v4.into())
            );
        }
        for (way, mode) in [
            (&STEERED, "steer = \"edges-a\""),
            (&BOUND, "inspect = true"),
            (&HANDED_OFF, "inspect = true\nbind = false"),
            (
                &RELAYED,
                "inspect = true\nhand_off = false\ndefault = \"edges-b\"",
            ),
        ] {
            text += &format!(
                "[[ip_set]]\nname = \"{}\"\naddresses = [\"{}\"]\n{mode}\n",
                way.name,
                way.address.ip()
            );
        }
        text += &format!(
            "[[domain]]\nsip_domain = \"contoso.example\"\npool = \"edges-b\"\n\
             [[domain]]\nsip_domain = \"tailspin.example\"\npool = \"edges-b\"\ncertificate = {:?}\nkey = {:?}\n\
             client_roots = \"{roots}\"\nclient_certificate = \"required\"\nidentity = \"gateway\"\n",
            self.own.chain, self.own.key
        );
        text
    }

    /// TLS with this server name.
    pub(crate) fn tls(&self, server_name: &str) -> Result<PartnerTls> {
        PartnerTls::new(server_name, &self.partner, &self.pki, None)
    }

    /// The partner, with TLS.
    pub(crate) fn partner<'a>(&'a self, tls: &'a PartnerTls) -> Partner<'a> {
        Partner {
            namespace: &self.lab.partner,
            source: None,
            tls: Some(tls),
            timeout: TIMEOUT,
        }
    }

    /// An open connection that echoes.
    pub(crate) fn open(&self, way: &Way) -> Result<Connection> {
        self.ask(way.server_name, way.address)
    }

    /// Likewise, with any name.
    pub(crate) fn ask(&self, server_name: &str, address: SocketAddr) -> Result<Connection> {
        let tls = self.tls(server_name)?;
        self.partner(&tls).echo(address)
    }
}
