//! Connections to a [`StreamEdge`](super::StreamEdge): a ClientHello, and then bytes as they are.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::partner::open_socket;
use super::pattern::Pattern;
use super::request::{Action, Request};
use super::stream_edge::GREETING;
use super::tls::client_hello;
use crate::deadline::Deadline;
use crate::netns::Namespace;

/// A kilobyte: what a SIP message takes.
const MESSAGE: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(30);
/// As much as a socket takes at once.
const CHUNK: usize = 256 * 1024;

/// Where streams are opened from, and where to.
#[derive(Clone, Debug)]
pub struct Opener<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) address: SocketAddr,
    pub(super) hello: Vec<u8>,
    /// Of [`Opener::setups`], in turn; the kernel's choice if there are none.
    pub(super) sources: Vec<IpAddr>,
}

/// An open connection whose hello has reached the Edge.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    message: [u8; MESSAGE],
}

impl<'a> Opener<'a> {
    /// From `namespace` to `address`, asking for `server_name`.
    ///
    /// # Errors
    /// The name is none.
    pub fn new(namespace: &'a Namespace, address: SocketAddr, server_name: &str) -> Result<Self> {
        Ok(Self {
            namespace,
            address,
            hello: client_hello(server_name)?,
            sources: Vec::new(),
        })
    }

    /// Likewise, with [`Opener::setups`] from each of these addresses in turn: every one has ports for tens of thousands of connections in a minute.
    #[must_use]
    pub fn from_each_of(self, sources: Vec<IpAddr>) -> Self {
        Self { sources, ..self }
    }

    /// So many streams to an Edge that echoes, for [`Stream::ping`] and [`converse`]. Each has been there and back.
    ///
    /// # Errors
    /// One of them fails.
    pub fn echoing(&self, count: usize) -> Result<Vec<Stream>> {
        let mut streams = self.open(count, Action::Echo)?;
        for stream in &mut streams {
            stream.ping()?;
        }
        Ok(streams)
    }

    /// So many streams to an Edge that counts, for [`pour`].
    ///
    /// # Errors
    /// One of them fails.
    pub fn counting(&self, count: usize) -> Result<Vec<Stream>> {
        self.open(count, Action::Count)
    }

    fn open(&self, count: usize, action: Action) -> Result<Vec<Stream>> {
        let open = |index| {
            self.open_one(action, index as u64)
                .with_context(|| format!("stream {} of {count} to {}", index + 1, self.address))
        };
        self.namespace.run(|| (0..count).map(open).collect())
    }

    /// In the caller's own namespace.
    fn open_one(&self, action: Action, seed: u64) -> Result<Stream> {
        let mut socket = open_socket(None, self.address, TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        socket.write_all(&self.hello)?;
        let mut greeting = [0; GREETING];
        socket.read_exact(&mut greeting)?;
        ensure!(
            self.hello.starts_with(&greeting),
            "{greeting:02x?} is no answer to the hello"
        );
        let request = Request {
            action,
            send: 0,
            receive: 0,
            seed,
        };
        socket.write_all(&request.encode())?;
        let mut message = [0; MESSAGE];
        Pattern::new(seed, MESSAGE as u64).fill(&mut message);
        Ok(Stream { socket, message })
    }
}

impl Stream {
    /// The partner's own end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends a kilobyte, waits for it to come back, and returns how long that took.
    ///
    /// # Errors
    /// The connection is broken, or something else came back.
    pub fn ping(&mut self) -> Result<Duration> {
        self.renew();
        let mut received = [0; MESSAGE];
        let start = Instant::now();
        self.socket.write_all(&self.message)?;
        self.socket.read_exact(&mut received)?;
        let time = start.elapsed();
        ensure!(
            received == self.message,
            "another kilobyte came back than was sent"
        );
        Ok(time)
    }

