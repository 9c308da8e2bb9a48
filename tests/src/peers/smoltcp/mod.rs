//! An endpoint that is not Linux: smoltcp's TCP on a packet socket, with an address that no kernel has.
//!
//! Its options, its windows and its timestamps are its own, no offload takes part, and it looks at every checksum itself. In a conversation it keeps to the words of
//! [`Partner`](super::Partner) and [`Edge`](super::Edge).

mod link;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, RecvError, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use self::link::Link;
use super::edge::LATE;
use super::pattern::{Hash, Hasher, Pattern};
use super::replay::rest_of_hello;
use super::request::{Action, GREETING, REQUEST_LENGTH, Request};
use crate::addresses::Host;
use crate::deadline::Deadline;
use crate::line;
use crate::netns::Namespace;

/// Window scale 3: it follows from the buffer (RFC 7323 section 2.3).
const BUFFER: usize = 256 * 1024;
/// How long the endpoint sleeps at most while it waits for something.
const STEP: Duration = Duration::from_millis(20);
/// Longer than the two delayed acknowledgements that may still be under way after an end.
const LINGER: Duration = Duration::from_millis(300);

/// A host of smoltcp's on the link `eth0` of a namespace, beside the kernel's.
pub struct Smoltcp {
    device: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    addresses: Host,
}

/// What it saw of one connection.
#[derive(Clone, Debug)]
pub struct SmoltcpReport {
    /// The other side, as it saw it.
    pub peer: SocketAddr,
    /// What it was asked for, as an Edge.
    pub request: Option<Request>,
    /// Bytes received behind hello and request.
    pub received: u64,
    /// Whether the connection ended by a RST from the other side.
    pub reset: bool,
}

impl Smoltcp {
    /// The MAC address of the host with these addresses: locally administered (IEEE 802), and not that of the kernel's interface.
    #[must_use]
    pub fn mac(addresses: Host) -> [u8; 6] {
        let [.., low] = addresses.v4.octets();
        [2, 0, 0, 0, 0x5e, low]
    }

    /// A host with `addresses`, that reaches everything by way of `router`.
    ///
    /// # Errors
    /// There is no `eth0`, or the kernel refuses.
    pub fn new(
        namespace: &Namespace,
        addresses: Host,
        router: Host,
        timestamps: bool,
    ) -> Result<Self> {
        // It gets segments as they were sent, and their checksums: GRO has to be on (see `topology::link`) and may join
        // nothing.
        namespace.ip("link set dev eth0 gro_max_size 1")?;
        let line = namespace.run(|| line::open_incoming("eth0"))?;
        let mut device = Link::new(line);
        let mut config = Config::new(EthernetAddress(Self::mac(addresses)).into());
        config.random_seed = fastrand::u64(..);
        let mut interface = Interface::new(config, &mut device, Instant::now());
        let mut full = false;
        interface.update_ip_addrs(|own| {
            full = own.push(IpCidr::new(addresses.v4.into(), 25)).is_err()
                || own.push(IpCidr::new(addresses.v6.into(), 64)).is_err();
        });
        ensure!(!full, "smoltcp has no room for two addresses");
        let routes = interface.routes_mut();
        routes.add_default_ipv4_route(router.v4)?;
        routes.add_default_ipv6_route(router.v6)?;

        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        if timestamps {
            socket.set_tsval_generator(Some(milliseconds));
        }
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Ok(Self {
            device,
            interface,
            sockets,
            socket,
            addresses,
        })
    }

    /// Segments that arrived with a wrong checksum.
    #[must_use]
    pub fn wrong_checksums(&self) -> u64 {
        self.device.wrong_checksums
    }

