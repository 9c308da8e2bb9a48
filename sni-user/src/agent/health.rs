//! The health of Edges: has them checked, and the datapath and the agent's pools go by what comes of it.
//!
//! Checks are tasks of their own; what they find is taken by the agent's one loop, which also loads configurations, so that no state is written into a
//! pool that is about to be another one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sni_common::contract::EdgeState;
use tokio::{
    select,
    sync::Notify,
    task::{JoinError, JoinSet},
    time::sleep_until,
};

use crate::{
    config::Name,
    control::{EdgeChanged, EdgeStatus, Refusal, RefusalKind},
    datapath::Maps,
    edges::{Edge, Health},
    proxy::{Active, CheckError, Proxy, check},
};

/// Checks of one Edge come this part of the interval earlier or later than the interval says, so that those of many Edges, and of several gateways, spread.
const JITTER: u32 = 10;

/// What makes two Edges the same one.
type Key = (Name, SocketAddr);

/// The health of every Edge of the configuration, for whoever asks.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<BTreeMap<Key, Health>>);

/// The checks, and what is done about them.
pub(super) struct Supervision {
    board: Arc<Board>,
    plans: HashMap<Key, Plan>,
    checks: JoinSet<(Key, Result<String, CheckError>)>,
    trouble: Arc<Notify>,
    /// Whether the last check could not be made.
    blind: bool,
    random: RandomState,
    draws: u64,
}

/// What is to be done about one Edge.
#[derive(Debug, Default)]
struct Plan {
    /// When it is to be checked: not while it is, and never without `health`.
    due: Option<Instant>,
    /// What the datapath was told, of which slot.
    told: Option<(u16, EdgeState)>,
}

/// What there is to do.
pub(super) enum Event {
    /// Some Edge is to be checked.
    Due,
    /// A check has come to an end.
    Checked(Result<(Key, Result<String, CheckError>), JoinError>),
    /// Connects have failed.
    Trouble,
}

