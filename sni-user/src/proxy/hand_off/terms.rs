//! Whether a connection can be handed off, and what its flow is to be called.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use sni_common::{
    contract::{FlowKey, SynSeen},
    translate::Leg,
};
use tokio::net::TcpStream;

use crate::{
    datapath::{DatapathError, FlowRefused, HandOffs},
    proxy::canonical::canonical,
};

/// What the datapath calls a connection: see the fields of [`sni_common::contract::Flow`].
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Terms {
    pub(in crate::proxy) ip_set: u32,
    pub(in crate::proxy) route: u64,
    pub(in crate::proxy) edge: u16,
    pub(in crate::proxy) began: Instant,
}

/// Why a connection stays in the agent's relay, where it works just as well.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum NotHandedOff {
    /// The configuration.
    #[error("its [[ip_set]] has `hand_off = false`")]
    Off,
    /// The configuration has changed since it was routed.
    #[error("its public address or its Edge is in the active configuration no longer")]
    Unconfigured,
    /// One direction only is left.
    #[error("one side has closed its direction already")]
    Closing,
    /// The connection does not go by where the datapath is attached, or was begun before that.
    #[error(
        "the datapath has not seen the handshake with {0}: its packets do not come by an attached interface, or there were too many handshakes at once"
    )]
    Unseen(&'static str),
    /// One leg is IPv4 and the other one IPv6, as a load balancer's header may have it.
    #[error("the client and the Edge are of different address families")]
    Families,
    /// Timestamps are on one leg only.
    #[error(
        "the {0} uses timestamps (RFC 7323) and the other side does not; it may drop segments without them"
    )]
    Timestamps(&'static str),
    /// It is not the moment: see [`super::Moment`].
    #[error(
        "bytes are on their way: it is handed off when both sides are silent, or after a second"
    )]
    Busy,
    /// The datapath does not take it.
    #[error(transparent)]
    Flow(#[from] FlowRefused),
    /// The kernel.
    #[error("its sockets can't be given up: {0}")]
    Socket(#[from] io::Error),
}

impl From<DatapathError> for NotHandedOff {
    fn from(error: DatapathError) -> Self {
        Self::Flow(FlowRefused::Map(error))
    }
}

impl NotHandedOff {
    /// The reason, as it is counted.
    pub(in crate::proxy) fn name(&self) -> &'static str {
        match self {
            Self::Off => "kept-by-configuration",
            Self::Unconfigured => "kept-unconfigured",
            Self::Closing => "kept-closing",
            Self::Unseen(_) => "kept-unseen",
            Self::Families => "kept-families",
            Self::Timestamps(_) => "kept-timestamps",
            Self::Busy => "kept-busy",
            Self::Flow(FlowRefused::Full) => "kept-flow-table-full",
            Self::Flow(FlowRefused::Taken) => "kept-tuple-taken",
            Self::Flow(FlowRefused::Map(_)) | Self::Socket(_) => "kept-failed",
        }
    }

    /// When it may be otherwise, with the same configuration.
    pub(in crate::proxy) fn passes_in(&self) -> Option<Duration> {
        match self {
            Self::Busy => Some(Duration::from_millis(2)),
            Self::Flow(FlowRefused::Full | FlowRefused::Taken) => Some(Duration::from_secs(10)),
            _ => None,
        }
    }

    /// Whether an operator should know.
    pub(in crate::proxy) fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Flow(FlowRefused::Full | FlowRefused::Map(_)) | Self::Socket(_)
        )
    }
}

/// The peers of the two sockets.
pub(super) struct Peers {
    /// What the client's packets come with.
    pub(super) client: FlowKey,
    /// What the Edge's packets come with.
    pub(super) edge: FlowKey,
    pub(super) client_seen: SynSeen,
    pub(super) edge_seen: SynSeen,
}

impl Peers {
    /// Those of two connected sockets, as the datapath has seen them begin.
    pub(super) fn of(
        hand_offs: &HandOffs,
        client: &TcpStream,
        edge: &TcpStream,
    ) -> Result<Self, NotHandedOff> {
        let (client, edge) = (arriving(client)?, arriving(edge)?);
        if client.source.is_v4() != edge.source.is_v4() {
            return Err(NotHandedOff::Families);
        }
        let client_seen = hand_offs.client_syn(&client)?;
        let edge_seen = hand_offs.edge_syn_ack(&edge)?;
        Ok(Self {
            client,
            edge,
            client_seen: client_seen.ok_or(NotHandedOff::Unseen("the client"))?,
            edge_seen: edge_seen.ok_or(NotHandedOff::Unseen("the Edge"))?,
        })
    }
}

/// What packets to a socket come with.
fn arriving(stream: &TcpStream) -> io::Result<FlowKey> {
    let (peer, own) = (
        canonical(stream.peer_addr()?),
        canonical(stream.local_addr()?),
    );
    let port = |address: SocketAddr| address.port().to_be();
    Ok(FlowKey {
        source: peer.ip().into(),
        destination: own.ip().into(),
        source_port_be: port(peer),
        destination_port_be: port(own),
    })
}

/// A side that uses timestamps must take segments without them where the other side has none: all systems should drop those (RFC 7323, 3.2), and
/// Linux does not.
pub(super) fn timestamps(peers: &Peers, client: &Leg, edge: &Leg) -> Result<(), NotHandedOff> {
    let is_linux = |seen: &SynSeen| seen.flags & SynSeen::LINUX != 0;
    match (client.timestamps.is_some(), edge.timestamps.is_some()) {
        (true, false) if !is_linux(&peers.client_seen) => Err(NotHandedOff::Timestamps("client")),
        (false, true) if !is_linux(&peers.edge_seen) => Err(NotHandedOff::Timestamps("Edge")),
        _ => Ok(()),
    }
}