    /// As a partner: connects, sends `hello`, asks an Edge for `action`, and does its own part of it, with so many bytes
    /// each way. [`Action::Echo`] stands for a connection that the partner resets.
    ///
    /// # Errors
    /// The connection fails, or a byte is wrong.
    pub fn ask(
        &mut self,
        address: SocketAddr,
        hello: &[u8],
        action: Action,
        bytes: u64,
        deadline: Deadline,
    ) -> Result<SmoltcpReport> {
        static PORT: AtomicU32 = AtomicU32::new(0);
        let port = 20_000 + u16::try_from(PORT.fetch_add(1, Ordering::Relaxed) % 10_000)?;
        let own: IpAddress = match address {
            SocketAddr::V4(_) => self.addresses.v4.into(),
            SocketAddr::V6(_) => self.addresses.v6.into(),
        };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        let remote = (IpAddress::from(address.ip()), address.port());
        socket
            .connect(self.interface.context(), remote, (own, port))
            .map_err(|error| io::Error::other(error.to_string()))?;
        self.wait("the connection", deadline, |socket| {
            (socket.state() != State::SynSent).then_some(())
        })?;
        let seed = u64::from(port) << 1;
        let request = Request {
            action,
            send: bytes,
            receive: bytes,
            seed,
        };
        self.send(&[hello, &request.encode()].concat(), deadline)?;
        if action != Action::Reset {
            let mut greeting = [0; GREETING.len()];
            self.receive(&mut greeting, deadline)?;
            ensure!(greeting == GREETING, "greeted with {greeting:02x?}");
        }
        let report = self.partner(action, bytes, seed, deadline);
        self.end(deadline)?;
        Ok(SmoltcpReport {
            peer: address,
            ..report?
        })
    }

    /// As an Edge: waits for one connection to `port` and does what it asks.
    ///
    /// # Errors
    /// No connection comes, it fails, or it asks for something else than an exchange, a half-close, an echo or a reset.
    pub fn serve(&mut self, port: u16, deadline: Deadline) -> Result<SmoltcpReport> {
        self.sockets
            .get_mut::<tcp::Socket<'_>>(self.socket)
            .listen(port)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let peer = self.wait("a connection", deadline, |socket| {
            let established = !matches!(socket.state(), State::Listen | State::SynReceived);
            socket.remote_endpoint().filter(|_| established)
        })?;
        let report = self.edge(deadline);
        self.end(deadline)?;
        Ok(SmoltcpReport {
            peer: SocketAddr::new(IpAddr::from(peer.addr), peer.port),
            ..report?
        })
    }

    fn partner(
        &mut self,
        action: Action,
        bytes: u64,
        seed: u64,
        deadline: Deadline,
    ) -> Result<SmoltcpReport> {
        let (own, theirs) = (Pattern::new(seed + 1, bytes), Pattern::new(seed, bytes));
        let expected = theirs.hash();
        let nothing = Pattern::new(seed, 0);
        let mut report = nothing_yet();
        match action {
            Action::Exchange | Action::ExchangeLate => {
                let sent = own.clone().hash();
                let received = self.transfer(own, Some(bytes), deadline)?;
                ensure!(received.hash == expected, "other bytes than the Edge sent");
                report.received = received.bytes;
                let mut hash = [0; 32];
                self.receive(&mut hash, deadline)?;
                ensure!(hash == sent, "the Edge received other bytes");
                self.close();
                let rest = self.transfer(nothing, None, deadline)?;
                ensure!(rest.bytes == 0, "{} bytes too many", rest.bytes);
            }
            Action::AnswerAfterEnd => {
                self.transfer(own, Some(0), deadline)?;
                self.close();
                let received = self.transfer(nothing, None, deadline)?;
                ensure!(received.hash == expected, "other bytes than the Edge sent");
                report.received = received.bytes;
            }
            Action::EndThenReceive => {
                let received = self.transfer(nothing, None, deadline)?;
                ensure!(received.hash == expected, "other bytes than the Edge sent");
                report.received = received.bytes;
                self.idle(LATE)?;
                self.transfer(own, Some(0), deadline)?;
                self.close();
            }
            Action::Reset => match self.receive(&mut [0; 1], deadline) {
                Err(error) if is_reset(&error) => report.reset = true,
                Err(error) => return Err(error.context("no RST came")),
                Ok(()) => bail!("a byte came instead of a RST"),
            },
            Action::Echo => {
                let mut buffer = [0; 1024];
                Pattern::new(seed + 1, 1024).fill(&mut buffer);
                self.send(&buffer, deadline)?;
                let mut back = [0; 1024];
                self.receive(&mut back, deadline)?;
                ensure!(back == buffer, "another kilobyte came back");
                report.received = 1024;
                self.abort();
            }
            Action::WhoAmI | Action::Count => bail!("{action:?} is not for this partner"),
        }
        Ok(report)
    }

