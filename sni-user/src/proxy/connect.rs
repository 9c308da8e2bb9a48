//! Connecting to an Edge of a pool: the best one first, then others, a bounded number of times.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Proxy, socket, uses::UsedWayBack};
use crate::{
    config::SourceMode,
    descriptors,
    edges::{Edge, Entered, Pool},
};

/// How long an Edge may take to answer a SYN: two repetitions of it get lost before the next Edge is tried.
const ANSWER: Duration = Duration::from_secs(4);

/// Edges that are tried for one connection.
const ATTEMPTS: usize = 3;

/// Ports that are tried for one connection, one after the other; next to none costs anything but the lookup of a flow.
const PORTS: usize = 1024;

/// A connection to an Edge.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: TcpStream,
    pub(super) edge: Arc<Edge>,
    /// For as long as the connection lives.
    pub(super) hold: Hold,
}

/// What a connection to an Edge holds for as long as it lives.
#[derive(Debug)]
pub(super) struct Hold {
    /// None after a hand-off.
    entered: Option<Entered>,
    #[expect(dead_code, reason = "a guard: it counts until it is dropped")]
    way_back: Option<UsedWayBack>,
}

impl Hold {
    /// The connection is the datapath's; its sockets live on for a moment.
    pub(super) fn hand_off(&mut self) {
        if let Some(entered) = self.entered.take() {
            entered.hand_off();
        }
    }
}

/// The Edges of a pool, to be tried one after the other on behalf of one client.
#[derive(Debug)]
pub(super) struct Attempts {
    pool: String,
    client: SocketAddr,
    /// The largest segment that Edges are told to send; what the route says if nothing.
    segment_size: Option<u32>,
    /// Whether the pool has Edges of the client's address family, up or not.
    served: bool,
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
    /// None of them is up.
    #[error("no Edge of the pool {pool} is up: `snigate edge ls` tells why")]
    Down {
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
        /// What the last of them came to.
        last: io::ErrorKind,
    },
    /// Nobody was tried.
    #[error(
        "the agent has no file descriptor left for a connection to the pool {pool}: raise the limit of open files (LimitNOFILE= in the unit), or lower `max_connections`"
    )]
    NoDescriptors {
        /// The pool.
        pool: String,
    },
}

impl NoEdge {
    /// The reason, as it is counted.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Family { .. } => "no-edge",
            Self::Down { .. } => "no-edge-up",
            Self::NoDescriptors { .. } => "no-descriptors",
            Self::Unreachable { last, .. } => match last {
                io::ErrorKind::TimedOut => "edge-silent",
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => "edge-refused",
                _ => "edge-unreachable",
            },
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

impl Attempts {
    /// The Edges of `pool` that are up, the best one for `client` first.
    pub(super) fn new(pool: &Pool, client: SocketAddr) -> Self {
        Self {
            pool: pool.name().to_string(),
            client,
            segment_size: None,
            served: pool.serves(client),
            left: pool.order(client).into_iter().take(ATTEMPTS),
            failed: Vec::new(),
        }
    }

    /// Why nobody needs to be tried, if that is so.
    pub(super) fn hopeless(&self) -> Option<NoEdge> {
        (self.served && self.failed.is_empty() && self.left.len() == 0).then(|| NoEdge::Down {
            pool: self.pool.clone(),
        })
    }

    /// Edges are told to send segments of this size at most.
    pub(super) fn with_segment_size(mut self, size: Option<u32>) -> Self {
        self.segment_size = size;
        self
    }

