//! Connections under way: some that stay and talk all the time, and others that come, say something and go.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Scope},
    time::{Duration, Instant},
};

use anyhow::{Error, Result};

use super::{
    Way,
    stage::Clients,
    tally::{Excuse, Loss, Phase, Tally},
};
use crate::{deadline::Deadline, peers::Connection};

/// Connections that stay, of each way and family.
const HELD: usize = 3;
/// How often those that go say something before.
const PINGS: u32 = 3;
/// Between two pings of a thread. There are two processors for everything.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest that anything may take that is to happen. On a slow machine, behind a link that was down, that is long.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// The connections of a scenario, on threads of their own.
pub(super) struct Load<'a> {
    clients: &'a Clients<'a>,
    stop: AtomicBool,
    /// Whoever comes and goes waits.
    paused: AtomicBool,
    /// Since when all that is held is.
    held: OnceLock<Instant>,
    tally: Mutex<Tally>,
    /// For each thread of connections that stay, how often each of them was heard of, and for each of others how many have completed.
    rounds: Vec<(Way, AtomicU64)>,
    idle: Vec<AtomicBool>,
    local: Mutex<BTreeMap<SocketAddr, Way>>,
}

/// One connection of a thread.
struct Open {
    connection: Connection,
    opened: Instant,
}

impl<'a> Load<'a> {
    pub(super) fn new(clients: &'a Clients<'a>) -> Self {
        let keepers = Way::ALL.into_iter().flat_map(|way| [way, way]);
        let rounds = keepers.chain(Way::ALL).map(|way| (way, AtomicU64::new(0)));
        Self {
            clients,
            stop: AtomicBool::new(false),
            paused: AtomicBool::new(true),
            held: OnceLock::new(),
            tally: Mutex::default(),
            rounds: rounds.collect(),
            idle: Way::ALL.map(|_| AtomicBool::new(false)).into(),
            local: Mutex::default(),
        }
    }

