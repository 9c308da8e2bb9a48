//! Two Edges and a partner: which Edge a connection has really reached.

use std::{
    cell::RefCell,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use snigate_tests::{
    Lab,
    addresses::{EDGE_A, EDGE_B, Host, SIP_TLS, at},
    deadline::Deadline,
    peers::{Connection, Edge, EdgeTls, Partner, PartnerTls, Report},
    pki::{Identity, Pki},
};

use crate::{TIMEOUT, both, tcp};

/// An address that the host does not have by itself.
pub(crate) const OTHER: Host = Host {
    v4: Ipv4Addr::new(198, 51, 100, 30),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x30),
};
/// Another one.
pub(crate) const NEXT: Host = Host {
    v4: Ipv4Addr::new(198, 51, 100, 31),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x31),
};

/// The mode of an IP set whose connections the agent takes.
pub(crate) const INSPECT: &str = "inspect = true\nbind = false";

/// Likewise, and they stay the agent's.
pub(crate) const RELAY: &str = "inspect = true\nhand_off = false";

/// A domain that is passed through by its default name.
pub(crate) fn domain(sip_domain: &str, pool: &str) -> String {
    format!("[[domain]]\nsip_domain = \"{sip_domain}\"\npool = \"{pool}\"\n")
}

/// An IP set on the addresses of a host; `mode` is the rest of it.
pub(crate) fn ip_set(name: &str, host: Host, mode: &str) -> String {
    format!(
        "[[ip_set]]\nname = \"{name}\"\naddresses = [\"{}\", \"{}\"]\n{mode}\n",
        host.v4, host.v6
    )
}

/// How long one Edge is asked before the other one.
const TURN: Duration = Duration::from_millis(10);

/// The names that both Edges' certificates carry: whichever Edge is reached, its handshake goes well.
pub(crate) const NAMES: [&str; 6] = [
    "sip.contoso.example",
    "sip.fabrikam.example",
    "sip.adatum.example",
    "*.voip.adatum.example",
    "*.litware.example",
    "edge.hoster.example",
];

/// Both Edges in their namespaces, and a partner with a certificate.
pub(crate) struct Federation<'lab> {
    lab: &'lab Lab,
    pub(crate) pki: Pki,
    pub(crate) partner: Identity,
    edges: [Edge; 2],
    /// Connections that have ended and were not asked for yet.
    ended: RefCell<Vec<Report>>,
}

impl<'lab> Federation<'lab> {
    /// Edges that require their clients to have a certificate of the same authority.
    pub(crate) fn new(lab: &'lab Lab) -> Result<Self> {
        let pki = Pki::new("federation", &lab.dir())?;
        let tls = EdgeTls::new(&pki.server("edges", &NAMES)?, &pki)?;
        let edges = [
            Edge::start(&lab.edge_a, SIP_TLS, Some(&tls))?,
            Edge::start(&lab.edge_b, SIP_TLS, Some(&tls))?,
        ];
        Ok(Self {
            lab,
            partner: pki.server("partner", &["sip.partner.example"])?,
            pki,
            edges,
            ended: RefCell::default(),
        })
    }

    /// Two pools, each with one of the Edges in both families, and how the gateway speaks TLS with them.
    pub(crate) fn pools(&self) -> Result<String> {
        let gateway = self.pki.server("gateway", &["gateway.hoster.example"])?;
        let mut text = format!(
            "[identity]\ngateway_certificate = {:?}\ngateway_key = {:?}\n",
            gateway.chain, gateway.key
        );
        for (letter, edge) in [("a", EDGE_A), ("b", EDGE_B)] {
            for (family, address) in ["v4", "v6"].into_iter().zip(both(edge)) {
                text += &format!(
                    "[[edge]]\nname = \"edge-{letter}-{family}\"\naddress = \"{address}\"\ntls = {{ name = \"edge.hoster.example\", roots = {:?} }}\n",
                    self.pki.roots()
                );
            }
            text += &format!(
                "[[pool]]\nname = \"edges-{letter}\"\nedges = [\"edge-{letter}-v4\", \"edge-{letter}-v6\"]\n"
            );
        }
        Ok(text)
    }

    /// A domain whose TLS ends at the gateway, with a certificate that only the gateway has.
    pub(crate) fn terminated(&self, sip_domain: &str, pool: &str) -> Result<String> {
        let name = format!("sip.{sip_domain}");
        let identity = self.pki.server(sip_domain, &[&name])?;
        Ok(format!(
            "{}certificate = {:?}\nkey = {:?}\nclient_roots = {:?}\nclient_certificate = \"required\"\nidentity = \"gateway\"\n",
            domain(sip_domain, pool),
            identity.chain,
            identity.key,
            self.pki.roots()
        ))
    }

    /// TLS with this server name, verified.
    pub(crate) fn tls(&self, name: &str) -> Result<PartnerTls> {
        PartnerTls::new(name, &self.partner, &self.pki, None)
    }

    /// An open connection that echoes.
    pub(crate) fn open(&self, name: &str, address: SocketAddr) -> Result<Connection> {
        let tls = self.tls(name)?;
        let partner = Partner {
            tls: Some(&tls),
            ..tcp(self.lab)
        };
        partner.echo(address)
    }

    /// Two open connections: one that is passed through, and one that is terminated.
    pub(crate) fn held(&self, host: Host) -> Result<[Connection; 2]> {
        Ok([
            self.open("sip.contoso.example", at(host.v4.into()))?,
            self.open("sip.tailspin.example", at(host.v6.into()))?,
        ])
    }

    /// Where a connection with this server name ends up: the Edge's own address.
    pub(crate) fn reach(&self, name: &str, address: SocketAddr) -> Result<SocketAddr> {
        self.close(self.open(name, address)?)
    }

    /// Closes a connection after a last echo; the address of the Edge that it was to. Only for Edges that see the partner's address.
    pub(crate) fn close(&self, mut connection: Connection) -> Result<SocketAddr> {
        connection.ping()?;
        let local = connection.local();
        connection.close()?;
        self.edge_of(local)
    }

    /// The Edge that had a connection from this end.
    pub(crate) fn edge_of(&self, client: SocketAddr) -> Result<SocketAddr> {
        let what = format!("an Edge to have had a connection of {client}");
        Deadline::after(TIMEOUT).poll(&what, || {
            let mut ended = self.ended.borrow_mut();
            for edge in &self.edges {
                ended.extend(edge.report(TURN).ok());
            }
            let found = ended.iter().position(|report| report.peer == client);
            Ok(found.map(|found| ended.swap_remove(found).local))
        })
    }
}
