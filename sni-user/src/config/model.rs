//! The configuration as the rest of the gateway sees it: complete, checked, every reference known to exist.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Serialize, Serializer};
use sni_common::{contract::limits, maglev};

use super::values::{
    AlpnProtocol, Balance, Challenge, ClientCertificate, Hook, HostName, IdentityMode, KeyType,
    Name, Rate, ServerName, SourceMode,
};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// What concerns the gateway itself.
    pub gateway: Gateway,
    /// The servers behind it, in the order they were defined.
    pub edges: Vec<Edge>,
    /// Edges that may stand in for each other, in the order they were defined.
    pub pools: Vec<Pool>,
    /// Public addresses and what is done with connections to them.
    pub ip_sets: Vec<IpSet>,
    /// SIP domains that are told apart by server name.
    pub domains: Vec<Domain>,
    /// What the gateway shows the Edges.
    pub identity: Identity,
    /// Where certificates of domains with `acme` come from; there when any has it.
    pub acme: Option<Acme>,
    /// Protection against floods.
    pub limits: Limits,
}

impl Config {
    /// Pools in one configuration. The datapath counts one with both address families twice.
    pub const MAX_POOLS: usize = limits::MAX_POOLS as usize / 2;
    /// Edges in one configuration.
    pub const MAX_EDGES: usize = limits::MAX_EDGES as usize;
    /// Edges in one pool.
    pub const MAX_MEMBERS: usize = limits::MAX_POOL_MEMBERS;
    /// Ports of all addresses, and the addresses themselves. The datapath holds the old and the new configuration at once.
    pub const MAX_SERVICES: usize = limits::MAX_SERVICES as usize / 2;
    /// Prefixes in `allow` and `deny` together. The datapath holds the old and the new configuration at once.
    pub const MAX_PREFIXES: usize = limits::MAX_ACL as usize / 2;

    /// The Edge that a reference of this configuration means.
    ///
    /// # Panics
    /// If the reference comes from another configuration that had more Edges.
    pub fn edge(&self, reference: &EdgeRef) -> &Edge {
        &self.edges[reference.index]
    }

    /// The pool that a reference of this configuration means.
    ///
    /// # Panics
    /// If the reference comes from another configuration that had more pools.
    pub fn pool(&self, reference: &PoolRef) -> &Pool {
        &self.pools[reference.index]
    }

    /// Adds a domain that sends one name to a pool, as if it were written; `false` where there is no such pool.
    pub fn add_route(&mut self, name: ServerName, pool: &Name) -> bool {
        let Some(index) = self.pools.iter().position(|it| it.name == *pool) else {
            return false;
        };
        self.domains.push(Domain {
            sip_domain: name.host().clone(),
            names: vec![name],
            alpn: Vec::new(),
            pool: PoolRef {
                name: pool.clone(),
                index,
            },
            terminate: None,
        });
        true
    }

    /// Whether only the agent can take connections to a pool: the datapath neither counts connections, nor writes PROXY protocol headers.
    pub fn needs_agent(&self, pool: &Pool) -> bool {
        let wants_header = |(edge, _): (&Edge, u16)| edge.proxy_protocol;
        pool.balance == Balance::LeastConnections || self.members(pool).any(wants_header)
    }

    /// A pool's Edges with their weights.
    pub fn members<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = (&'a Edge, u16)> {
        pool.members
            .iter()
            .map(|member| (self.edge(&member.edge), member.weight))
    }
}

/// `[gateway]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gateway {
    /// Network interfaces that the datapath is attached to: at least one, none twice.
    pub interfaces: Vec<String>,
    /// Where it is attached.
    pub hook: Hook,
    /// What gateways have in common so that they choose the same Edge for the same connection.
    pub seed: String,
    /// Where in a BPF file system maps, programs and links are pinned.
    pub pin_path: PathBuf,
    /// The agent's control socket.
    pub control: PathBuf,
    /// Where the agent serves its metrics.
    pub metrics: SocketAddr,
    /// Whether the kernel measures how long the datapath's programs run, which costs each run two readings of the clock.
    pub datapath_time: bool,
    /// How long a flow may be silent.
    #[serde(serialize_with = "duration")]
    pub idle_timeout: Duration,
    /// How long a client may take to send its ClientHello.
    #[serde(serialize_with = "duration")]
    pub hello_timeout: Duration,
    /// How many flows at once; further connections are refused.
    pub max_flows: u32,
    /// How many connections the agent holds at once; further ones wait in the kernel's queue until one has ended.
    pub max_connections: u32,
}

