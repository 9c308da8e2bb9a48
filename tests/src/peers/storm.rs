//! Many partners at once, each connecting again and again: load for what must not lose a connection, and for benches.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustls::HandshakeKind;

use super::channel::{Channel, Until};
use super::partner::{Partner, open_socket};
use super::pattern::{Hash, Hasher, Pattern};
use super::request::{Action, GREETING, Request};
use super::tls::PartnerTls;
use crate::deadline::Deadline;

/// What an Edge has to send back on each connection.
const ECHO: usize = 256;

/// Connections under way; dropping it ends them.
///
/// Each is a full handshake, unless it is told to resume, followed by an echo of some bytes by a Rust [`Edge`](super::Edge), and
/// is closed by the client and then by the other side.
#[derive(Debug)]
pub struct Storm {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Result<()>>>,
    start: Instant,
}

/// How many connections a storm makes.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// So many, also counting those that fail.
    Connections(usize),
    /// As many as are begun in this time.
    Time(Duration),
}

/// What came of a storm.
#[derive(Clone, Debug)]
pub struct StormReport {
    /// From its start to the end of the last connection.
    pub duration: Duration,
    /// The connections that went well, in the order in which they ended.
    pub connections: Vec<StormConnection>,
    /// How many failed, by what went wrong: `connect: connection refused`, `handshake: received fatal alert: …`.
    pub failures: BTreeMap<String, usize>,
}

/// One connection that went well.
#[derive(Clone, Copy, Debug)]
pub struct StormConnection {
    /// When its SYN was sent.
    pub started: Instant,
    /// From then to the end of the TLS handshake, or of TCP's.
    pub setup: Duration,
    /// From then to its end.
    pub duration: Duration,
    /// The SHA-256 of the certificate that the server presented; all zero without TLS.
    pub certificate: Hash,
    /// Whether its TLS session goes on from an earlier one.
    pub resumed: bool,
}

#[derive(Debug)]
struct Shared {
    stop: Arc<AtomicBool>,
    /// How many may still be begun.
    tickets: AtomicUsize,
    end: Option<Instant>,
    results: Mutex<Results>,
}

#[derive(Debug, Default)]
struct Results {
    connections: Vec<StormConnection>,
    failures: BTreeMap<String, usize>,
}

impl Storm {
    /// Starts `clients` parallel clients that connect to `address` the way `partner` does, until `limit` is reached or
    /// the storm is told to stop.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(
        partner: &Partner<'_>,
        address: SocketAddr,
        clients: usize,
        limit: Limit,
    ) -> Result<Self> {
        let tls = partner.tls.cloned().map(PartnerTls::without_resumption);
        Self::start_with(partner, tls, address, clients, limit)
    }

    /// Likewise, but clients go on from earlier sessions, their own and those of storms before with the same [`PartnerTls`].
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn resuming(
        partner: &Partner<'_>,
        address: SocketAddr,
        clients: usize,
        limit: Limit,
    ) -> Result<Self> {
        Self::start_with(partner, partner.tls.cloned(), address, clients, limit)
    }

    fn start_with(
        partner: &Partner<'_>,
        tls: Option<PartnerTls>,
        address: SocketAddr,
        clients: usize,
        limit: Limit,
    ) -> Result<Self> {
        // One address has 28 000 ports, and each would rest for a minute after its connection.
        partner.namespace.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        let start = Instant::now();
        let (tickets, end) = match limit {
            Limit::Connections(count) => (count, None),
            Limit::Time(time) => (usize::MAX, Some(start + time)),
        };
        let shared = Arc::new(Shared {
            stop: Arc::new(AtomicBool::new(false)),
            tickets: AtomicUsize::new(tickets),
            end,
            results: Mutex::default(),
        });
        let client = Client {
            source: partner.source,
            tls,
            timeout: partner.timeout,
            address,
        };
        let mut storm = Self {
            shared,
            clients: Vec::new(),
            start,
        };
        for _ in 0..clients {
            let (client, shared) = (client.clone(), Arc::clone(&storm.shared));
            let body = move || {
                client.run(&shared);
                Ok(())
            };
            storm.clients.push(partner.namespace.thread("storm", body)?);
        }
        Ok(storm)
    }

    /// Waits until `count` connections have ended, well or not.
    ///
    /// # Errors
    /// They do not in time.
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Result<()> {
        let what = format!("{count} connections of a storm");
        Deadline::after(timeout).poll(&what, || Ok((self.ended() >= count).then_some(())))
    }

    /// How many connections have ended so far, well or not.
    #[must_use]
    pub fn ended(&self) -> usize {
        let results = self.shared.results();
        results.connections.len() + results.failures.values().sum::<usize>()
    }

    /// Begins no further connection and waits for those under way.
    ///
    /// # Errors
    /// A client could not enter its namespace.
    pub fn stop(self) -> Result<StormReport> {
        self.shared.tickets.store(0, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until the limit is reached.
    ///
    /// # Errors
    /// A client could not enter its namespace.
    pub fn finish(mut self) -> Result<StormReport> {
        for client in std::mem::take(&mut self.clients) {
            client
                .join()
                .map_err(|_| anyhow!("a client of a storm panicked"))??;
        }
        let results = std::mem::take(&mut *self.shared.results());
        Ok(StormReport {
            duration: self.start.elapsed(),
            connections: results.connections,
            failures: results.failures,
        })
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.shared.tickets.store(0, Ordering::Relaxed);
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            match client.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("a client of a storm failed: {error:#}"),
                Err(_) => eprintln!("a client of a storm panicked"),
            }
        }
    }
}

