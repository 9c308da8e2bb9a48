//! A partner, Edges, and a gateway with each way that a connection can go.

use std::{net::SocketAddr, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab,
    addresses::{EDGE_A, EDGE_B, GATEWAY_LAN_B, Host, SIP_TLS, VIP_1, VIP_2, VIP_3},
    gateway::{Gateway, Tuning, binary},
    output_within,
    peers::{Connection, Edge, EdgeTls, Partner, PartnerTls, StreamEdge},
    pki::{Identity, Pki},
};

use crate::TIMEOUT;

/// A way, and what leads to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    vip: Host,
    server_name: &'static str,
}

const PASSED: &str = "sip.contoso.example";
const MIRRORED_NAME: &str = "sip.tailspin.example";

/// Decided by the address.
pub(crate) const STEERED: Way = Way {
    name: "steered",
    vip: VIP_1,
    server_name: PASSED,
};
/// By its name, in the datapath.
pub(crate) const BOUND: Way = Way {
    name: "bound",
    vip: VIP_2,
    server_name: PASSED,
};
/// Kept in the agent.
pub(crate) const RELAYED: Way = Way {
    name: "relayed",
    vip: VIP_3,
    server_name: PASSED,
};
/// TLS ends in the agent, and the Edge is shown the partner's identity.
pub(crate) const MIRRORED: Way = Way {
    name: "mirrored",
    vip: VIP_2,
    server_name: MIRRORED_NAME,
};

pub(crate) const WAYS: [Way; 4] = [STEERED, BOUND, RELAYED, MIRRORED];

impl Way {
    /// IPv4 first.
    pub(crate) fn addresses(self) -> [SocketAddr; 2] {
        self.vip.sip()
    }
}

/// Where streams of bytes go, by the relay.
pub(crate) const STREAMS: &str = "sip.northwind.example";
const STREAM_PORT: u16 = SIP_TLS + 1;

pub(crate) struct Scene<'lab> {
    pub(crate) lab: &'lab Lab,
    pki: Pki,
    partner: Identity,
    own: Identity,
    _edges: [Edge; 2],
    _streams: StreamEdge,
}

impl<'lab> Scene<'lab> {
    /// Starts the Edges: the first has what is passed through, the other one takes the gateway's authority for its partners'.
    pub(crate) fn new(lab: &'lab Lab) -> Result<Self> {
        let pki = Pki::new("federation", &lab.dir())?;
        let edge = pki.server("edges", &[PASSED, "edge.hoster.example"])?;
        let text = format!("[gateway]\ninterfaces = [\"wan0\"]\n{}", identity());
        let config = lab.write_file("identity.toml", &text)?;
        let mut command = lab.gateway.command(binary()?);
        command.args(["ca", "init", "--config"]).arg(config);
        let made = output_within(command.stdin(Stdio::null()), TIMEOUT)?;
        ensure!(made.status.success(), "{made:?}");
        let passed = EdgeTls::new(&edge, &pki)?;
        let mirrored = EdgeTls::for_clients_of(&lab.dir().join("ca/mirror.pem"), &edge)?;
        Ok(Self {
            partner: pki.server("partner", &["sip.partner.example"])?,
            own: pki.server("own", &[MIRRORED_NAME])?,
            _edges: [
                Edge::start(&lab.edge_a, SIP_TLS, Some(&passed))?,
                Edge::start(&lab.edge_b, SIP_TLS, Some(&mirrored))?,
            ],
            _streams: StreamEdge::start(&lab.edge_a, STREAM_PORT)?,
            pki,
            lab,
        })
    }

