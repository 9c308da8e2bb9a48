//! Connecting to an Edge of a pool: the best one first, then others, a bounded number of times.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Steered, socket};
use crate::{
    config::SourceMode,
    edges::{Edge, Entered, Pool},
};

/// How long an Edge may take to answer a SYN: two repetitions of it get lost before the next Edge is tried.
const ANSWER: Duration = Duration::from_secs(4);

/// Edges that are tried for one connection.
const ATTEMPTS: usize = 3;

/// A connection to an Edge.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: TcpStream,
    pub(super) edge: Arc<Edge>,
    /// Counts the connection while it lives.
    pub(super) entered: Entered,
}

/// The Edges of a pool, to be tried one after the other on behalf of one client.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    pool: String,
    steered: &'a Steered,
    client: SocketAddr,
    left: std::iter::Take<std::vec::IntoIter<Arc<Edge>>>,
    failed: Vec<Failed>,
}

/// An Edge that could not be reached.
#[derive(Debug)]
pub(super) struct Failed {
    edge: Arc<Edge>,
    reason: io::Error,
}

/// Why no Edge of a pool could be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoEdge {
    /// The pool has no Edge of the client's address family.
    #[error("the pool {pool} has no Edge of the client's address family: add one to it")]
    Family {
        /// The pool.
        pool: String,
    },
    /// None of those that were tried has answered.
    #[error("no Edge of the pool {pool} could be reached: {tried}")]
    Unreachable {
        /// The pool.
        pool: String,
        /// Each Edge that was tried, with what the kernel said.
        tried: String,
        /// All kept silence, rather than that one refused.
        silent: bool,
    },
}

impl NoEdge {
    /// The reason, as it is counted.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Family { .. } => "no-edge",
            Self::Unreachable { silent: true, .. } => "edge-timeout",
            Self::Unreachable { silent: false, .. } => "edge-refused",
        }
    }
}

impl Failed {
    /// What happened, for the log.
    pub(super) fn sentence(&self) -> String {
        let config = &self.edge.config;
        format!("{} ({}): {}", config.name, config.address, self.reason)
    }
}

impl<'a> Attempts<'a> {
    /// The Edges of `pool`, the best one for `client` first.
    pub(super) fn new(pool: &Pool, client: SocketAddr, steered: &'a Steered) -> Self {
        Self {
            steered,
            pool: pool.name().to_string(),
            client,
            left: pool.order(client).into_iter().take(ATTEMPTS),
            failed: Vec::new(),
        }
    }

    /// Connects to the first of those left that answers.
    pub(super) async fn next(&mut self) -> Result<Connected, NoEdge> {
        for edge in self.left.by_ref() {
            // Before the attempt, so that a burst of connections is spread by those that are under way.
            let entered = edge.enter();
            match to_edge(&edge, self.client, self.steered).await {
                Ok(stream) => {
                    return Ok(Connected {
                        stream,
                        edge,
                        entered,
                    });
                }
                Err(reason) => self.failed.push(Failed { edge, reason }),
            }
        }
        let pool = self.pool.clone();
        if self.failed.is_empty() {
            return Err(NoEdge::Family { pool });
        }
        let tried: Vec<_> = self.failed.iter().map(Failed::sentence).collect();
        let silent = |failed: &Failed| failed.reason.kind() == io::ErrorKind::TimedOut;
        Err(NoEdge::Unreachable {
            pool,
            tried: tried.join("; "),
            silent: self.failed.iter().all(silent),
        })
    }

    /// Those that have not answered so far.
    pub(super) fn failed(&self) -> &[Failed] {
        &self.failed
    }
}

async fn to_edge(edge: &Edge, client: SocketAddr, steered: &Steered) -> io::Result<TcpStream> {
    let address = edge.config.address;
    let stream = match edge.config.source {
        SourceMode::Gateway => connect(socket::plain(address)?, address).await?,
        SourceMode::Preserve => {
            let own_port = if steered.has(client, address) {
                Err(io::ErrorKind::AddrInUse.into())
            } else {
                match socket::transparent(client, true) {
                    Ok(socket) => connect(socket, address).await,
                    Err(error) => Err(error),
                }
            };
            match own_port {
                // Another connection to this Edge has the client's address and port already: the agent's or the datapath's.
                Err(error) if is_taken(&error) => {
                    connect(socket::transparent(client, false)?, address).await?
                }
                other => other?,
            }
        }
    };
    socket::for_federation(&stream)?;
    Ok(stream)
}

async fn connect(socket: socket2::Socket, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(socket.into());
    timeout(ANSWER, socket.connect(address))
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", ANSWER.as_secs()),
            ))
        })
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}