    fn edge(&mut self, deadline: Deadline) -> Result<SmoltcpReport> {
        let mut bytes = [0; REQUEST_LENGTH];
        self.receive(&mut bytes, deadline)?;
        while let Some(rest) = rest_of_hello(&bytes)? {
            let mut unread = vec![0; rest];
            self.receive(&mut unread, deadline)?;
            let both = [bytes.as_slice(), &unread].concat();
            bytes.copy_from_slice(&both[rest..]);
        }
        let request = Request::decode(&bytes)?;
        let mut report = nothing_yet();
        report.request = Some(request);
        let own = Pattern::new(request.seed, request.send);
        let nothing = Pattern::new(request.seed, 0);
        if request.action != Action::Reset {
            self.send(&GREETING, deadline)?;
        }
        match request.action {
            Action::Exchange => {
                let received = self.transfer(own, Some(request.receive), deadline)?;
                report.received = received.bytes;
                self.send(&received.hash, deadline)?;
                self.close();
                self.transfer(nothing, None, deadline)?;
            }
            Action::AnswerAfterEnd => {
                report.received = self.transfer(nothing, None, deadline)?.bytes;
                self.idle(LATE)?;
                self.transfer(own, Some(0), deadline)?;
                self.close();
            }
            Action::EndThenReceive => {
                self.transfer(own, Some(0), deadline)?;
                self.close();
                report.received = self.transfer(nothing, None, deadline)?.bytes;
            }
            Action::Reset => self.abort(),
            Action::Echo => loop {
                let mut byte = [0; 1];
                match self.receive(&mut byte, deadline) {
                    Ok(()) => {
                        report.received += 1;
                        self.send(&byte, deadline)?;
                    }
                    Err(error) if is_reset(&error) => {
                        report.reset = true;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            },
            other => bail!("{other:?} is not for this Edge"),
        }
        Ok(report)
    }

    /// Sends all of `outgoing` and receives so many bytes, or all up to the end, both at once.
    fn transfer(
        &mut self,
        mut outgoing: Pattern,
        receive: Option<u64>,
        deadline: Deadline,
    ) -> Result<Received> {
        let mut out = [0; 16 * 1024];
        let mut unsent = 0..0;
        let mut input = [0; 16 * 1024];
        let mut hasher = Some(Hasher::new());
        let mut bytes = 0;
        let mut receiving = receive != Some(0);
        let hash = self.wait("a transfer", deadline, |socket| {
            loop {
                if unsent.is_empty() && !outgoing.is_empty() {
                    unsent = 0..outgoing.fill(&mut out);
                }
                // An error is met by the receiving side, or by what follows.
                let sent = socket.send_slice(&out[unsent.clone()]).unwrap_or(0);
                unsent.start += sent;
                let mut taken = 0;
                if receiving {
                    let room = receive.map_or(input.len(), |wanted| {
                        usize::try_from(wanted - bytes).map_or(input.len(), |n| n.min(input.len()))
                    });
                    match socket.recv_slice(&mut input[..room]) {
                        Ok(length) => {
                            taken = length;
                            if let Some(hasher) = &mut hasher {
                                hasher.update(&input[..length]);
                            }
                            bytes += length as u64;
                            receiving = receive != Some(bytes);
                        }
                        Err(RecvError::Finished) if receive.is_none() => receiving = false,
                        // Ended too early: the state says it below.
                        Err(_) => {}
                    }
                }
                if !receiving && unsent.is_empty() && outgoing.is_empty() {
                    return hasher.take().map(Hasher::finish);
                }
                if sent == 0 && taken == 0 {
                    return None;
                }
            }
        })?;
        Ok(Received { bytes, hash })
    }

    fn send(&mut self, bytes: &[u8], deadline: Deadline) -> Result<()> {
        let mut rest = bytes;
        self.wait("room to send", deadline, |socket| {
            let sent = socket.send_slice(rest).unwrap_or(0);
            rest = &rest[sent..];
            rest.is_empty().then_some(())
        })
    }

    fn receive(&mut self, bytes: &mut [u8], deadline: Deadline) -> Result<()> {
        let mut have = 0;
        self.wait("bytes", deadline, |socket| {
            have += socket.recv_slice(&mut bytes[have..]).unwrap_or(0);
            (have == bytes.len()).then_some(())
        })
    }

    fn close(&mut self) {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).close();
    }

    fn abort(&mut self) {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).abort();
    }