impl Board {
    /// Every Edge, by name.
    pub(super) fn status(&self) -> Vec<EdgeStatus> {
        let now = Instant::now();
        let ms = |then: Instant| {
            u64::try_from(now.saturating_duration_since(then).as_millis()).unwrap_or(u64::MAX)
        };
        let line = |((name, address), health): (&Key, &Health)| EdgeStatus {
            name: name.to_string(),
            address: *address,
            state: health.state().name().to_owned(),
            since_ms: ms(health.since()),
            why: health.why(),
            checked_ms: health.last_checked().map(ms),
        };
        self.lock().iter().map(line).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Health>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervision {
    /// Nothing is supervised before [`Supervision::follow`].
    pub(super) fn new(active: &Active) -> Self {
        Self {
            board: Arc::default(),
            plans: HashMap::new(),
            checks: JoinSet::new(),
            trouble: active.edges.trouble(),
            blind: false,
            random: RandomState::new(),
            draws: 0,
        }
    }

    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Goes by a configuration: what is known of its Edges goes on, of the others nothing is kept. Of an Edge that is new here, the datapath may know what an
    /// earlier agent has left.
    pub(super) fn follow(&mut self, maps: &mut Maps, active: &Active) {
        let configured: HashSet<_> = active.edges.iter().map(|edge| key(edge)).collect();
        self.plans.retain(|key, _| configured.contains(key));
        self.board.lock().retain(|key, _| configured.contains(key));
        let now = Instant::now();
        for edge in active.edges.iter() {
            let slot = slot(active, edge);
            let left = slot.and_then(|slot| match maps.edge_state(slot) {
                Ok(state) => Some((slot, state)),
                Err(error) => {
                    tracing::error!(%error, edge = %edge.config.name, "the state of an Edge can't be read; it is written anew");
                    None
                }
            });
            let first = self.first_pause(edge);
            let plan = self.plans.entry(key(edge)).or_default();
            plan.told = left;
            let state = left.map_or(EdgeState::Up, |(_, state)| state);
            let mut board = self.board.lock();
            let health = board
                .entry(key(edge))
                .or_insert_with(|| Health::new(state, now));
            match first {
                Some(pause) if plan.due.is_none() => plan.due = Some(now + pause),
                Some(_) => {}
                None => {
                    plan.due = None;
                    health.unchecked(now);
                }
            }
        }
        self.settle(maps, active);
    }

    /// Waits for something to do. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Event {
        let due = self.plans.values().filter_map(|plan| plan.due).min();
        let due = async {
            match due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        select! {
            Some(done) = self.checks.join_next() => Event::Checked(done),
            () = self.trouble.notified() => Event::Trouble,
            () = due => Event::Due,
        }
    }

    /// Does it.
    pub(super) fn handle(&mut self, event: Event, maps: &mut Maps, proxy: &Arc<Proxy>) {
        let active = proxy.active();
        match event {
            Event::Due => self.begin_checks(proxy, &active),
            Event::Trouble => self.eject(maps, &active),
            Event::Checked(Ok((key, result))) => self.take(&key, result, maps, &active),
            Event::Checked(Err(panic)) => {
                tracing::error!(%panic, "a check has ended unexpectedly; report this");
                // Whose it was is not known.
                for edge in active.edges.iter() {
                    self.plan(edge);
                }
            }
        }
    }

    /// Has an Edge checked, unless that is planned already.
    fn plan(&mut self, edge: &Edge) {
        let Some(health) = &edge.config.health else {
            return;
        };
        let pause = self.pause(health.interval);
        let plan = self.plans.entry(key(edge)).or_default();
        plan.due.get_or_insert_with(|| Instant::now() + pause);
    }

    fn begin_checks(&mut self, proxy: &Arc<Proxy>, active: &Arc<Active>) {
        let now = Instant::now();
        for edge in active.edges.iter() {
            let Some(health) = edge.config.health.clone() else {
                continue;
            };
            let plan = self.plans.entry(key(edge)).or_default();
            if plan.due.take_if(|due| *due <= now).is_none() {
                continue;
            }
            let (proxy, active, edge) = (Arc::clone(proxy), Arc::clone(active), Arc::clone(edge));
            self.checks.spawn(async move {
                let result = check(&proxy, &active, &edge, &health).await;
                (key(&edge), result)
            });
        }
    }

    fn take(
        &mut self,
        key: &Key,
        result: Result<String, CheckError>,
        maps: &mut Maps,
        active: &Active,
    ) {
        let edge = find(active, key);
        // The configuration may have lost it, or its `health`, meanwhile.
        let Some((edge, limits)) = edge.and_then(|edge| Some((edge, edge.config.health.as_ref()?)))
        else {
            return;
        };
        self.plan(edge);
        tracing::debug!(edge = %edge.config.name, ?result, "checked");
        // Says nothing of the Edge, which stays what it is.
        if let Err(CheckError::NotMade(error)) = &result {
            // Once, however many there are and however long it lasts.
            if !mem::replace(&mut self.blind, true) {
                tracing::warn!(%error, edge = %edge.config.name, "an Edge can't be checked for want of the gateway's own, and stays what it is");
            }
            return;
        }
        self.blind = false;
        if result.is_ok() {
            edge.connected();
        }
        let result = result.map_err(|error| error.to_string());
        let changed = (self.board.lock().get_mut(key))
            .is_some_and(|health| health.checked(result, limits, Instant::now()));
        if changed || self.is_behind(active, edge) {
            self.settle(maps, active);
        }
    }

    /// Takes Edges down that the agent's own connects have failed to reach.
    fn eject(&mut self, maps: &mut Maps, active: &Active) {
        let now = Instant::now();
        for edge in active.edges.iter() {
            if let Some(why) = edge.failing()
                && let Some(health) = self.board.lock().get_mut(&key(edge))
            {
                health.failed(why, now);
            }
        }
        self.settle(maps, active);
    }

    /// Gives an Edge no new connections from now on.
    pub(super) fn drain(
        &mut self,
        name: &Name,
        maps: &mut Maps,
        active: &Active,
    ) -> Result<EdgeChanged, Refusal> {
        self.change(name, maps, active, |health| health.drain(Instant::now()))
    }

    /// Lets its checks decide again.
    pub(super) fn enable(
        &mut self,
        name: &Name,
        maps: &mut Maps,
        active: &Active,
    ) -> Result<EdgeChanged, Refusal> {
        self.change(name, maps, active, Health::enable)
    }

    fn change(
        &mut self,
        name: &Name,
        maps: &mut Maps,
        active: &Active,
        change: impl FnOnce(&mut Health) -> bool,
    ) -> Result<EdgeChanged, Refusal> {
        let edge = named(name, active)?;
        let (before, changed) = {
            let mut board = self.board.lock();
            let now = Instant::now();
            let health = board
                .entry(key(edge))
                .or_insert_with(|| Health::new(EdgeState::Up, now));
            (health.clone(), change(health))
        };
        self.settle(maps, active);
        if self.is_behind(active, edge) {
            // As it was: whoever has asked must not believe otherwise.
            self.board.lock().insert(key(edge), before);
            self.settle(maps, active);
            let message =
                "the datapath could not be told, see the agent's log; nothing has changed";
            return Err(Refusal::new(RefusalKind::Failed, message));
        }
        Ok(EdgeChanged {
            name: name.to_string(),
            address: edge.config.address,
            state: edge.state().name().to_owned(),
            changed,
            without: active
                .edges
                .pools()
                .filter(|pool| pool.is_left_without(edge))
                .map(|pool| pool.name().to_string())
                .collect(),
        })
    }

    /// Whether the datapath does not know yet what an Edge is taken for.
    fn is_behind(&self, active: &Active, edge: &Edge) -> bool {
        let told = self.plans.get(&key(edge)).and_then(|plan| plan.told);
        slot(active, edge).is_some_and(|slot| told != Some((slot, edge.state())))
    }

    /// Has the agent's pools and the datapath go by what Edges are taken for.
    fn settle(&mut self, maps: &mut Maps, active: &Active) {
        let mut changed = false;
        for edge in active.edges.iter() {
            let known = self.board.lock().get(&key(edge)).cloned();
            let Some(health) = known else { continue };
            let state = health.state();
            if edge.state() != state {
                tell(edge, &health);
                edge.set_state(state);
                changed = true;
            }
            let Some(slot) = slot(active, edge) else {
                continue;
            };
            let plan = self.plans.entry(key(edge)).or_default();
            if plan.told == Some((slot, state)) {
                continue;
            }
            match maps.set_edge_state(slot, state) {
                Ok(()) => plan.told = Some((slot, state)),
                Err(error) => {
                    tracing::error!(%error, edge = %edge.config.name, "the datapath can't be told of an Edge's state; it is tried again with its next check");
                }
            }
        }
        if changed {
            active.edges.refresh();
        }
    }

    /// Until an Edge's first check: some part of the interval, so that they don't come all at once.
    fn first_pause(&mut self, edge: &Edge) -> Option<Duration> {
        let interval = edge.config.health.as_ref()?.interval;
        Some(interval.mul_f64(self.draw()))
    }

    fn pause(&mut self, interval: Duration) -> Duration {
        let jitter = interval / JITTER;
        interval - jitter + (2 * jitter).mul_f64(self.draw())
    }

    /// From 0 to 1.
    fn draw(&mut self) -> f64 {
        self.draws += 1;
        (self.random.hash_one(self.draws) >> 32) as f64 / f64::from(u32::MAX)
    }
}

fn key(edge: &Edge) -> Key {
    (edge.config.name.clone(), edge.config.address)
}

fn slot(active: &Active, edge: &Edge) -> Option<u16> {
    active.numbers.edges.get(edge.index).copied()
}

fn find<'a>(active: &'a Active, key: &Key) -> Option<&'a Arc<Edge>> {
    let is_it = |edge: &&Arc<Edge>| (&edge.config.name, &edge.config.address) == (&key.0, &key.1);
    active.edges.iter().find(is_it)
}

/// An Edge of the configuration.
pub(super) fn named<'a>(name: &Name, active: &'a Active) -> Result<&'a Arc<Edge>, Refusal> {
    let mut edges = active.edges.iter();
    edges.find(|edge| edge.config.name == *name).ok_or_else(|| {
        let names = active.edges.iter().map(|edge| edge.config.name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let message = format!("there is no Edge {name}: the Edges are {names}");
        Refusal::new(RefusalKind::NotFound, message)
    })
}

fn tell(edge: &Edge, health: &Health) {
    let (edge, why) = (&edge.config, health.why().unwrap_or_default());
    match health.state() {
        EdgeState::Up => {
            tracing::info!(edge = %edge.name, address = %edge.address, why, "the Edge is up")
        }
        EdgeState::Draining => {
            tracing::info!(edge = %edge.name, address = %edge.address, "the Edge is drained: it gets no new connections; those that it has live on");
        }
        EdgeState::Down => {
            tracing::warn!(edge = %edge.name, address = %edge.address, "the Edge is down and gets no new connections: {why}");
        }
    }
}
