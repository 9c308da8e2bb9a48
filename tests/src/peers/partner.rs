//! A partner that talks to the Rust [`Edge`](super::Edge).

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use socket2::{Domain, Socket, Type};

use super::TlsVersion;
use super::channel::{Channel, Until, unmapped};
use super::failure::{LocalEnd, WrongBytes};
use super::pattern::{Hash, Pattern};
use super::request::{Action, GREETING, Greeting, PAUSE, Request};
use super::tls::PartnerTls;
use crate::deadline::Deadline;
use crate::netns::Namespace;

/// How long a partner stays silent before it sends on after the Edge's half-close.
const LATE: Duration = Duration::from_millis(500);

/// Where connections come from, and how.
#[derive(Clone, Debug)]
pub struct Partner<'a> {
    /// The namespace they are made in.
    pub namespace: &'a Namespace,
    /// The address they come from, and the port where it is not 0; `None` leaves it to the kernel.
    pub source: Option<SocketAddr>,
    /// TLS, or plain TCP without it.
    pub tls: Option<&'a PartnerTls>,
    /// How long each conversation may take.
    pub timeout: Duration,
}

/// A conversation that went well: every byte arrived, in both directions.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// The partner's own end.
    pub local: SocketAddr,
    /// From the SYN to the end of the TLS handshake, or of TCP's.
    pub setup: Duration,
    /// From the request to the last byte.
    pub duration: Duration,
    /// The TLS version spoken.
    pub version: Option<TlsVersion>,
    /// Segments the partner sent again.
    pub retransmitted: u32,
}

