//! Connections under way: some that stay and talk all the time, and others that come, say something and go.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, ErrorKind},
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Scope},
    time::{Duration, Instant},
};

use anyhow::{Error, Result};

use super::{
    Way,
    stage::Clients,
    tally::{Excuse, Life, Loss, Phase, Symptom, Tally},
};
use crate::{
    deadline::Deadline,
    peers::{Connection, LocalEnd, WrongBytes},
};

/// Connections that stay, of each way and family.
const HELD: usize = 3;
/// How often those that go say something before.
const PINGS: u32 = 3;
/// Between two pings of a thread. There are two processors for everything.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest that anything may take that is to happen. On a slow machine, behind a link that was down, that is long.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// Connections to be handed off whose ends are remembered: more than end while an agent is dead.
const LIVES: usize = 10_000;

/// The connections of a scenario, on threads of their own.
pub(super) struct Load<'a> {
    clients: &'a Clients<'a>,
    stop: AtomicBool,
    /// Whoever comes and goes has it to read, for as long as it is there.
    coming: RwLock<()>,
    /// Since when all that is held is. Nobody comes and goes before.
    held: OnceLock<Instant>,
    tally: Mutex<Tally>,
    lives: Mutex<VecDeque<Life>>,
    keepers: Vec<Keeper>,
    comers: Vec<Comer>,
    local: Mutex<BTreeMap<SocketAddr, Way>>,
}

/// A thread of connections that stay.
struct Keeper {
    way: Way,
    address: SocketAddr,
    /// How often each of them was heard of.
    rounds: AtomicU64,
}

/// A thread of one connection after the other.
struct Comer {
    way: Way,
    /// How many have completed.
    rounds: AtomicU64,
}

/// One connection of a thread.
struct Open {
    connection: Connection,
    opened: Instant,
}

