//! An Edge that knows nothing of TLS: it names itself and whom it sees, and sends back every byte that it gets, at once.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::edge::refuse;
use crate::addresses::SIP_TLS;
use crate::netns::Namespace;

/// How long the acceptor goes without a look at the stop flag.
const STOP_INTERVAL: u8 = 50;
/// How long a client may leave its echo unread.
const UNREAD: Duration = Duration::from_secs(60);
/// No introduction is as long.
const INTRODUCTION_LIMIT: usize = 100;

type Open = HashMap<SocketAddr, (usize, TcpStream)>;

/// The Edge; dropping it closes its listener and ends its connections.
#[derive(Debug)]
pub struct EchoEdge {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<Result<()>>>,
}

/// What an [`EchoEdge`] says before the client's first byte comes back, or its end if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The Edge's name.
    pub edge: String,
    /// Whom it sees.
    pub peer: SocketAddr,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
    /// Those that are open, by the client's end, with their number: a port may be used again before its last connection is over.
    open: Mutex<Open>,
}

impl EchoEdge {
    /// Listens at the port of SIP over TLS, in both families.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(namespace: &Namespace, name: &'static str) -> Result<Self> {
        Self::start_at(namespace, name, SIP_TLS)
    }

    /// Likewise at another port.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start_at(namespace: &Namespace, name: &'static str, port: u16) -> Result<Self> {
        let listener = namespace.run(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.set_only_v6(false)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            socket.listen(4096)?;
            socket.set_nonblocking(true)?;
            Ok(TcpListener::from(socket))
        })?;
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
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Closes its end of the connection of this peer, in order.
    ///
    /// # Errors
    /// There is none.
    pub fn close(&self, peer: SocketAddr) -> Result<()> {
        let stream = self.shared.open().remove(&peer);
        let (_, stream) = stream.with_context(|| format!("no connection from {peer}"))?;
        Ok(stream.shutdown(std::net::Shutdown::Write)?)
    }
}

impl Introduction {
    /// Reads it, and not a byte more.
    ///
    /// # Errors
    /// It is none, or the connection's.
    pub fn read(mut from: impl Read) -> Result<Self> {
        let mut line = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            ensure!(line.len() < INTRODUCTION_LIMIT, "{line:02x?}");
            from.read_exact(&mut byte).context("the Edge's name")?;
            line.extend(byte);
        }
        let parsed = str::from_utf8(&line).ok().and_then(|line| {
            let (edge, peer) = line.trim_end().split_once(' ')?;
            Some(Self {
                edge: edge.to_owned(),
                peer: peer.parse().ok()?,
            })
        });
        parsed.with_context(|| format!("no Edge's answer: {line:02x?}"))
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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
        for (_, (_, stream)) in self.shared.open().drain() {
            // Its thread ends by it. One that is over already is no matter.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, name: &'static str, shared: &Arc<Shared>) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::from(STOP_INTERVAL))? == 0 {
            continue;
        }
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // Gone before its turn (accept(2)).
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::WouldBlock
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error).context("accepting a connection"),
        };
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        shared.open().insert(peer, (number, stream.try_clone()?));
        let shared = Arc::clone(shared);
        // It ends with its connection, and that with the Edge.
        thread::spawn(move || {
            // The client sees how it ends.
            let _ = echo(stream, name, peer);
            let mut open = shared.open();
            if open.get(&peer).is_some_and(|(of, _)| *of == number) {
                open.remove(&peer);
            }
        });
    }
    refuse(listener)
}

fn echo(mut stream: TcpStream, name: &str, peer: SocketAddr) -> std::io::Result<()> {
    stream.set_write_timeout(Some(UNREAD))?;
    let introduction = format!("{name} {peer}\n");
    let mut buffer = [0; 16 * 1024];
    let mut length = stream.read(&mut buffer)?;
    stream.write_all(introduction.as_bytes())?;
    while length > 0 {
        stream.write_all(&buffer[..length])?;
        length = stream.read(&mut buffer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_introduction_ends_with_its_line() {
        let mut said = &b"a 192.0.2.1:5061\nmore"[..];
        let read = Introduction::read(&mut said).expect("an introduction");
        assert_eq!(
            (&*read.edge, read.peer),
            ("a", "192.0.2.1:5061".parse().unwrap())
        );
        assert_eq!(said, b"more");
        for wrong in [&b""[..], b"a 192.0.2.1:5061", b"\n", b"a b\n", &[7; 200]] {
            assert!(Introduction::read(wrong).is_err(), "{wrong:02x?}");
        }
    }
}
