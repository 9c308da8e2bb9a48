//! An Edge that knows nothing of TLS: when the client has finished, it names itself and whom it sees, and sends back every byte that it got.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use snigate_tests::{
    Lab, Namespace,
    addresses::{PARTNER, SIP_TLS},
    deadline::Deadline,
    peers::{Segments, send_in_segments},
};
use socket2::{Domain, Socket, Type};

use crate::TIMEOUT;

/// How long the acceptor goes without a look at the stop flag.
const STOP_INTERVAL_MS: u16 = 50;

/// The Edge; dropping it ends its listener.
pub(crate) struct EchoEdge {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
}

/// What came back through the gateway.
#[derive(Debug)]
pub(crate) struct Echo {
    /// The Edge's name.
    pub(crate) edge: String,
    /// Whom it saw.
    pub(crate) peer: SocketAddr,
    /// What it received.
    pub(crate) bytes: Vec<u8>,
}

impl EchoEdge {
    /// Listens at the port of SIP over TLS.
    pub(crate) fn start(namespace: &Namespace, name: &'static str) -> Result<Self> {
        Self::start_at(namespace, name, SIP_TLS)
    }

    /// Listens at another port, in both families.
    pub(crate) fn start_at(namespace: &Namespace, name: &'static str, port: u16) -> Result<Self> {
        let listener = namespace.run(|| Ok(TcpListener::bind(("::", port))?))?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let acceptor =
            namespace.thread("echo-edge", move || accept(&listener, name, &accepting))?;
        Ok(Self {
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// How many connections have come.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for EchoEdge {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.acceptor.take().map(JoinHandle::join) {
            Some(Ok(Ok(()))) | None => {}
            Some(Ok(Err(error))) => eprintln!("an Edge failed: {error:#}"),
            Some(Err(_)) => eprintln!("an Edge panicked"),
        }
    }
}

fn accept(listener: &TcpListener, name: &'static str, shared: &Shared) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::from(STOP_INTERVAL_MS))? == 0 {
            continue;
        }
        let (stream, peer) = listener.accept()?;
        shared.connections.fetch_add(1, Ordering::Relaxed);
        // It ends with its connection, and that with the test.
        thread::spawn(move || echo(stream, name, peer));
    }
    Ok(())
}

fn echo(mut stream: TcpStream, name: &str, peer: SocketAddr) -> Result<()> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    writeln!(stream, "{name} {peer}")?;
    Ok(stream.write_all(&bytes)?)
}

/// A connection of the partner's; without a `source` from its first address, which is not the kernel's choice where it has several.
pub(crate) fn connect(
    lab: &Lab,
    source: Option<SocketAddr>,
    address: SocketAddr,
) -> Result<TcpStream> {
    let [v4, v6] = PARTNER.both();
    let first = if address.is_ipv4() { v4 } else { v6 };
    let source = source.unwrap_or(SocketAddr::new(first, 0));
    let connect = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A port of one's own choice may have been used before.
        socket.set_reuse_address(source.port() != 0)?;
        socket.bind(&source.into())?;
        socket.connect_timeout(&address.into(), TIMEOUT)?;
        Ok(TcpStream::from(socket))
    };
    let stream = lab.partner.run(connect);
    let stream = stream.with_context(|| format!("connecting from {source} to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Sends `bytes`, finishes, and returns what an [`EchoEdge`] makes of it.
pub(crate) fn say(
    lab: &Lab,
    address: SocketAddr,
    bytes: &[u8],
    segments: Segments,
) -> Result<Echo> {
    let stream = connect(lab, None, address)?;
    say_on(stream, bytes, segments)
}

/// Likewise, on an open connection.
pub(crate) fn say_on(mut stream: TcpStream, bytes: &[u8], segments: Segments) -> Result<Echo> {
    send_in_segments(&mut stream, bytes, segments, Deadline::after(TIMEOUT))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Echo::parse(&answer).with_context(|| format!("no Edge's answer: {:02x?}", answer.get(..32)))
}

impl Echo {
    fn parse(answer: &[u8]) -> Option<Self> {
        let end = answer.iter().position(|&byte| byte == b'\n')?;
        let (edge, peer) = str::from_utf8(&answer[..end]).ok()?.split_once(' ')?;
        Some(Self {
            edge: edge.to_owned(),
            peer: peer.parse().ok()?,
            bytes: answer[end + 1..].to_owned(),
        })
    }
}