    /// Everything but `[gateway]`.
    pub(crate) fn tables(&self) -> String {
        let roots = self.pki.roots().display();
        let mut text = identity();
        for (letter, host) in [("a", EDGE_A), ("b", EDGE_B)] {
            for (family, address) in ["v4", "v6"].into_iter().zip(host.sip()) {
                text += &format!(
                    "[[edge]]\nname = \"{letter}-{family}\"\naddress = \"{address}\"\n\
                     tls = {{ name = \"edge.hoster.example\", roots = \"{roots}\" }}\n\
                     health = {{ tls = true, interval = \"300ms\", fall = 2, rise = 1 }}\n"
                );
            }
            text += &format!(
                "[[pool]]\nname = \"{letter}\"\nedges = [\"{letter}-v4\", \"{letter}-v6\"]\n"
            );
        }
        text += &format!(
            "[[edge]]\nname = \"streams\"\naddress = \"{}:{STREAM_PORT}\"\n[[pool]]\nname = \"streams\"\nedges = [\"streams\"]\n",
            EDGE_A.v4
        );
        for (way, mode) in [
            (STEERED, "steer = \"a\""),
            (BOUND, "inspect = true"),
            (RELAYED, "inspect = true\nbind = false\nhand_off = false"),
        ] {
            text += &format!(
                "[[ip_set]]\nname = \"{}\"\naddresses = [\"{}\", \"{}\"]\n{mode}\n",
                way.name, way.vip.v4, way.vip.v6
            );
        }
        for (domain, pool) in [("contoso.example", "a"), ("northwind.example", "streams")] {
            text += &format!("[[domain]]\nsip_domain = \"{domain}\"\npool = \"{pool}\"\n");
        }
        text + &format!(
            "[[domain]]\nsip_domain = \"tailspin.example\"\npool = \"b\"\ncertificate = {:?}\nkey = {:?}\n\
             client_roots = \"{roots}\"\nclient_certificate = \"required\"\nidentity = \"mirror\"\n\
             [limits]\nsyn_per_source = \"100000/s\"\nhello_per_source = \"100000/s\"\n",
            self.own.chain, self.own.key
        )
    }

    /// A gateway for all of the ways; `keys` are further ones of `[gateway]`, `agent` a program in the place of `snigate`.
    pub(crate) fn gateway(
        &self,
        keys: &str,
        agent: Option<std::path::PathBuf>,
    ) -> Result<Gateway<'lab>> {
        let tuning = Tuning {
            binary: agent,
            ..Tuning::default()
        };
        Gateway::start_tuned(self.lab, tuning, keys, &self.tables())
    }

    /// An open connection that echoes.
    pub(crate) fn open(&self, way: Way, address: SocketAddr) -> Result<Connection> {
        let tls = PartnerTls::new(way.server_name, &self.partner, &self.pki, None)?;
        // A resumed session would not ask for what is to be seen.
        let tls = tls.without_resumption();
        let partner = Partner {
            namespace: &self.lab.partner,
            source: None,
            tls: Some(&tls),
            timeout: TIMEOUT,
        };
        partner
            .echo(address)
            .with_context(|| format!("{} to {address}", way.name))
    }

    /// One of these ways and each family.
    pub(crate) fn open_all(&self, ways: &[Way]) -> Result<Vec<Connection>> {
        let pairs = ways
            .iter()
            .flat_map(|way| way.addresses().map(|address| (way, address)));
        pairs
            .map(|(way, address)| self.open(*way, address))
            .collect()
    }
}

/// Open connections go on.
pub(crate) fn all_live(open: &mut [Connection]) -> Result<()> {
    for connection in open {
        connection
            .ping()
            .with_context(|| format!("{connection:?}"))?;
    }
    Ok(())
}

/// Where the revocation list of the gateway's authority is.
pub(crate) fn crl() -> (SocketAddr, &'static str) {
    (SocketAddr::new(GATEWAY_LAN_B.v4.into(), 80), "/mirror.crl")
}

fn identity() -> String {
    let (address, path) = crl();
    format!(
        "[identity]\nca = \"ca/mirror.pem\"\nkey = \"ca/mirror.key\"\ncrl_url = \"http://{}{path}\"\n",
        address.ip()
    )
}