    /// Goes on until both directions have ended and been acknowledged, so that the socket is free for another.
    fn end(&mut self, deadline: Deadline) -> Result<()> {
        loop {
            self.step()?;
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
            match socket.state() {
                State::TimeWait | State::Closed => break,
                _ if deadline.expired() => {
                    let state = socket.state();
                    socket.abort();
                    self.step()?;
                    bail!("the connection stays in {state}");
                }
                _ => {}
            }
        }
        // The last acknowledgement leaves, and what may still be coming is answered.
        self.idle(LINGER)?;
        self.abort();
        self.step()
    }

    fn idle(&mut self, time: Duration) -> Result<()> {
        let idle = Deadline::after(time);
        while !idle.expired() {
            self.step()?;
        }
        Ok(())
    }

    /// Goes on until `done` answers.
    fn wait<T>(
        &mut self,
        what: &str,
        deadline: Deadline,
        mut done: impl FnMut(&mut tcp::Socket<'_>) -> Option<T>,
    ) -> Result<T> {
        loop {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
            if let Some(answer) = done(socket) {
                return Ok(answer);
            }
            // smoltcp does not tell a RST from other ends but by this state, which none of ours leads to while we wait.
            if socket.state() == State::Closed {
                return Err(io::Error::from(ErrorKind::ConnectionReset))
                    .with_context(|| format!("while waiting for {what}"));
            }
            if socket.state() != State::Listen && !socket.may_recv() && socket.recv_queue() == 0 {
                let waiting = matches!(socket.state(), State::SynSent | State::SynReceived);
                ensure!(
                    waiting || socket.may_send() || socket.send_queue() > 0,
                    "the connection ended while waiting for {what}"
                );
            }
            ensure!(
                !deadline.expired(),
                "waited in vain for {what}, in {}",
                socket.state()
            );
            self.step()?;
        }
    }

    /// Takes what has arrived, sends what is due, and sleeps for a moment if there was neither.
    fn step(&mut self) -> Result<()> {
        self.device.take_in()?;
        let now = Instant::now();
        let changed = self
            .interface
            .poll(now, &mut self.device, &mut self.sockets);
        if changed != smoltcp::iface::PollResult::None || self.device.has_frames() {
            return Ok(());
        }
        let next = self.interface.poll_delay(now, &self.sockets);
        let sleep = next.map_or(STEP, |next| Duration::from(next).min(STEP));
        ppoll(
            &mut [PollFd::new(self.device.line.as_fd(), PollFlags::POLLIN)],
            Some(TimeSpec::from_duration(sleep)),
            None,
        )?;
        Ok(())
    }
}

struct Received {
    bytes: u64,
    hash: Hash,
}

fn nothing_yet() -> SmoltcpReport {
    SmoltcpReport {
        peer: SocketAddr::from(([0, 0, 0, 0], 0)),
        request: None,
        received: 0,
        reset: false,
    }
}

fn is_reset(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(io::Error::kind);
    kind == Some(ErrorKind::ConnectionReset)
}

fn milliseconds() -> u32 {
    // Wraps after 49 days, as it may.
    Instant::now().total_millis() as u32
}
