//! An Edge on threads: many connections at once, each doing what its partner asks.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};

use super::channel::{Channel, Received, Until, unmapped};
use super::pattern::{Hash, Pattern};
use super::replay::rest_of_hello;
use super::request::{Action, GREETING, Greeting, PAUSE, REQUEST_LENGTH, Request};
use super::tls::EdgeTls;
use crate::deadline::Deadline;
use crate::netns::Namespace;

/// How long a conversation may take, and how long one that echoes may be silent: a soak lasts longer. The stop flag ends a connection before that.
const CONNECTION_LIMIT: Duration = Duration::from_secs(600);
/// How long the acceptor may go on without a look at the stop flag, in milliseconds.
const STOP_INTERVAL: u8 = 50;
const BACKLOG: i32 = 4096;
/// How late an answer after the partner's half-close is: long enough for a flow to be taken for closed.
pub(super) const LATE: Duration = Duration::from_millis(500);

/// A server in a namespace; dropping it closes all its connections.
#[derive(Debug)]
pub struct Edge {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<Result<()>>>,
}

/// What the Edge saw of one connection, once it is over.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where the connection came from, as the Edge sees it.
    pub peer: SocketAddr,
    /// Where it arrived.
    pub local: SocketAddr,
    /// The server name asked for, over TLS.
    pub server_name: Option<String>,
    /// What the partner asked for; `None` if it never did.
    pub request: Option<Request>,
    /// How many bytes were received after the request.
    pub received: u64,
    /// Their hash.
    pub hash: Option<Hash>,
    /// Segments the Edge sent again.
    pub retransmitted: u32,
    /// How the connection ended.
    pub end: End,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// In the way the request wanted.
    Clean,
    /// By a RST from the other side.
    Reset,
    /// In another way, in these words.
    Failed(String),
}

#[derive(Debug, Default)]
struct Shared {
    greeting: Greeting,
    stop: Arc<AtomicBool>,
    reports: Mutex<VecDeque<Report>>,
    reported: Condvar,
}

/// What a conversation has come to, however it ends.
#[derive(Default)]
struct Progress {
    request: Option<Request>,
    received: Option<Received>,
}

impl Edge {
    /// Listens on `port` of every address of `namespace`, with TLS or, without it, plain TCP.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(namespace: &Namespace, port: u16, tls: Option<&EdgeTls>) -> Result<Self> {
        Self::start_greeting(namespace, port, tls, GREETING)
    }

    /// Likewise, with a first word of its own for whoever sends another program's hello.
    ///
    /// # Errors
    /// As for [`Edge::start`].
    pub fn start_greeting(
        namespace: &Namespace,
        port: u16,
        tls: Option<&EdgeTls>,
        greeting: Greeting,
    ) -> Result<Self> {
        let listener = namespace.run(|| listen(port)).with_context(|| {
            format!("listening on port {port} in namespace {}", namespace.name())
        })?;
        let shared = Arc::new(Shared {
            greeting,
            ..Shared::default()
        });
        let accepting = Arc::clone(&shared);
        let tls = tls.cloned();
        let acceptor =
            namespace.thread("edge", move || accept(&listener, &accepting, tls.as_ref()))?;
        Ok(Self {
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// The next report of a finished connection, in the order in which they finish.
    ///
    /// # Errors
    /// No connection finishes in time.
    pub fn report(&self, timeout: Duration) -> Result<Report> {
        let reports = self
            .shared
            .reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut reports, _) = self
            .shared
            .reported
            .wait_timeout_while(reports, timeout, |reports| reports.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        reports
            .pop_front()
            .ok_or_else(|| anyhow!("no connection to the Edge ended within {timeout:?}"))
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(acceptor) = self.acceptor.take() else {
            return;
        };
        match acceptor.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("an Edge failed: {error:#}"),
            Err(_) => eprintln!("an Edge panicked"),
        }
    }
}

/// On every address of the caller's namespace, without blocking.
pub(super) fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    // Connections inherit it; the times are the namespace's, two hours if nobody says otherwise.
    socket.set_keepalive(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Has a listener refuse whoever comes, although a process that is being started at this very moment may still have a copy of its descriptor.
pub(super) fn refuse(listener: &TcpListener) -> Result<()> {
    Ok(SockRef::from(listener).shutdown(Shutdown::Both)?)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&EdgeTls>) -> Result<()> {
    thread::scope(|scope| {
        while !shared.stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((socket, peer)) => {
                    scope.spawn(move || serve(socket, peer, shared, tls));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut descriptors = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                    poll(&mut descriptors, PollTimeout::from(STOP_INTERVAL))?;
                }
                // The partner was gone before its turn came (accept(2), ECONNABORTED).
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error).context("accepting a connection"),
            }
        }
        refuse(listener)
    })
}

