//! What all connections share: the active configuration, which is swapped as a whole, and what outlives it.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc},
};

use super::{
    Steered, accept,
    budget::{Allowance, Budgets, Claim},
    counters::Counters,
    routing::{Decision, Routing},
    socket,
};
use crate::{
    config::Config, control::HelloSeen, datapath::Activated, edges::Edges, sweeper::monotonic_ns,
    tls,
};

/// ClientHellos that a watcher may fall behind.
const WATCHED: usize = 1024;
/// Names that wait to be written into SNI_LEARNED. In a flood what does not fit is not learned; nobody waits for it.
const LESSONS: usize = 4096;

/// What connections go by: a configuration, and all that its files come to.
#[derive(Debug)]
pub struct Active {
    /// The configuration.
    pub config: Config,
    /// Its routes.
    pub routing: Routing,
    /// Its Edges and pools.
    pub edges: Edges,
    /// Its certificates.
    pub tls: tls::Store,
    /// Its numbers in the datapath.
    pub numbers: Numbers,
    allowance: Allowance,
}

/// What the datapath calls the things of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// The configuration itself.
    pub generation: u32,
    /// Each IP set.
    pub ip_sets: Vec<u32>,
    /// Each pool, for IPv4 and for IPv6.
    pub pools: Vec<[u32; 2]>,
}

impl From<&Activated> for Numbers {
    fn from(activated: &Activated) -> Self {
        Self {
            generation: activated.generation,
            ip_sets: activated.ip_sets.clone(),
            pools: activated.pools.clone(),
        }
    }
}

/// What came of a server name, for SNI_LEARNED.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// The configuration that decided.
    pub active: Arc<Active>,
    /// The IP set, by its position in it.
    pub ip_set: usize,
    /// The name; empty where the client sent none.
    pub name: String,
    /// Where it goes; nothing where it was refused.
    pub decision: Option<Decision>,
}

/// The proxy: one for each agent.
#[derive(Debug)]
pub struct Proxy {
    active: ArcSwap<Active>,
    permits: Arc<Semaphore>,
    limit: Mutex<usize>,
    budgets: Arc<Budgets>,
    counters: Counters,
    open: AtomicU64,
    watchers: broadcast::Sender<Arc<HelloSeen>>,
    lessons: mpsc::Sender<Lesson>,
    steered: Steered,
}

impl Active {
    /// Everything that connections need of a configuration. Counts of connections go on from `earlier` Edges.
    pub fn new(config: Config, tls: tls::Store, numbers: Numbers, earlier: &Edges) -> Self {
        Self {
            routing: Routing::new(&config),
            edges: Edges::new(&config, earlier),
            allowance: Allowance::new(&config.limits),
            tls,
            numbers,
            config,
        }
    }
}

impl Proxy {
    /// A proxy that goes by `active`; the receiver gets what there is to learn.
    pub fn new(active: Active, steered: Steered) -> (Arc<Self>, mpsc::Receiver<Lesson>) {
        let limit = active.config.gateway.max_connections as usize;
        let (lessons, learner) = mpsc::channel(LESSONS);
        let proxy = Self {
            active: ArcSwap::from_pointee(active),
            permits: Arc::new(Semaphore::new(limit)),
            limit: Mutex::new(limit),
            budgets: Budgets::new(),
            counters: Counters::default(),
            open: AtomicU64::new(0),
            watchers: broadcast::Sender::new(WATCHED),
            lessons,
            steered,
        };
        (Arc::new(proxy), learner)
    }

    /// The listening socket, which is to be put into LISTENERS.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listener() -> io::Result<TcpListener> {
        socket::listener()
    }

    /// Accepts connections until it is dropped; those that were accepted go on.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        accept::connections(self, listener).await;
    }

    /// What new connections go by.
    pub fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }

    /// New connections go by `active` from now on; those that are open go on as they were routed.
    pub fn activate(&self, active: Active) {
        let wanted = active.config.gateway.max_connections as usize;
        self.active.store(Arc::new(active));
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted > *limit {
            self.permits.add_permits(wanted - *limit);
            *limit = wanted;
        } else {
            // Permits of open connections can't be taken back now; the limit is lowered as far as it can be, and by the rest with the next call.
            *limit -= self.permits.forget_permits(*limit - wanted);
        }
    }

    /// Every ClientHello from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<HelloSeen>> {
        self.watchers.subscribe()
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// What has been counted, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.counters.all()
    }

    pub(super) fn steered(&self) -> &Steered {
        &self.steered
    }

    pub(super) async fn permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    pub(super) fn claim(&self, active: &Active, source: IpAddr) -> Option<Claim> {
        self.budgets
            .claim(source, &active.allowance, monotonic_ns())
    }

    pub(super) fn count(&self, name: &'static str, by: u64) {
        self.counters.add(name, by);
    }

    /// Counts one; what it returns is the number of lines left unsaid before this one, if this one may be said.
    pub(super) fn note(&self, name: &'static str) -> Option<u64> {
        self.counters.note(name, monotonic_ns())
    }

    pub(super) fn refused_by_the_kernel(&self, error: &io::Error) {
        if let Some(unsaid) = self.note("accept-failed") {
            tracing::error!(%error, unsaid, "connections can't be accepted: raise the limit of open files (LimitNOFILE= in the unit), or lower `max_connections`");
        }
    }

    /// Tells watchers, if there are any.
    pub(super) fn show(&self, seen: impl FnOnce() -> HelloSeen) {
        if self.watchers.receiver_count() > 0 {
            // The last one may have gone in the meantime.
            let _ = self.watchers.send(Arc::new(seen()));
        }
    }

    pub(super) fn learn(&self, lesson: Lesson) {
        if self.lessons.try_send(lesson).is_err() {
            self.count("not-learned", 1);
        }
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn enter(&self) -> Open<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(&self.open)
    }
}

/// A connection, counted until this is dropped.
pub(super) struct Open<'a>(&'a AtomicU64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