impl StormReport {
    /// Connections per second that went well.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.connections.len() as f64 / self.duration.as_secs_f64()
    }

    /// How many got which certificate, by its SHA-256.
    #[must_use]
    pub fn certificates(&self) -> BTreeMap<Hash, usize> {
        let mut counts = BTreeMap::new();
        for connection in &self.connections {
            *counts.entry(connection.certificate).or_default() += 1;
        }
        counts
    }

    /// # Errors
    /// A connection failed, or there was none at all.
    pub fn ensure_no_failure(&self) -> Result<()> {
        let well = self.connections.len();
        ensure!(
            self.failures.is_empty(),
            "{well} connections went well, but {:?}",
            self.failures
        );
        ensure!(well > 0, "a storm without a connection");
        Ok(())
    }
}

impl Shared {
    /// Whether one more connection may be begun.
    fn take_ticket(&self) -> bool {
        let in_time = self.end.is_none_or(|end| Instant::now() < end);
        in_time
            && self
                .tickets
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok()
    }

    fn results(&self) -> std::sync::MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the parallel clients, inside its namespace.
#[derive(Clone, Debug)]
struct Client {
    source: Option<SocketAddr>,
    tls: Option<PartnerTls>,
    timeout: Duration,
    address: SocketAddr,
}

impl Client {
    fn run(&self, shared: &Shared) {
        let mut seed = 0;
        while shared.take_ticket() {
            seed += 1;
            let result = self.connect(seed, &shared.stop);
            let mut results = shared.results();
            match result {
                Ok(connection) => results.connections.push(connection),
                Err(error) => *results.failures.entry(kind(&error)).or_default() += 1,
            }
        }
    }

    fn connect(&self, seed: u64, stop: &Arc<AtomicBool>) -> Result<StormConnection> {
        let started = Instant::now();
        let deadline = Deadline::after(self.timeout);
        let socket = open_socket(self.source, self.address, self.timeout).context("connect")?;
        let tls = self
            .tls
            .as_ref()
            .map(PartnerTls::connect)
            .transpose()?
            .flatten();
        let mut channel =
            Channel::new(socket, tls, deadline, Arc::clone(stop)).context("handshake")?;
        let setup = started.elapsed();
        let kind = channel.tls().and_then(|tls| tls.handshake_kind());
        let certificate = channel
            .tls()
            .and_then(|tls| tls.peer_certificates()?.first());
        let certificate = certificate.map_or([0; 32], |certificate| {
            let mut hasher = Hasher::new();
            hasher.update(certificate);
            hasher.finish()
        });
        let hello = self
            .tls
            .as_ref()
            .map_or(&[][..], |tls| tls.replayed_hello());
        channel.write_all(hello).context("hello")?;
        echo(&mut channel, seed, !hello.is_empty()).context("echo")?;
        Ok(StormConnection {
            started,
            setup,
            duration: started.elapsed(),
            certificate,
            resumed: kind == Some(HandshakeKind::Resumed),
        })
    }
}

fn echo(channel: &mut Channel, seed: u64, greeted: bool) -> Result<()> {
    let request = Request {
        action: Action::Echo,
        send: 0,
        receive: 0,
        seed,
    };
    let mut sent = [0; ECHO];
    Pattern::new(seed, ECHO as u64).fill(&mut sent);
    channel.write_all(&request.encode())?;
    if greeted {
        channel.flush()?;
        let mut greeting = [0; GREETING.len()];
        channel.read_exact(&mut greeting)?;
        ensure!(greeting == GREETING, "greeted with {greeting:02x?}");
    }
    channel.write_all(&sent)?;
    channel.flush()?;
    let mut received = [0; ECHO];
    channel.read_exact(&mut received)?;
    ensure!(sent == received, "other bytes came back than were sent");
    channel.finish_sending()?;
    match channel.transfer(Pattern::new(seed, 0), Until::End) {
        Ok(rest) => ensure!(rest.bytes == 0, "bytes came that nobody asked for"),
        // A FIN without close_notify: nginx says nothing more once it has been told goodbye, and nothing is lost by it.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// A failure without what differs from one connection to the next, as ports do.
fn kind(error: &anyhow::Error) -> String {
    let io = error.downcast_ref::<std::io::Error>();
    let cause = match io.map(std::io::Error::kind) {
        // rustls's words, with the alert or the certificate's fault.
        None | Some(ErrorKind::InvalidData | ErrorKind::Other) => error.root_cause().to_string(),
        Some(kind) => kind.to_string(),
    };
    format!("{error}: {cause}")
}