fn serve(socket: TcpStream, peer: SocketAddr, shared: &Shared, tls: Option<&EdgeTls>) {
    let mut progress = Progress::default();
    let mut report = Report {
        peer: unmapped(peer),
        local: unmapped(peer),
        server_name: None,
        request: None,
        received: 0,
        hash: None,
        retransmitted: 0,
        end: End::Clean,
    };
    let conversation = converse(socket, shared, tls, &mut report, &mut progress);
    report.request = progress.request;
    report.received = progress.received.map_or(0, |received| received.bytes);
    report.hash = progress.received.map(|received| received.hash);
    report.end = match conversation {
        Ok(()) => End::Clean,
        Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => End::Reset,
            _ => End::Failed(format!("{error:#}")),
        },
    };
    shared
        .reports
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push_back(report);
    shared.reported.notify_all();
}

fn converse(
    socket: TcpStream,
    shared: &Shared,
    tls: Option<&EdgeTls>,
    report: &mut Report,
    progress: &mut Progress,
) -> Result<()> {
    report.local = unmapped(socket.local_addr()?);
    let tls = tls.map(EdgeTls::accept).transpose()?;
    let deadline = Deadline::after(CONNECTION_LIMIT);
    let mut channel = Channel::new(socket, tls, deadline, Arc::clone(&shared.stop))?;
    if let Some(rustls::Connection::Server(tls)) = channel.tls() {
        report.server_name = tls.server_name().map(str::to_owned);
    }
    let mut bytes = [0; REQUEST_LENGTH];
    channel.read_exact(&mut bytes)?;
    // Over plain TCP, a hello that somebody else has written may stand before it.
    let mut greets = false;
    while let Some(rest) = rest_of_hello(&bytes)? {
        greets = true;
        let mut unread = vec![0; rest];
        channel.read_exact(&mut unread)?;
        let both = [bytes.as_slice(), &unread].concat();
        bytes.copy_from_slice(&both[rest..]);
    }
    let request = Request::decode(&bytes)?;
    progress.request = Some(request);
    if request.action == Action::Reset {
        return Ok(channel.reset()?);
    }
    if greets {
        channel.write_all(&shared.greeting)?;
        channel.flush()?;
    }
    let done = perform(&mut channel, request, progress, report.peer);
    report.retransmitted = channel.retransmitted()?;
    done
}

fn perform(
    channel: &mut Channel,
    request: Request,
    progress: &mut Progress,
    peer: SocketAddr,
) -> Result<()> {
    let own = Pattern::new(request.seed, request.send);
    let nothing = Pattern::new(request.seed, 0);
    match request.action {
        Action::Exchange | Action::ExchangeLate => {
            if request.action == Action::ExchangeLate {
                thread::sleep(PAUSE);
            }
            let received = channel.transfer(own, Until::Bytes(request.receive))?;
            progress.received = Some(received);
            channel.write_all(&received.hash)?;
            channel.finish_sending()?;
            channel.transfer(nothing, Until::End)?;
        }
        Action::AnswerAfterEnd => {
            progress.received = Some(channel.transfer(nothing, Until::End)?);
            thread::sleep(LATE);
            channel.transfer(own, Until::Bytes(0))?;
            channel.finish_sending()?;
        }
        Action::EndThenReceive => {
            channel.transfer(own, Until::Bytes(0))?;
            channel.finish_sending()?;
            progress.received = Some(channel.transfer(nothing, Until::End)?);
        }
        Action::Echo => {
            let mut buffer = [0; 16 * 1024];
            loop {
                let length = channel.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                channel.set_deadline(Deadline::after(CONNECTION_LIMIT));
                channel.write_all(&buffer[..length])?;
                channel.flush()?;
            }
            channel.finish_sending()?;
        }
        Action::Count => {
            let mut buffer = vec![0; 64 * 1024];
            let mut count = 0_u64;
            loop {
                let length = channel.read(&mut buffer)?;
                count += length as u64;
                if buffer[..length].last() != Some(&0) {
                    break;
                }
            }
            channel.write_all(&count.to_be_bytes())?;
            channel.finish_sending()?;
            channel.transfer(nothing, Until::End)?;
        }
        Action::WhoAmI => {
            channel.write_all(peer.to_string().as_bytes())?;
            channel.finish_sending()?;
            channel.transfer(nothing, Until::End)?;
        }
        Action::Reset => unreachable!("a reset takes the channel and is done by the caller"),
    }
    Ok(())
}