impl Partner<'_> {
    /// Sends and receives so many bytes at once; both ends compare hashes.
    ///
    /// # Errors
    /// The connection fails, or a byte is wrong.
    pub fn exchange(&self, address: SocketAddr, send: u64, receive: u64) -> Result<Conversation> {
        self.request(address, Action::Exchange, receive, send)?
            .exchange(send, receive)
    }

    /// The same, but the Edge does not receive for [`PAUSE`] at first.
    ///
    /// # Errors
    /// As for [`Self::exchange`].
    pub fn exchange_with_late_edge(
        &self,
        address: SocketAddr,
        send: u64,
        receive: u64,
    ) -> Result<Conversation> {
        self.request(address, Action::ExchangeLate, receive, send)?
            .exchange(send, receive)
    }

    /// The same, but the partner does not receive for [`PAUSE`] at first.
    ///
    /// # Errors
    /// As for [`Self::exchange`].
    pub fn exchange_late(
        &self,
        address: SocketAddr,
        send: u64,
        receive: u64,
    ) -> Result<Conversation> {
        let connection = self.request(address, Action::Exchange, receive, send)?;
        thread::sleep(PAUSE);
        connection.exchange(send, receive)
    }

    /// Sends all there is to send in one go, from the hello and the request on, and receives only then. No more than fits
    /// into the buffers on the way.
    ///
    /// # Errors
    /// As for [`Self::exchange`].
    pub fn exchange_in_a_burst(
        &self,
        address: SocketAddr,
        send: u64,
        receive: u64,
    ) -> Result<Conversation> {
        let hello = self.tls.map_or(&[][..], PartnerTls::replayed_hello);
        let mut connection = self.open(address)?;
        let request = connection.request(Action::Exchange, receive, send);
        let mut burst = [hello, &request.encode()].concat();
        let mut own = connection.own_pattern(send);
        let mut buffer = [0; 8192];
        while !own.is_empty() {
            let length = own.fill(&mut buffer);
            burst.extend_from_slice(&buffer[..length]);
        }
        connection.channel.write_all(&burst)?;
        connection.channel.flush()?;
        if !hello.is_empty() {
            connection.greeted(self.greeting())?;
        }
        let hash = connection.own_pattern(send).hash();
        connection.compare(own, hash, receive)
    }

    /// The same `count` times at once.
    ///
    /// # Errors
    /// Any of them fails; the message tells how many and shows the first.
    pub fn exchange_in_parallel(
        &self,
        count: usize,
        address: SocketAddr,
        send: u64,
        receive: u64,
    ) -> Result<Vec<Conversation>> {
        let results: Vec<Result<Conversation>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..count)
                .map(|_| scope.spawn(|| self.exchange(address, send, receive)))
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
                })
                .collect()
        });
        let failed = results.iter().filter(|result| result.is_err()).count();
        results
            .into_iter()
            .collect::<Result<_>>()
            .with_context(|| format!("{failed} of {count} parallel connections failed; the first"))
    }

    /// Sends, half-closes, and receives an answer that comes late.
    ///
    /// # Errors
    /// The connection fails, or a byte of the answer is wrong.
    pub fn half_close(&self, address: SocketAddr, send: u64, receive: u64) -> Result<Conversation> {
        let mut connection = self.request(address, Action::AnswerAfterEnd, receive, 0)?;
        let (own, theirs) = (
            connection.own_pattern(send),
            connection.their_pattern(receive),
        );
        connection.channel.transfer(own, Until::Bytes(0))?;
        connection.channel.finish_sending()?;
        let nothing = connection.own_pattern(0);
        let received = connection.channel.transfer(nothing, Until::End)?;
        ensure!(
            received.bytes == receive && received.hash == theirs.hash(),
            "{} of {receive} bytes came after the half-close, or the wrong ones",
            received.bytes
        );
        connection.summary()
    }

    /// Receives until the Edge half-closes, then sends late; the Edge's report says what arrived.
    ///
    /// # Errors
    /// The connection fails, or a byte from the Edge is wrong.
    pub fn half_closed(
        &self,
        address: SocketAddr,
        send: u64,
        receive: u64,
    ) -> Result<Conversation> {
        let mut connection = self.request(address, Action::EndThenReceive, receive, 0)?;
        let (own, theirs) = (
            connection.own_pattern(send),
            connection.their_pattern(receive),
        );
        let nothing = connection.own_pattern(0);
        let received = connection.channel.transfer(nothing, Until::End)?;
        ensure!(
            received.bytes == receive && received.hash == theirs.hash(),
            "{} of {receive} bytes came before the half-close, or the wrong ones",
            received.bytes
        );
        thread::sleep(LATE);
        connection.channel.transfer(own, Until::Bytes(0))?;
        connection.channel.finish_sending()?;
        connection.summary()
    }

    /// Asks the Edge to reset the connection and expects the RST; returns the partner's own end.
    ///
    /// # Errors
    /// The connection does not end, or otherwise.
    pub fn be_reset(&self, address: SocketAddr) -> Result<SocketAddr> {
        let mut connection = self.request(address, Action::Reset, 0, 0)?;
        match connection.channel.read(&mut [0; 16]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(connection.local),
            Err(error) => Err(error).context("no RST from the Edge arrived"),
            Ok(length) => bail!("{length} bytes arrived instead of a RST"),
        }
    }

    /// Opens a connection and resets it; the Edge's report says whether the RST arrived. Returns the partner's own end.
    ///
    /// # Errors
    /// The connection fails before.
    pub fn reset(&self, address: SocketAddr) -> Result<SocketAddr> {
        let connection = self.echo(address)?;
        let local = connection.local;
        connection.reset()?;
        Ok(local)
    }

    /// Asks which address and port the Edge sees.
    ///
    /// # Errors
    /// The connection fails.
    pub fn who_am_i(&self, address: SocketAddr) -> Result<SocketAddr> {
        let mut connection = self.request(address, Action::WhoAmI, 0, 0)?;
        let mut text = String::new();
        connection.channel.read_to_string(&mut text)?;
        connection.channel.finish_sending()?;
        text.parse()
            .with_context(|| format!("the Edge's answer {text:?}"))
    }

    /// Opens a connection that stays: see [`Connection::ping`].
    ///
    /// # Errors
    /// The connection fails; where there was one, the error has its [`LocalEnd`].
    pub fn echo(&self, address: SocketAddr) -> Result<Connection> {
        let mut connection = self.open(address)?;
        let local = LocalEnd(connection.local);
        self.ask(&mut connection, Action::Echo, 0, 0)
            .and_then(|()| connection.ping())
            .context(local)?;
        Ok(connection)
    }

    /// Sends zeros for so long and returns how many the Edge has received: bulk that costs this machine little at its ends. The conversation's
    /// duration goes on until the Edge has it all.
    ///
    /// # Errors
    /// The connection fails, or the Edge has not received what was sent.
    pub fn pour(&self, address: SocketAddr, time: Duration) -> Result<(u64, Conversation)> {
        let mut connection = self.request(address, Action::Count, 0, 0)?;
        let end = Instant::now() + time;
        let zeros = [0; 64 * 1024];
        let mut sent = 0;
        while Instant::now() < end {
            connection.channel.write_all(&zeros)?;
            sent += zeros.len() as u64;
        }
        connection.channel.write_all(&[1])?;
        connection.channel.flush()?;
        let mut received = [0; 8];
        connection
            .channel
            .read_exact(&mut received)
            .context("the Edge's count")?;
        let received = u64::from_be_bytes(received);
        ensure!(
            received == sent + 1,
            "the Edge at {address} has received {received} of {sent} bytes and the last"
        );
        let conversation = connection.summary()?;
        connection.channel.finish_sending()?;
        Ok((received, conversation))
    }

    fn request(
        &self,
        address: SocketAddr,
        action: Action,
        send: u64,
        receive: u64,
    ) -> Result<Connection> {
        let mut connection = self.open(address)?;
        self.ask(&mut connection, action, send, receive)?;
        Ok(connection)
    }

    fn ask(
        &self,
        connection: &mut Connection,
        action: Action,
        send: u64,
        receive: u64,
    ) -> Result<()> {
        let request = connection.request(action, send, receive);
        let hello = self.tls.map_or(&[][..], PartnerTls::replayed_hello);
        let first = [hello, &request.encode()].concat();
        connection.channel.write_all(&first)?;
        connection.channel.flush()?;
        if !hello.is_empty() && action != Action::Reset {
            connection.greeted(self.greeting())?;
        }
        Ok(())
    }

    fn greeting(&self) -> Greeting {
        self.tls.map_or(GREETING, PartnerTls::greeting)
    }

    fn open(&self, address: SocketAddr) -> Result<Connection> {
        let start = Instant::now();
        let channel = self.connect(address).with_context(|| {
            format!(
                "connecting from namespace {} to {address}",
                self.namespace.name()
            )
        })?;
        let local = channel.local()?;
        Ok(Connection {
            channel,
            local,
            timeout: self.timeout,
            setup: start.elapsed(),
            established: Instant::now(),
            // The port makes parallel connections different from each other.
            seed: u64::from(local.port()) << 1,
            pings: 0,
        })
    }

    pub(super) fn connect(&self, address: SocketAddr) -> Result<Channel> {
        let socket = self
            .namespace
            .run(|| Ok(open_socket(self.source, address, self.timeout)?))?;
        let tls = self.tls.map(PartnerTls::connect).transpose()?.flatten();
        let local = LocalEnd(unmapped(socket.local_addr()?));
        let never = Arc::new(AtomicBool::new(false));
        Channel::new(socket, tls, Deadline::after(self.timeout), never).context(local)
    }
}

