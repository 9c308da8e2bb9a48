//! What crosses the control socket: lines of JSON.
//!
//! A client sends one line, `{"version":1,"request":"status"}`, and gets one line, `{"version":1,"answer":{…}}` or
//! `{"version":1,"error":{…}}`. After the answer to `watch`, a line follows for every ClientHello until either side closes. One connection
//! carries one request. Whoever speaks another version is told so in the same shape, because `version` and `error` never change.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::seen::{HelloSeen, WatchFilter, rfc3339};
use crate::config::Diagnostics;

/// Version of this protocol; raised with every change that the other side could misread.
pub const VERSION: u32 = 1;

/// The longest line of a client, in bytes, its newline included.
pub const MAX_REQUEST: usize = 64 << 10;

/// The longest line of the agent, in bytes, its newline included.
pub const MAX_ANSWER: usize = 4 << 20;

/// The longest text of diagnostics in an answer, in bytes: thousands of findings say no more than the first hundreds.
const MAX_RENDERED: usize = 256 << 10;

/// Findings in an answer.
const MAX_FINDINGS: usize = 500;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The agent's own facts; answered with an [`AgentStatus`].
    Status,
    /// The connections that the agent carries itself; answered with [`Connections`].
    Connections {
        /// Only those of this client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<IpAddr>,
    },
    /// Load everything anew; answered with a [`Reloaded`].
    Reload,
    /// Route a server name to a pool for as long as the agent runs; answered with a [`RouteAdded`].
    RouteAdd {
        /// A server name, or `*.` and one.
        name: String,
        /// A pool of the active configuration.
        pool: String,
    },
    /// Forget such a route; answered with a [`RouteRemoved`].
    RouteRm {
        /// The name as it was added.
        name: String,
    },
    /// Give an Edge no new connections; answered with an [`EdgeChanged`].
    EdgeDrain {
        /// Its name.
        name: String,
    },
    /// Let its checks decide again; answered with an [`EdgeChanged`].
    EdgeEnable {
        /// Its name.
        name: String,
    },
    /// End the connections to an Edge that the agent carries itself; answered with an [`EdgeEnded`].
    EdgeEnd {
        /// Its name.
        name: String,
    },
    /// Define a domain in a file of its own, and reload; answered with a [`DomainChanged`].
    DomainAdd {
        /// Its table.
        domain: DomainTable,
    },
    /// Remove such a file, and reload; answered with a [`DomainChanged`].
    DomainRm {
        /// The SIP domain.
        sip_domain: String,
    },
    /// Have the log say what a command has done without the agent, on the pinned maps; answered when it is there.
    Note {
        /// The command, as it would be typed.
        command: String,
        /// What came of it.
        outcome: String,
    },
    /// Every ClientHello from now on, as [`HelloSeen`].
    Watch {
        /// Which of them.
        #[serde(default)]
        filter: WatchFilter,
    },
}

impl Request {
    /// Whether it changes anything; what only reads is for the whole group.
    pub fn changes(&self) -> bool {
        match self {
            Self::Status | Self::Connections { .. } | Self::Watch { .. } => false,
            Self::Reload
            | Self::RouteAdd { .. }
            | Self::RouteRm { .. }
            | Self::EdgeDrain { .. }
            | Self::EdgeEnable { .. }
            | Self::EdgeEnd { .. }
            | Self::DomainAdd { .. }
            | Self::DomainRm { .. }
            | Self::Note { .. } => true,
        }
    }

    /// The command that asks for it, for the log.
    pub(super) fn command(&self) -> String {
        match self {
            Self::Status => "status".into(),
            Self::Connections { .. } => "flow ls".into(),
            Self::Watch { .. } => "watch".into(),
            Self::Reload => "reload".into(),
            Self::RouteAdd { name, pool } => format!("route add {name} {pool}"),
            Self::RouteRm { name } => format!("route rm {name}"),
            Self::EdgeDrain { name } => format!("edge drain {name}"),
            Self::EdgeEnable { name } => format!("edge enable {name}"),
            Self::EdgeEnd { name } => format!("edge drain {name}: connections of the agent"),
            Self::DomainAdd { domain } => {
                format!("domain add {} --pool {}", domain.sip_domain, domain.pool)
            }
            Self::DomainRm { sip_domain } => format!("domain rm {sip_domain}"),
            Self::Note { command, .. } => command.clone(),
        }
    }
}