    /// Connects to the first of those left that answers.
    pub(super) async fn next(&mut self, proxy: &Proxy) -> Result<Connected, NoEdge> {
        for edge in self.left.by_ref() {
            // Before the attempt, so that a burst of connections is spread by those that are under way.
            let entered = edge.enter();
            let began = Instant::now();
            let connected = to_edge(proxy, &edge, self.client, self.segment_size).await;
            // Another Edge needs one as well, and this one has nothing to do with it.
            if connected.as_ref().is_err_and(descriptors::is_want) {
                let pool = self.pool.clone();
                return Err(NoEdge::NoDescriptors { pool });
            }
            let name = edge.config.name.as_str();
            let measured = proxy.measured();
            measured.connect(name, began.elapsed(), connected.is_ok());
            match connected {
                Ok((stream, way_back)) => {
                    edge.connected();
                    return Ok(Connected {
                        stream,
                        edge,
                        hold: Hold {
                            entered: Some(entered),
                            way_back,
                        },
                    });
                }
                Err(reason) => {
                    edge.not_connected(self.client.ip(), &reason);
                    self.failed.push(Failed { edge, reason });
                }
            }
        }
        let pool = self.pool.clone();
        let Some(last) = self.failed.last() else {
            return Err(if self.served {
                NoEdge::Down { pool }
            } else {
                NoEdge::Family { pool }
            });
        };
        let last = last.reason.kind();
        let tried: Vec<_> = self.failed.iter().map(Failed::sentence).collect();
        Err(NoEdge::Unreachable {
            pool,
            tried: tried.join("; "),
            last,
        })
    }

    /// Those that have not answered so far.
    pub(super) fn failed(&self) -> &[Failed] {
        &self.failed
    }
}

async fn to_edge(
    proxy: &Proxy,
    edge: &Edge,
    client: SocketAddr,
    segment_size: Option<u32>,
) -> io::Result<(TcpStream, Option<UsedWayBack>)> {
    let leg = Leg {
        proxy,
        edge: edge.config.address,
        transparent: edge.config.source == SourceMode::Preserve,
        segment_size,
        spares_reserve: true,
    };
    let (stream, way_back) = if leg.transparent {
        // Before the SYN: its answer must find the way.
        let way_back = proxy.use_way_back();
        let stream = match leg.connect(client).await {
            Err(error) if is_taken(&error) => leg.connect_by_any_port(client.ip()).await?,
            other => other?,
        };
        (stream, Some(way_back))
    } else {
        let own = socket::own_address(leg.edge)?;
        (leg.connect_by_any_port(own).await?, None)
    };
    socket::for_federation(&stream)?;
    Ok((stream, way_back))
}

/// Connects to an Edge on the gateway's own behalf, with a port that no flow has.
pub(super) async fn of_our_own(proxy: &Proxy, edge: SocketAddr) -> io::Result<TcpStream> {
    let leg = Leg {
        proxy,
        edge,
        transparent: false,
        segment_size: None,
        spares_reserve: false,
    };
    leg.connect_by_any_port(socket::own_address(edge)?).await
}

/// A connection to an Edge, to be made.
struct Leg<'p> {
    proxy: &'p Proxy,
    edge: SocketAddr,
    /// Whether the address that the Edge is shown is the client's.
    transparent: bool,
    segment_size: Option<u32>,
    /// Whether it leaves the last descriptors alone, as what clients cause does.
    spares_reserve: bool,
}

impl Leg<'_> {
    /// With this address and port, if no other connection to this Edge has them: one of the agent's, or a flow of the datapath, which would take the
    /// Edge's answers for its own.
    async fn connect(&self, own: SocketAddr) -> io::Result<TcpStream> {
        if self.proxy.is_flow(self.edge, own) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let mut socket = socket::toward_edge(own, self.transparent)?;
        if self.spares_reserve {
            socket = descriptors::outside_reserve(socket)?;
        }
        if let Some(size) = self.segment_size {
            socket.set_tcp_mss(size)?;
        }
        connect(socket, self.edge).await
    }

    /// With this address and a port that is free.
    async fn connect_by_any_port(&self, own: IpAddr) -> io::Result<TcpStream> {
        for port in self.proxy.ports().drawn().take(PORTS) {
            match self.connect((own, port).into()).await {
                Err(error) if is_taken(&error) => {}
                other => return other,
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "{PORTS} ports of {own} in a row are taken: there are too many connections to this Edge for net.ipv4.ip_local_port_range, or for one address"
            ),
        ))
    }
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