/// Connects over TCP in the caller's own namespace, from this address, and this port where it is not 0.
///
/// # Errors
/// The kernel's.
pub fn open_socket(
    source: Option<SocketAddr>,
    address: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(source) = source {
        // The port of a connection that has ended may be used again.
        socket.set_reuse_address(source.port() != 0)?;
        socket.bind(&source.into())?;
    }
    socket.connect_timeout(&address.into(), timeout)?;
    Ok(socket.into())
}

/// An open connection to an Edge that echoes.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    local: SocketAddr,
    timeout: Duration,
    setup: Duration,
    established: Instant,
    seed: u64,
    pings: u64,
}

impl Connection {
    /// Waits for the Edge's first word.
    fn greeted(&mut self, expected: Greeting) -> Result<()> {
        let mut greeting = Greeting::default();
        self.channel.read_exact(&mut greeting)?;
        if greeting != expected {
            bail!(WrongBytes(format!("greeted with {greeting:02x?}")));
        }
        Ok(())
    }

    /// The partner's own end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The socket, for what only the kernel can tell or set.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.channel.socket()
    }

    /// Sends a kilobyte, waits for it to come back, and returns how long that took.
    ///
    /// # Errors
    /// The connection is broken, or something else came back.
    pub fn ping(&mut self) -> Result<Duration> {
        self.channel.set_deadline(Deadline::after(self.timeout));
        let mut sent = [0; 1024];
        self.pings += 1;
        Pattern::new(self.seed + self.pings, 1024).fill(&mut sent);
        let start = Instant::now();
        self.channel.write_all(&sent)?;
        self.channel.flush()?;
        let mut received = [0; 1024];
        self.channel.read_exact(&mut received)?;
        if sent != received {
            let what = "another kilobyte came back than was sent";
            bail!(WrongBytes(what.to_owned()));
        }
        Ok(start.elapsed())
    }

    /// Ends the connection with a RST.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reset(self) -> Result<()> {
        Ok(self.channel.reset()?)
    }

    /// Closes both ways, waiting for the Edge to do the same.
    ///
    /// # Errors
    /// The Edge does not, or something else comes.
    pub fn close(mut self) -> Result<Conversation> {
        self.channel.finish_sending()?;
        let nothing = self.own_pattern(0);
        let rest = self.channel.transfer(nothing, Until::End)?;
        if rest.bytes != 0 {
            let what = format!("{} bytes came that nobody asked for", rest.bytes);
            bail!(WrongBytes(what));
        }
        self.summary()
    }

    fn request(&self, action: Action, send: u64, receive: u64) -> Request {
        Request {
            action,
            send,
            receive,
            seed: self.seed,
        }
    }

    fn exchange(self, send: u64, receive: u64) -> Result<Conversation> {
        let own = self.own_pattern(send);
        let hash = own.clone().hash();
        self.compare(own, hash, receive)
    }

    /// Sends what is left to send, receives, and has both ends say whether all of it was right.
    fn compare(mut self, rest: Pattern, sent: Hash, receive: u64) -> Result<Conversation> {
        let received = self.channel.transfer(rest, Until::Bytes(receive))?;
        ensure!(
            received.hash == self.their_pattern(receive).hash(),
            "the {receive} bytes from the Edge are not those it sent"
        );
        let mut theirs = [0; 32];
        self.channel
            .read_exact(&mut theirs)
            .context("the Edge's hash")?;
        ensure!(
            theirs == sent,
            "the bytes that the Edge received are not those sent"
        );
        self.close()
    }

    fn their_pattern(&self, length: u64) -> Pattern {
        Pattern::new(self.seed, length)
    }

    fn own_pattern(&self, length: u64) -> Pattern {
        Pattern::new(self.seed + 1, length)
    }

    fn summary(&self) -> Result<Conversation> {
        Ok(Conversation {
            local: self.local,
            setup: self.setup,
            duration: self.established.elapsed(),
            version: match self.channel.tls().and_then(|tls| tls.protocol_version()) {
                Some(rustls::ProtocolVersion::TLSv1_2) => Some(TlsVersion::V12),
                Some(rustls::ProtocolVersion::TLSv1_3) => Some(TlsVersion::V13),
                _ => None,
            },
            retransmitted: self.channel.retransmitted()?,
        })
    }
}