/// `[[edge]]`: a server behind the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// Its name.
    pub name: Name,
    /// Where it listens; a unicast address, no port 0.
    pub address: SocketAddr,
    /// Whose address it sees.
    pub source: SourceMode,
    /// How it is verified when the gateway has terminated TLS; without it, by the system's roots and the name that the
    /// partner asked for.
    pub tls: Option<EdgeTls>,
    /// Whether connections to it begin with a PROXY protocol v2 header that names the client. A Lync Edge does not understand it.
    pub proxy_protocol: bool,
    /// How it is checked; without it, it counts as up.
    pub health: Option<Health>,
}

impl Edge {
    /// What identifies it in Maglev's table, on every gateway alike, in the datapath and in the agent.
    pub fn maglev_identity(&self) -> u64 {
        maglev_identity(
            self.name.as_str(),
            self.address.ip(),
            self.address.port().to_be(),
        )
    }
}

/// [`Edge::maglev_identity`] of an Edge by its name and address; the port in network byte order.
pub(crate) fn maglev_identity(name: &str, address: IpAddr, port_be: u16) -> u64 {
    maglev::identity(&[
        name.as_bytes(),
        address.to_string().as_bytes(),
        &port_be.to_ne_bytes(),
    ])
}

/// How a terminated domain verifies an Edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EdgeTls {
    /// The name that its certificate must have; also the server name sent to it.
    pub name: HostName,
    /// Who may have signed it.
    pub roots: Roots,
}

/// How an Edge is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// A TLS handshake rather than only a TCP connection.
    pub tls: bool,
    /// And a SIP OPTIONS request that must be answered; only with `tls`.
    pub options: bool,
    /// From one check to the next.
    #[serde(serialize_with = "duration")]
    pub interval: Duration,
    /// Failures in a row after which it is down.
    pub fall: u8,
    /// Successes in a row after which it is up again.
    pub rise: u8,
}

/// Certificates to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The operating system's.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

impl Serialize for Roots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::System => serializer.serialize_str("system"),
            Self::File(path) => path.serialize(serializer),
        }
    }
}

/// `[[pool]]`: Edges that may stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Its name.
    pub name: Name,
    /// At least one, none twice.
    pub members: Vec<Member>,
    /// How the agent chooses among them; the datapath always takes Maglev.
    pub balance: Balance,
}

/// An Edge in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Which one.
    pub edge: EdgeRef,
    /// Its share of the connections, 1 to 256, relative to the other members'.
    pub weight: u16,
}

macro_rules! reference {
    ($($(#[$doc:meta])* $type:ident)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $type {
            pub(super) name: Name,
            pub(super) index: usize,
        }

        impl $type {
            /// The name that was written.
            pub fn name(&self) -> &Name {
                &self.name
            }

            /// Position in the configuration's list.
            pub fn index(&self) -> usize {
                self.index
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.name.serialize(serializer)
            }
        }
    )+};
}

reference! {
    /// An Edge that is known to exist; see [`Config::edge`].
    EdgeRef
    /// A pool that is known to exist; see [`Config::pool`].
    PoolRef
}

/// `[[ip_set]]`: public addresses that get one treatment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IpSet {
    /// Its name.
    pub name: Name,
    /// Unicast addresses: at least one, none twice, and no port of theirs in another IP set.
    pub addresses: Vec<IpAddr>,
    /// TCP ports: at least one, none twice, none 0.
    pub ports: Vec<u16>,
    /// What is done with connections.
    #[serde(flatten)]
    pub mode: Mode,
}

/// What an IP set does with connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Mode {
    /// All go to one pool, decided at the SYN.
    Steer {
        /// It has an Edge of every address family that the IP set has.
        pool: PoolRef,
    },
    /// The ClientHello decides.
    Inspect {
        /// For no or an unknown server name; without it they are refused.
        default: Option<PoolRef>,
        /// Whether the datapath may bind known names to Edges itself, without the agent. Only with `hand_off`, and where no load balancer is trusted.
        bind: bool,
        /// Whether a connection that was passed through may leave the agent for the datapath.
        hand_off: bool,
        /// Load balancers in front of the gateway, whose connections begin with a PROXY protocol header.
        proxy_protocol_from: Vec<IpNet>,
    },
}

/// `[[domain]]`: a SIP domain that is told by server name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// The SIP domain.
    pub sip_domain: HostName,
    /// Server names that partners ask for: at least one; in another domain only under another `alpn`.
    pub names: Vec<ServerName>,
    /// Application protocols of which the client must offer one; empty where it makes no difference.
    pub alpn: Vec<AlpnProtocol>,
    /// Where its connections go.
    pub pool: PoolRef,
    /// Present when TLS ends at the gateway; otherwise the connection is passed through.
    pub terminate: Option<Termination>,
}