/// A `[[domain]]` table of the configuration, its values as they are written there.
///
/// Nothing is checked here: the reload that follows judges the file as a whole, and reports mistakes with their lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainTable {
    /// The SIP domain.
    pub sip_domain: String,
    /// Server names, instead of `sip.` and the SIP domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The pool.
    pub pool: String,
    /// PEM file with the chain. A relative path starts from the directory that the domain's file is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Every other key of the table.
    #[serde(flatten)]
    pub more: toml::Table,
}

/// One line of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) version: u32,
    /// The user who has logged in, whom sudo and su leave in their processes. For the log: whoever is root may say what it likes, and of others nobody
    /// believes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<u32>,
    #[serde(flatten)]
    pub(super) request: Request,
}

/// The part of a line that every version has.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u32,
}

/// The first line of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reply<T> {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) outcome: Outcome<T>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome<T> {
    Answer(T),
    Error(Refusal),
}

/// The answer to `watch`: from here on nothing is missed that is not said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WatchingNow {
    pub(super) watching: bool,
}

/// The answer to `note`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Noted {
    pub(super) noted: bool,
}

/// A further line of the agent to a watcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice<T = HelloSeen> {
    /// A ClientHello.
    Hello(T),
    /// So many were not sent, because this watcher reads too slowly. The filter has not seen them.
    Lost(u64),
}

/// Facts about a running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Milliseconds that it runs.
    pub uptime_ms: u64,
    /// What it goes by.
    pub configuration: ActiveConfiguration,
    /// Where it has attached the datapath.
    #[serde(default)]
    pub interfaces: Vec<AttachedInterface>,
    /// Whether the datapath binds connections; none from an agent that does not know of it.
    #[serde(default)]
    pub binding: Option<BindingStatus>,
    /// The Edges, by name; none from an agent that does not look after them.
    #[serde(default)]
    pub edges: Vec<EdgeStatus>,
    /// Connections that it holds now: hellos awaited, passed through, terminated.
    pub connections: u64,
    /// What it has counted since it started, by name.
    pub counters: BTreeMap<String, u64>,
}

/// An Edge of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeStatus {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// `up`, `down` or `draining`.
    pub state: String,
    /// Milliseconds for which that is so.
    pub since_ms: u64,
    /// Why, or what its last check has found.
    pub why: Option<String>,
    /// Milliseconds since it was checked last; none where it is not, or has not been yet.
    pub checked_ms: Option<u64>,
}

/// Connections in an answer: with the longest names they fit into [`MAX_ANSWER`].
const MAX_CONNECTIONS: usize = 5000;

/// The connections that an agent carries itself, in the order of their clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// The first ones.
    pub connections: Vec<CarriedConnection>,
    /// How many there are.
    pub of: usize,
}

impl From<Vec<CarriedConnection>> for Connections {
    fn from(mut connections: Vec<CarriedConnection>) -> Self {
        let of = connections.len();
        connections.truncate(MAX_CONNECTIONS);
        Self { connections, of }
    }
}

/// A connection that an agent carries itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedConnection {
    /// The client.
    pub client: SocketAddr,
    /// The public address that it came to.
    pub vip: SocketAddr,
    /// The server name that it asked for.
    pub server_name: Option<String>,
    /// The number of the configured name that decided; 0 where the IP set's default did.
    pub route: u64,
    /// The IP set.
    pub ip_set: Option<String>,
    /// The Edge.
    pub edge: String,
    /// Where the Edge listens.
    pub edge_address: SocketAddr,
    /// `relayed` or `terminated`.
    pub way: String,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// Milliseconds since it last carried something.
    pub idle_ms: u64,
    /// Bytes from the client, without headers; of a terminated one without TLS, too.
    pub to_edge: u64,
    /// Bytes from the Edge, likewise.
    pub to_client: u64,
}

/// An interface of the datapath.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedInterface {
    /// Its name.
    pub interface: String,
    /// The hook: `xdp`, `xdp-generic`, `tcx` or `clsact`.
    pub hook: String,
    /// Why this hook.
    pub reason: String,
}

impl fmt::Display for AttachedInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.interface, self.hook, self.reason)
    }
}