/// Ends the load when it is dropped: whoever plays a scenario may panic, and its threads are waited for all the same.
pub(super) struct Stop<'a>(&'a Load<'a>);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl<'a> Load<'a> {
    pub(super) fn new(clients: &'a Clients<'a>) -> Self {
        let keepers = Way::ALL.into_iter().flat_map(|way| {
            way.addresses().map(|address| Keeper {
                way,
                address,
                rounds: AtomicU64::new(0),
            })
        });
        let comers = Way::ALL.map(|way| Comer {
            way,
            rounds: AtomicU64::new(0),
        });
        Self {
            clients,
            stop: AtomicBool::new(false),
            coming: RwLock::default(),
            held: OnceLock::new(),
            tally: Mutex::default(),
            lives: Mutex::default(),
            keepers: keepers.collect(),
            comers: comers.into(),
            local: Mutex::default(),
        }
    }

    /// Starts the threads; they end, with their connections in good order, when what is returned is dropped. Nobody comes and goes before [`Load::hold`].
    pub(super) fn start<'s>(&'s self, scope: &'s Scope<'s, '_>) -> Stop<'s> {
        let stop = Stop(self);
        for keeper in &self.keepers {
            scope.spawn(move || self.keep(keeper));
        }
        for comer in &self.comers {
            scope.spawn(move || self.come_and_go(comer));
        }
        stop
    }

    /// From here on what stays is held, and others come and go.
    pub(super) fn hold(&self) {
        // Once.
        let _ = self.held.set(Instant::now());
    }

    /// Waits until nobody is coming or going. Until what is returned is dropped, nobody does; what is open stays.
    pub(super) fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        // Each connection has its time limit.
        self.coming.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn excuse(&self, excuse: Excuse) {
        self.tally().excuses.push(excuse);
    }

    pub(super) fn result(&self) -> Tally {
        self.tally().clone()
    }

    /// Waits for a loss that must come.
    pub(super) fn wait_for_loss(&self, what: &str, is_it: impl Fn(&Loss) -> bool) -> Result<()> {
        Deadline::after(PATIENCE).poll(what, || {
            let found = self.tally().losses.iter().any(&is_it);
            Ok(found.then_some(()))
        })
    }

    /// The clients of connections that stay, and which way they go.
    pub(super) fn clients_held(&self) -> BTreeMap<SocketAddr, Way> {
        self.local().clone()
    }

    /// How many of these clients, whose connections were opened after `since`, had them open at this time, and have ended them meanwhile.
    pub(super) fn lived_through(
        &self,
        when: &RangeInclusive<Instant>,
        since: Instant,
        clients: &BTreeSet<SocketAddr>,
    ) -> usize {
        lived_through(&self.lives(), when, since, clients)
    }

    /// Waits until all that stay have been heard of once more.
    pub(super) fn wait_for_held(&self, ways: impl Fn(Way) -> bool) -> Result<()> {
        let keepers = self.keepers.iter().map(|it| (it.way, &it.rounds));
        wait_for("what stays to be heard of", keepers, ways)
    }

    /// Waits until one more of each way has come and gone well.
    pub(super) fn wait_for_new(&self, ways: impl Fn(Way) -> bool) -> Result<()> {
        let comers = self.comers.iter().map(|it| (it.way, &it.rounds));
        wait_for("new connections to go well", comers, ways)
    }

    /// Some connections that stay, and talk in turns.
    fn keep(&self, keeper: &Keeper) {
        let way = keeper.way;
        let mut open: Vec<Open> = Vec::new();
        while !self.is_stopped() {
            while open.len() < HELD && !self.is_stopped() {
                match self.open(way, keeper.address) {
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
                keeper.rounds.fetch_add(1, Ordering::Relaxed);
            }
        }
        for one in open {
            self.close(way, one);
        }
    }

    /// One connection after the other, of both families in turn.
    fn come_and_go(&self, comer: &Comer) {
        while self.held.get().is_none() && !self.is_stopped() {
            thread::sleep(PAUSE);
        }
        for address in comer.way.addresses().into_iter().cycle() {
            thread::sleep(PAUSE);
            let _coming = self.coming.read().unwrap_or_else(PoisonError::into_inner);
            if self.is_stopped() {
                return;
            }
            if self.comes_and_goes(comer.way, address) {
                comer.rounds.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether one has done so.
    fn comes_and_goes(&self, way: Way, address: SocketAddr) -> bool {
        let Some(mut one) = self.open(way, address) else {
            thread::sleep(10 * PAUSE);
            return false;
        };
        let said = (0..PINGS).try_for_each(|_| {
            thread::sleep(PAUSE);
            one.connection.ping().map(drop)
        });
        match said {
            Ok(()) => self.close(way, one),
            Err(error) => {
                self.lost_open(way, &one, &error);
                false
            }
        }
    }

    /// A connection whose bytes have been to an Edge and back.
    fn open(&self, way: Way, address: SocketAddr) -> Option<Open> {
        let opened = Instant::now();
        *self.tally().opened.entry(way).or_default() += 1;
        match self.clients.partner(way, address).echo(address) {
            Ok(connection) => Some(Open { connection, opened }),
            Err(error) => {
                let client = error.downcast_ref().map(|LocalEnd(client)| *client);
                self.lose(way, Phase::Opening, opened, client, &error);
                None
            }
        }
    }

    fn close(&self, way: Way, one: Open) -> bool {
        let (opened, client) = (one.opened, one.connection.local());
        match one.connection.close() {
            Ok(_) => {
                *self.tally().completed.entry(way).or_default() += 1;
                self.lived(way, client, opened);
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
            lost: Instant::now(),
        });
        if let Some(client) = client {
            self.lived(way, client, opened);
        }
    }

    fn lived(&self, way: Way, client: SocketAddr, opened: Instant) {
        if way != Way::HandedOff {
            return;
        }
        let mut lives = self.lives();
        lives.truncate(LIVES - 1);
        lives.push_front(Life {
            client,
            opened,
            ended: Instant::now(),
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

    fn lives(&self) -> MutexGuard<'_, VecDeque<Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Way>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lived_through(
    lives: &VecDeque<Life>,
    when: &RangeInclusive<Instant>,
    since: Instant,
    clients: &BTreeSet<SocketAddr>,
) -> usize {
    let there = lives.iter().filter(|life| {
        clients.contains(&life.client)
            && (since..=*when.end()).contains(&life.opened)
            && life.ended >= *when.start()
    });
    there.count()
}

/// Waits until all threads of these ways have gone round.
fn wait_for<'t>(
    what: &str,
    threads: impl Iterator<Item = (Way, &'t AtomicU64)>,
    ways: impl Fn(Way) -> bool,
) -> Result<()> {
    let load = |rounds: &AtomicU64| rounds.load(Ordering::Relaxed);
    let wanted: Vec<_> = threads
        .filter(|(way, _)| ways(*way))
        .map(|(way, rounds)| (way, rounds, load(rounds)))
        .collect();
    // The one under way now may have begun before.
    let goes_on = |(_, rounds, before): &(Way, &AtomicU64, u64)| load(rounds) >= before + 2;
    let outcome =
        Deadline::after(PATIENCE).poll(what, || Ok(wanted.iter().all(goes_on).then_some(())));
    outcome.map_err(|error| {
        let late = wanted.iter().filter(|thread| !goes_on(thread));
        let late: Vec<_> = late.map(|(way, ..)| way.name()).collect();
        error.context(format!("{late:?}"))
    })
}

/// What a client has seen, in a word or two.
fn symptom(error: &Error) -> Symptom {
    if error.chain().any(|cause| cause.is::<WrongBytes>()) {
        return Symptom::WrongBytes;
    }
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>());
    let told = match io.map(io::Error::kind) {
        Some(ErrorKind::InvalidData) if is_damage(error) => return Symptom::WrongBytes,
        Some(ErrorKind::ConnectionRefused) => "refused",
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected) => {
            "reset"
        }
        Some(ErrorKind::TimedOut) => "timed out",
        Some(ErrorKind::UnexpectedEof) => "closed",
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => "unreachable",
        _ => return Symptom::Told(error.root_cause().to_string()),
    };
    Symptom::Told(told.to_owned())
}

/// Whether TLS has met bytes that no peer of its has sent, or the other end says so (RFC 8446, section 6.2).
fn is_damage(error: &Error) -> bool {
    let said = error.root_cause().to_string();
    match said.strip_prefix("received fatal alert: ") {
        Some(alert) => [
            "BadRecordMac",
            "DecryptError",
            "DecodeError",
            "UnexpectedMessage",
        ]
        .iter()
        .any(|it| alert.starts_with(it)),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_are_told_from_refusals() {
        let invalid = |text: &str| io::Error::new(ErrorKind::InvalidData, text.to_owned());
        let told = |text: &str| Symptom::Told(text.to_owned());
        let client = LocalEnd("198.51.100.1:4711".parse().expect("an address"));
        let wrong = Error::new(WrongBytes("another".to_owned()));
        for (error, expected) in [
            (wrong.context(client), Symptom::WrongBytes),
            (
                invalid("cannot decrypt peer's message").into(),
                Symptom::WrongBytes,
            ),
            (
                invalid("received fatal alert: BadRecordMac").into(),
                Symptom::WrongBytes,
            ),
            (
                invalid("received fatal alert: CertificateExpired").into(),
                told("received fatal alert: CertificateExpired"),
            ),
            (
                Error::new(io::Error::from(ErrorKind::ConnectionReset)).context(client),
                told("reset"),
            ),
        ] {
            assert_eq!(symptom(&error), expected, "{error:#}");
        }
    }

    #[test]
    fn whoever_was_there_is_told_from_who_was_not() -> Result<()> {
        let client: SocketAddr = "198.51.100.1:4711".parse()?;
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let death = at(10)..=at(11);
        for (opened, ended, client, expected) in [
            (9, 12, client, 1),
            (9, 10, client, 1),
            (1, 9, client, 0),
            (1, 12, client, 0),
            (12, 13, client, 0),
            (9, 12, "198.51.100.1:4712".parse()?, 0),
        ] {
            let life = Life {
                client,
                opened: at(opened),
                ended: at(ended),
            };
            let listed = BTreeSet::from(["198.51.100.1:4711".parse()?]);
            let lived = lived_through(&[life].into(), &death, at(5), &listed);
            assert_eq!(lived, expected, "from {opened} to {ended}");
        }
        Ok(())
    }
}