/// How the gateway ends a domain's TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Termination {
    /// PEM file with the chain, the domain's own certificate first.
    pub certificate: PathBuf,
    /// PEM file with its private key; the same file where the certificate comes by ACME, so that one rename replaces both.
    pub key: PathBuf,
    /// Present where the gateway gets the certificate itself: then it may be missing for now.
    pub acme: Option<DomainAcme>,
    /// Whether partners must show a certificate.
    pub client_certificate: ClientCertificate,
    /// Who may have signed it.
    pub client_roots: Roots,
    /// PEM files with revocation lists that it must not be on.
    pub client_crls: Vec<PathBuf>,
    /// What the Edge is shown.
    pub identity: IdentityMode,
}

/// How a domain's certificate comes by ACME.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DomainAcme {
    /// How the domain is proven to the authority.
    pub challenge: Challenge,
    /// The certificate's key.
    pub key_type: KeyType,
}

/// `[acme]`: the authority that certificates of domains with `acme` come from (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Acme {
    /// URL of the authority's directory; https.
    pub directory: String,
    /// Whom the authority writes to, as URLs such as `mailto:…`.
    pub contact: Vec<String>,
    /// PEM file with the account's private key; made if it is not there.
    pub account_key: PathBuf,
    /// Directory of what is kept: certificates, orders, when to try again.
    pub state: PathBuf,
    /// Directory of the tokens that port 80 answers; gateways that answer for each other share it.
    pub tokens: PathBuf,
    /// Who has signed the certificate of the authority's own server.
    pub roots: Roots,
    /// How domains are proven that don't say it themselves.
    pub challenge: Challenge,
    /// The keys of certificates of domains that don't say it themselves.
    pub key_type: KeyType,
    /// Program that sets and removes TXT records; there when any domain is proven by DNS-01.
    pub dns_hook: Option<PathBuf>,
    /// Program that hands tokens to other gateways.
    pub http_hook: Option<PathBuf>,
    /// How long before its end a certificate is renewed; without it, for the last third of its life.
    #[serde(serialize_with = "optional_duration")]
    pub renew_before: Option<Duration>,
}

impl Acme {
    /// Where everything is kept unless something else is said.
    pub const DEFAULT_STATE: &str = "/var/lib/snigate/acme";

    /// The file with the certificate and the key of a SIP domain.
    pub fn certificate_file(&self, sip_domain: &HostName) -> PathBuf {
        self.state.join("certs").join(format!("{sip_domain}.pem"))
    }
}

/// `[identity]`: what the gateway shows the Edges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Signs mirrored certificates; there when any domain mirrors.
    pub mirror: Option<MirrorCa>,
    /// The gateway's own client certificate; there when any domain uses it.
    pub gateway: Option<GatewayCertificate>,
}

/// The private CA behind mirrored certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MirrorCa {
    /// PEM file with its certificate.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// Where Edges fetch its revocation list; served by the agent.
    pub crl_url: Option<String>,
}

/// The gateway's own client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayCertificate {
    /// PEM file with the chain.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// `[limits]`: protection against floods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// New connections from one source address.
    pub syn_per_source: Rate,
    /// New connections from one IPv4 /24 or IPv6 /48.
    pub syn_per_prefix: Rate,
    /// Connections from one source address that never complete their ClientHello.
    pub hello_per_source: Rate,
    /// Those from one IPv4 /24 or IPv6 /48.
    pub hello_per_prefix: Rate,
    /// Sources that get no connection.
    pub deny: Vec<IpNet>,
    /// Sources that neither `deny` nor the rates apply to.
    pub allow: Vec<IpNet>,
}

impl Limits {
    /// What a prefix may do where only the rate of a source is given: as much as so many sources at their limits.
    pub(super) const SOURCES_OF_A_PREFIX: NonZeroU32 = NonZeroU32::new(10).unwrap();
}

impl Default for Limits {
    /// What holds without a `[limits]` table.
    fn default() -> Self {
        const SYN_PER_SOURCE: NonZeroU32 = NonZeroU32::new(200).unwrap();
        const HELLO_PER_SOURCE: NonZeroU32 = NonZeroU32::new(50).unwrap();
        let syn_per_source = Rate::per_second_of(SYN_PER_SOURCE);
        let hello_per_source = Rate::per_second_of(HELLO_PER_SOURCE);
        Self {
            syn_per_source,
            syn_per_prefix: syn_per_source.times(Self::SOURCES_OF_A_PREFIX),
            hello_per_source,
            hello_per_prefix: hello_per_source.times(Self::SOURCES_OF_A_PREFIX),
            deny: Vec::new(),
            allow: Vec::new(),
        }
    }
}

fn optional_duration<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(given) => serializer.collect_str(&humantime::format_duration(*given)),
        None => serializer.serialize_none(),
    }
}

fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}