/// Whether the datapath binds connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingStatus {
    /// Why it does not; none while it does.
    pub off: Option<String>,
    /// Milliseconds for which that is so.
    pub since_ms: u64,
    /// Milliseconds since the listener was stamped last, without which the host would not take over what the datapath has begun.
    pub stamped_ms: Option<u64>,
}

/// The configuration that an agent goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveConfiguration {
    /// The main file.
    pub file: PathBuf,
    /// The datapath's generation.
    pub generation: u32,
    /// Milliseconds since it was loaded.
    pub age_ms: u64,
    /// The last attempt to replace it, if that was refused.
    pub refused: Option<RefusedConfiguration>,
}

/// A configuration that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedConfiguration {
    /// When.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// Why, in one sentence.
    pub why: String,
}

/// A configuration that has become the active one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The datapath's new generation.
    pub generation: u32,
    /// Microseconds from the request until it was active.
    pub took_us: u64,
    /// Files that it was read from.
    pub files: usize,
    /// IP sets.
    pub ip_sets: usize,
    /// Edges.
    pub edges: usize,
    /// Pools.
    pub pools: usize,
    /// SIP domains.
    pub domains: usize,
    /// Server names of all domains.
    pub names: usize,
    /// Domains whose TLS ends here.
    pub terminated: usize,
    /// What is allowed but probably not meant, a sentence each.
    pub warnings: Vec<String>,
}

/// A route that holds from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAdded {
    /// The name.
    pub name: String,
    /// Where it goes.
    pub pool: String,
    /// Where an earlier `route-add` had sent it.
    pub replaced: Option<String>,
}

/// A route that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRemoved {
    /// The name.
    pub name: String,
    /// Where it went.
    pub pool: String,
}

/// An Edge after a change by command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeChanged {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is now: `up`, `down` or `draining`.
    pub state: String,
    /// Whether the command has changed that.
    pub changed: bool,
    /// Its pools that have no Edge that is up, of its address family.
    pub without: Vec<String>,
}

/// Connections to an Edge that were ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeEnded {
    /// How many the agent had.
    pub connections: usize,
}

/// A domain that was added or removed, and the configuration with that change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainChanged {
    /// The SIP domain.
    pub sip_domain: String,
    /// The file that was written or removed.
    pub file: PathBuf,
    /// What is active now.
    pub reloaded: Reloaded,
}

/// Why the agent does not do what it was asked; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal, for programs.
    pub kind: RefusalKind,
    /// What, where, and what to do about it.
    pub message: String,
    /// What is wrong with the configuration, if that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Findings>,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The other side speaks another version.
    Version,
    /// The request can't be understood.
    Malformed,
    /// This user may not.
    NotAllowed,
    /// Too many clients.
    Busy,
    /// The configuration is wrong.
    Configuration,
    /// What it is about does not exist.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// It was tried and did not work.
    Failed,
    /// A kind of a later version.
    #[serde(other)]
    Unknown,
}

/// Diagnostics of a configuration, as text and as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// For people: each with the line that it is about.
    pub rendered: String,
    /// The same, as `snigate check --json` writes them.
    pub list: Vec<serde_json::Value>,
}

impl Refusal {
    /// A refusal that says all in one sentence.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            findings: None,
        }
    }

    /// Because of what is wrong with the configuration in `file`.
    pub fn configuration(file: &Path, found: &Diagnostics) -> Self {
        let list = found.iter().take(MAX_FINDINGS);
        Self {
            kind: RefusalKind::Configuration,
            message: format!(
                "{} can't be used ({}); what was active stays active",
                file.display(),
                found.summary()
            ),
            findings: Some(Findings {
                rendered: cut(found.render(false)),
                // Texts and numbers only: nothing that JSON can't hold.
                list: list
                    .filter_map(|it| serde_json::to_value(it).ok())
                    .collect(),
            }),
        }
    }

    /// The other side speaks `version`.
    pub(super) fn version(version: u32) -> Self {
        let message = format!(
            "the agent speaks version {VERSION} of the control protocol and this client version {version}: use the `snigate` of the version that runs"
        );
        Self::new(RefusalKind::Version, message)
    }
}

/// Ends a long text after a line, and says so.
fn cut(mut text: String) -> String {
    if text.len() > MAX_RENDERED {
        let end = text.floor_char_boundary(MAX_RENDERED);
        text.truncate(text[..end].rfind('\n').map_or(end, |newline| newline + 1));
        text.push_str("…and more: `snigate check` shows all of it\n");
    }
    text
}
