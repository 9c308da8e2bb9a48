//! Why a command failed.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{
    agent::AgentError, control::ClientError, datapath::DatapathError, plan::FormerError,
    tls::AuthorityError,
};

/// A failed command; the sentence is what people see.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The datapath.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The former plan.
    #[error("{path} is no former plan: {source}", path = path.display())]
    FormerPlan {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: FormerError,
    },
    /// The running agent.
    #[error(transparent)]
    Control(#[from] ClientError),
    /// An agent that does not answer.
    #[error("the agent at {socket} does not answer", socket = socket.display())]
    Silent {
        /// Its control socket.
        socket: PathBuf,
    },
    /// What partners see can't be looked at.
    #[error(transparent)]
    Federation(#[from] crate::federation::CheckError),
    /// Everything there is to say has been said, on standard error or as JSON.
    #[error("the findings were reported")]
    Reported,
    /// No runtime for the agent.
    #[error("the agent's threads could not be started: {0}")]
    Runtime(io::Error),
    /// Nothing to hold.
    #[error("the listening socket is not held ({0}): the agent starts `snigate hold` by itself")]
    Hold(io::Error),
    /// No log for the agent.
    #[error("the log could not be started: {0}")]
    Log(Box<dyn std::error::Error + Send + Sync>),
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(String),
    /// The output could not be written.
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
    /// A file or directory.
    #[error("{what} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is in the way.
    #[error("{path} is there already, and is not overwritten: Edges trust what is in it; move it away first if that is meant", path = path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// The configuration has no place for a private CA.
    #[error("{path} has no `ca` and `key` in [identity]: write there which files they are to be, such as `ca = \"ca/mirror.pem\"` and `key = \"ca/mirror.key\"`", path = path.display())]
    NoMirror {
        /// The configuration file.
        path: PathBuf,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The configuration does not say where the gateway is.
    #[error("{path} can't be read ({reason}): correct it (`snigate check` helps), or name the place of the maps with --pin-path, that of the agent's socket with --control", path = path.display())]
    Configuration {
        /// The configuration file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No such flow.
    #[error("no flow of {client}{to}: `snigate flow ls --client {ip}` shows those of this address", to = vip.map(|vip| format!(" to {vip}")).unwrap_or_default(), ip = client.ip())]
    NoFlow {
        /// The client.
        client: SocketAddr,
        /// The public address, where one was named.
        vip: Option<SocketAddr>,
    },
    /// A connection that is no flow of the datapath.
    #[error(
        "the agent carries the connection of {client} itself ({way}): this command ends flows of the datapath only, and it ends with either side, or with the agent"
    )]
    CarriedByAgent {
        /// The client.
        client: SocketAddr,
        /// How it is carried.
        way: String,
    },
    /// No such Edge.
    #[error("there is no Edge {name}: {known}")]
    NoEdge {
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// No such map.
    #[error("there is no map {name}: `snigate map ls` shows what there is")]
    NoMap {
        /// The name.
        name: String,
    },
    /// The ring can't be read without taking events away.
    #[error(
        "EVENTS is a ring with one reader, the agent: reading it here would take events away; the agent logs them (`RUST_LOG=debug snigate run`)"
    )]
    Ring,
    /// The ring has nothing but for a capture.
    #[error("CAPTURED is the ring of captured packets: `snigate capture` reads it")]
    CaptureRing,
    /// There is a datapath, but no packet comes by.
    #[error(
        "the datapath is attached to no interface, so it sees no packets: start an agent with `snigate run`"
    )]
    NotAttached,
    /// Not to this interface.
    #[error("the datapath is not attached to {name}: it is to {attached}")]
    NotAttachedTo {
        /// The interface.
        name: String,
        /// Those where it is.
        attached: String,
    },
    /// It was removed while packets were captured.
    #[error("the datapath has been removed or replaced: what came until then is in the file")]
    DatapathGone,
    /// No raw socket.
    #[error(
        "resetting connections needs a raw socket, and this process may not open one: run it with sudo, or give it CAP_NET_RAW"
    )]
    RawSocket,
    /// The resets could not be sent.
    #[error("{what}: {source}")]
    Network {
        /// What was tried.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

impl CliError {
    /// The exit status: 1 failed, 2 usage.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}