    /// Makes the message another one than the last.
    fn renew(&mut self) {
        if let Some(number) = self.message.first_chunk_mut() {
            *number = u64::from_ne_bytes(*number).wrapping_add(1).to_ne_bytes();
        }
    }
}

/// Keeps one message under way on each stream for so long and returns how many came back.
///
/// # Errors
/// A connection breaks or stalls, or something else comes back.
pub fn converse(streams: &mut [Stream], time: Duration) -> Result<u64> {
    struct Progress<'s> {
        stream: &'s mut Stream,
        received: usize,
    }

    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut all = Vec::new();
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.socket.set_nonblocking(true)?;
        epoll.add(
            stream.socket.as_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, index as u64),
        )?;
        all.push(Progress {
            stream,
            received: 0,
        });
    }
    let end = Instant::now() + time;
    for one in &mut all {
        one.stream.renew();
        one.stream.socket.write_all(&one.stream.message)?;
    }
    let mut under_way = all.len();
    let mut count = 0;
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = [0; MESSAGE];
    while under_way > 0 {
        let ready = wait(&epoll, &mut events)?;
        ensure!(ready > 0, "{under_way} messages have not come back");
        let more = Instant::now() < end;
        for event in &events[..ready] {
            let one = usize::try_from(event.data())
                .ok()
                .and_then(|n| all.get_mut(n))
                .context("an event of a stream that is not there")?;
            let room = MESSAGE - one.received;
            let length = match one.stream.socket.read(&mut buffer[..room]) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            ensure!(length > 0, "the Edge has ended a stream");
            let expected = &one.stream.message[one.received..][..length];
            ensure!(
                buffer[..length] == *expected,
                "another kilobyte came back than was sent"
            );
            one.received += length;
            if one.received < MESSAGE {
                continue;
            }
            count += 1;
            if more {
                one.received = 0;
                one.stream.renew();
                one.stream.socket.write_all(&one.stream.message)?;
            } else {
                under_way -= 1;
            }
        }
    }
    drop(epoll);
    for stream in streams {
        stream.socket.set_nonblocking(false)?;
    }
    Ok(count)
}

/// Sends zeros on all streams at once for so long, and returns how many bytes the Edge has received once it has them all.
///
/// # Errors
/// A connection breaks or stalls, or the Edge has received another number than was sent.
pub fn pour(streams: &mut [Stream], time: Duration) -> Result<u64> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, stream) in streams.iter().enumerate() {
        stream.socket.set_nonblocking(true)?;
        epoll.add(
            stream.socket.as_fd(),
            EpollEvent::new(EpollFlags::EPOLLOUT, index as u64),
        )?;
    }
    let zeros = vec![0; CHUNK];
    let mut sent = vec![0_u64; streams.len()];
    let mut events = [EpollEvent::empty(); 64];
    let end = Instant::now() + time;
    while Instant::now() < end {
        let ready = wait(&epoll, &mut events)?;
        ensure!(ready > 0, "no stream takes any more bytes");
        for event in &events[..ready] {
            let index = usize::try_from(event.data())?;
            match streams[index].socket.write(&zeros) {
                Ok(length) => sent[index] += length as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    drop(epoll);
    for stream in streams.iter_mut() {
        stream.socket.set_nonblocking(false)?;
        stream.socket.write_all(&[1])?;
    }
    let mut total = 0;
    for (stream, sent) in streams.iter_mut().zip(sent) {
        let mut counted = [0; 8];
        let counted = match stream.socket.read_exact(&mut counted) {
            Ok(()) => u64::from_be_bytes(counted),
            Err(error) => return Err(error).context("the Edge's count"),
        };
        ensure!(
            counted == sent + 1,
            "the Edge has received {counted} of {sent} bytes and the last"
        );
        total += counted;
    }
    Ok(total)
}

/// Some events, or none for half a minute.
pub(super) fn wait(epoll: &Epoll, events: &mut [EpollEvent]) -> Result<usize> {
    let deadline = Deadline::after(TIMEOUT);
    loop {
        let left = EpollTimeout::try_from(deadline.remaining())?;
        match epoll.wait(events, left) {
            // A signal of the lab's own, such as that of a child's end.
            Err(Errno::EINTR) => {}
            ready => return Ok(ready?),
        }
    }
}