    /// Starts the threads. Nobody comes and goes before [`Load::hold`].
    pub(super) fn start<'s>(&'s self, scope: &'s Scope<'s, '_>) {
        for (index, (way, _)) in self.rounds.iter().enumerate() {
            let way = *way;
            if let Some(family) = (index < 2 * Way::ALL.len()).then_some(index % 2) {
                scope.spawn(move || self.keep(index, way, way.addresses()[family]));
            } else {
                scope.spawn(move || self.come_and_go(index, way));
            }
        }
    }

    /// From here on what stays is held, and others come and go.
    pub(super) fn hold(&self) {
        // Once.
        let _ = self.held.set(Instant::now());
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Waits until nobody is coming or going; what is open then stays.
    pub(super) fn pause(&self) -> Result<()> {
        self.paused.store(true, Ordering::Relaxed);
        Deadline::after(PATIENCE).poll("connections that come and go to have gone", || {
            let all = self.idle.iter().all(|idle| idle.load(Ordering::Relaxed));
            Ok(all.then_some(()))
        })
    }

    pub(super) fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Ends all connections in good order.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn excuse(&self, excuse: Excuse) {
        self.tally().excuses.push(excuse);
    }

    pub(super) fn result(&self) -> Tally {
        self.tally().clone()
    }

    /// The clients of connections that stay, and which way they go.
    pub(super) fn clients_held(&self) -> BTreeMap<SocketAddr, Way> {
        self.local().clone()
    }

    /// Waits until all that stay have been heard of once more.
    pub(super) fn wait_for_held(&self, ways: impl Fn(Way) -> bool) -> Result<()> {
        self.wait_for("what stays to be heard of", 0..2 * Way::ALL.len(), ways)
    }

    /// Waits until one more of each way has come and gone well.
    pub(super) fn wait_for_new(&self, ways: impl Fn(Way) -> bool) -> Result<()> {
        let new = 2 * Way::ALL.len()..self.rounds.len();
        self.wait_for("new connections to go well", new, ways)
    }

    fn wait_for(
        &self,
        what: &str,
        threads: std::ops::Range<usize>,
        ways: impl Fn(Way) -> bool,
    ) -> Result<()> {
        let wanted: Vec<_> = self.rounds[threads]
            .iter()
            .filter(|(way, _)| ways(*way))
            .collect();
        let count = |(_, rounds): &&(Way, AtomicU64)| rounds.load(Ordering::Relaxed);
        // The one under way now may have begun before.
        let before: Vec<_> = wanted.iter().map(count).collect();
        let deadline = Deadline::after(PATIENCE);
        let goes_on = |(thread, before): (&&(Way, AtomicU64), &u64)| count(thread) >= before + 2;
        let outcome = deadline.poll(what, || {
            Ok(wanted.iter().zip(&before).all(goes_on).then_some(()))
        });
        outcome.map_err(|error| {
            let late = wanted.iter().zip(&before).filter(|it| !goes_on(*it));
            let late: Vec<_> = late.map(|((way, _), _)| way.name()).collect();
            error.context(format!("{late:?}"))
        })
    }

    /// Some connections that stay, and talk in turns.
    fn keep(&self, thread: usize, way: Way, address: SocketAddr) {
        let mut open: Vec<Open> = Vec::new();
        while !self.is_stopped() {
            while open.len() < HELD && !self.is_stopped() {
                match self.open(way, address) {
                    Some(new) => {
                        self.local().insert(new.connection.local(), way);
                        open.push(new);
                    }
                    None => thread::sleep(10 * PAUSE),
                }
            }
            for mut one in std::mem::take(&mut open) {
                match one.connection.ping() {
                    Ok(_) => open.push(one),
                    Err(error) => self.lost_open(way, &one, &error),
                }
                thread::sleep(PAUSE);
            }
            if open.len() == HELD {
                self.rounds[thread].1.fetch_add(1, Ordering::Relaxed);
            }
        }
        for one in open {
            self.close(way, one);
        }
    }

    /// One connection after the other, of both families in turn.
    fn come_and_go(&self, thread: usize, way: Way) {
        let idle = &self.idle[thread - 2 * Way::ALL.len()];
        for address in way.addresses().into_iter().cycle() {
            idle.store(true, Ordering::Relaxed);
            while self.paused.load(Ordering::Relaxed) && !self.is_stopped() {
                thread::sleep(PAUSE);
            }
            if self.is_stopped() {
                return;
            }
            idle.store(false, Ordering::Relaxed);
            thread::sleep(PAUSE);
            let Some(mut one) = self.open(way, address) else {
                thread::sleep(10 * PAUSE);
                continue;
            };
            let said = (0..PINGS).try_for_each(|_| {
                thread::sleep(PAUSE);
                one.connection.ping().map(drop)
            });
            let completed = match said {
                Ok(()) => self.close(way, one),
                Err(error) => {
                    self.lost_open(way, &one, &error);
                    false
                }
            };
            if completed {
                self.rounds[thread].1.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A connection whose bytes have been to an Edge and back.
    fn open(&self, way: Way, address: SocketAddr) -> Option<Open> {
        let opened = Instant::now();
        *self.tally().opened.entry(way).or_default() += 1;
        match self.clients.partner(way).echo(address) {
            Ok(connection) => Some(Open { connection, opened }),
            Err(error) => {
                self.lose(way, Phase::Opening, opened, None, &error);
                None
            }
        }
    }

    fn close(&self, way: Way, one: Open) -> bool {
        let (opened, client) = (one.opened, one.connection.local());
        match one.connection.close() {
            Ok(_) => {
                *self.tally().completed.entry(way).or_default() += 1;
                true
            }
            Err(error) => {
                self.lose(way, self.phase(opened), opened, Some(client), &error);
                false
            }
        }
    }

    fn lost_open(&self, way: Way, one: &Open, error: &Error) {
        let (opened, client) = (one.opened, one.connection.local());
        self.local().remove(&client);
        self.lose(way, self.phase(opened), opened, Some(client), error);
    }

    fn lose(
        &self,
        way: Way,
        phase: Phase,
        opened: Instant,
        client: Option<SocketAddr>,
        error: &Error,
    ) {
        self.tally().losses.push(Loss {
            way,
            phase,
            symptom: symptom(error),
            client,
            opened,
        });
    }

    fn phase(&self, opened: Instant) -> Phase {
        match self.held.get() {
            Some(held) if opened < *held => Phase::Held,
            _ => Phase::Established,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Way>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client has seen, in a word or two.
fn symptom(error: &Error) -> String {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    match io.map(std::io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => "refused".to_owned(),
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected) => {
            "reset".to_owned()
        }
        Some(ErrorKind::TimedOut) => "timed out".to_owned(),
        Some(ErrorKind::UnexpectedEof) => "closed".to_owned(),
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
            "unreachable".to_owned()
        }
        _ => error.root_cause().to_string(),
    }
}
