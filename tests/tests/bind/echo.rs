//! An Edge that knows nothing of TLS: it names itself and sends back every byte that it gets, at once.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use snigate_tests::{Namespace, addresses::SIP_TLS};
use socket2::{Domain, Socket, Type};

/// How long the acceptor goes without a look at the stop flag.
const STOP_INTERVAL_MS: u16 = 50;

type Open = HashMap<SocketAddr, (u64, TcpStream)>;

/// The Edge; dropping it closes its listener and resets its connections.
pub(crate) struct EchoEdge {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Those that are open, by the client's end, with their number: a port may be used again before its last connection is over.
    open: Mutex<Open>,
}

impl EchoEdge {
    /// Listens at the port of SIP over TLS, in both families.
    pub(crate) fn start(namespace: &Namespace, name: u8) -> Result<Self> {
        let listener = namespace.run(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.set_only_v6(false)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, SIP_TLS)).into())?;
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

    /// Closes its end of the connection of this peer, in order.
    pub(crate) fn close(&self, peer: SocketAddr) -> Result<()> {
        let stream = self.shared.open().remove(&peer);
        let (_, stream) = stream.with_context(|| format!("no connection from {peer}"))?;
        Ok(stream.shutdown(std::net::Shutdown::Write)?)
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
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

fn accept(listener: &TcpListener, name: u8, shared: &Arc<Shared>) -> Result<()> {
    let mut number = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::from(STOP_INTERVAL_MS))? == 0 {
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
        number += 1;
        shared.open().insert(peer, (number, stream.try_clone()?));
        let shared = Arc::clone(shared);
        // It ends with its connection, and that with the Edge.
        thread::spawn(move || {
            // The client sees how it ends.
            let _ = echo(stream, name);
            let mut open = shared.open();
            if open.get(&peer).is_some_and(|(of, _)| *of == number) {
                open.remove(&peer);
            }
        });
    }
    Ok(())
}

fn echo(mut stream: TcpStream, name: u8) -> std::io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let mut buffer = [0; 16 * 1024];
    let mut named = false;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        if !named {
            stream.write_all(&[name])?;
            named = true;
        }
        stream.write_all(&buffer[..length])?;
    }
}
