//! What all connections share: the active configuration, which is swapped as a whole, and what outlives it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use sni_common::contract::FlowKey;
use tokio::{
    net::TcpListener,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch},
};

use super::{
    accept,
    budget::{Allowance, Budgets, Claim},
    carried::Registry,
    counters::Counters,
    port::Ports,
    routing::{Routing, Target, Verdict},
    socket::{self, NotAdopted},
    uses::{InUse, UsedAddress, UsedWayBack, Uses},
};
use crate::{
    clock::monotonic_ns,
    config::{Config, IpNet, Name},
    connection_log::ConnectionLog,
    control::{CarriedConnection, HelloSeen},
    datapath::{Activated, HandOffs},
    edges::Edges,
    metrics::Measured,
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
    /// Each Edge's slot.
    pub edges: Vec<u16>,
}

impl From<&Activated> for Numbers {
    fn from(activated: &Activated) -> Self {
        Self {
            generation: activated.generation,
            ip_sets: activated.ip_sets.clone(),
            pools: activated.pools.clone(),
            edges: activated.edge_slots.clone(),
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
    /// What became of it.
    pub verdict: Verdict,
}

/// The proxy: one for each agent.
pub struct Proxy {
    active: ArcSwap<Active>,
    permits: Arc<Semaphore>,
    limit: Mutex<usize>,
    /// Permits that are out and above the limit.
    debt: AtomicUsize,
    budgets: Arc<Budgets>,
    counters: Counters,
    log: ConnectionLog,
    measured: Measured,
    open: AtomicU64,
    uses: Arc<InUse>,
    carried: Registry,
    hand_offs: HandOffs,
    ports: Ports,
    /// Hand-offs that wait for acknowledgements, by the tuple of the packets that bring them.
    waiting: Mutex<HashMap<FlowKey, Arc<Notify>>>,
    /// The generation of the active configuration.
    activated: watch::Sender<u32>,
    /// The largest segment that clients are told to send; 0 for what the route says.
    segment_size: watch::Sender<u32>,
    watchers: broadcast::Sender<Arc<HelloSeen>>,
    lessons: mpsc::Sender<Lesson>,
    stop: watch::Sender<Life>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Stopping,
    Stopped,
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

impl Active {
    /// A target in a word or two.
    pub(super) fn destination(&self, target: Target) -> Option<String> {
        let config = &self.config;
        Some(match target {
            Target::Pool(pool) => config.pools.get(pool)?.name.to_string(),
            Target::Domain(domain) => {
                let domain = config.domains.get(domain)?;
                let pool = domain.pool.name();
                match domain.terminate {
                    Some(_) => format!("terminate {pool}"),
                    None => pool.to_string(),
                }
            }
        })
    }
}

impl Proxy {
    /// A proxy that goes by `active`; the receiver gets what there is to learn.
    pub fn new(active: Active, hand_offs: HandOffs) -> (Arc<Self>, mpsc::Receiver<Lesson>) {
        let generation = active.numbers.generation;
        let limit = active.config.gateway.max_connections as usize;
        let (lessons, learner) = mpsc::channel(LESSONS);
        let proxy = Self {
            active: ArcSwap::from_pointee(active),
            permits: Arc::new(Semaphore::new(limit)),
            limit: Mutex::new(limit),
            debt: AtomicUsize::new(0),
            budgets: Budgets::new(),
            counters: Counters::default(),
            log: ConnectionLog::default(),
            measured: Measured::new(),
            open: AtomicU64::new(0),
            uses: Arc::default(),
            carried: Registry::default(),
            hand_offs,
            ports: Ports::of_host(),
            waiting: Mutex::default(),
            activated: watch::Sender::new(generation),
            segment_size: watch::Sender::new(0),
            watchers: broadcast::Sender::new(WATCHED),
            lessons,
            stop: watch::Sender::new(Life::Running),
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

    /// The same, but that of an earlier agent, with the connections that wait in its queue.
    ///
    /// # Errors
    /// When it is no such socket.
    pub fn adopt(left: OwnedFd) -> Result<TcpListener, NotAdopted> {
        socket::adopt(left)
    }

    /// Accepts connections until [`Proxy::stop`]; those that were accepted end with it.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        accept::connections(self, listener).await;
    }

    /// Ends all connections, and waits until they have ended.
    pub async fn stop(&self) {
        let mut life = self.stop.subscribe();
        self.stop.send_replace(Life::Stopping);
        // The sender is ours and lives on.
        let _ = life.wait_for(|life| *life == Life::Stopped).await;
    }

    pub(super) async fn stopped(&self) {
        let mut life = self.stop.subscribe();
        let _ = life.wait_for(|life| *life != Life::Running).await;
    }

    pub(super) fn has_stopped(&self) {
        self.stop.send_replace(Life::Stopped);
    }

    /// What new connections go by.
    pub fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }

    /// New connections go by `active` from now on; those that are open go on as they were routed.
    pub fn activate(&self, active: Active) {
        let wanted = active.config.gateway.max_connections as usize;
        let generation = active.numbers.generation;
        self.active.store(Arc::new(active));
        self.activated.send_replace(generation);
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted >= *limit {
            // What is owed is not handed out.
            let owed = self.debt.fetch_update(Relaxed, Relaxed, |debt| {
                Some(debt.saturating_sub(wanted - *limit))
            });
            let owed = owed.unwrap_or_default().min(wanted - *limit);
            self.permits.add_permits(wanted - *limit - owed);
        } else {
            let less = *limit - wanted;
            let idle = self.permits.forget_permits(less);
            // The rest is kept back when connections end.
            self.debt.fetch_add(less - idle, Relaxed);
        }
        *limit = wanted;
    }

    /// What open connections need of the host.
    pub fn uses(&self) -> Uses {
        self.uses.now()
    }

    /// Every ClientHello from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<HelloSeen>> {
        self.watchers.subscribe()
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        self.watchers.receiver_count() != 0
    }

    /// Waits until nobody watches.
    pub async fn unwatched(&self) {
        self.watchers.closed().await;
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// The connections that are carried here now, relayed or terminated: all, or those of one client.
    pub fn connections(&self, client: Option<IpAddr>) -> Vec<CarriedConnection> {
        self.carried.of(client)
    }

    pub(super) fn carried(&self) -> &Registry {
        &self.carried
    }

    /// Adds what these have carried to the accounts. Where that fails, it is tried again with the next time.
    pub fn settle_accounts(&self) {
        let settled = self.carried.settle(
            |slot, edge| self.hand_offs.is_in_slot(slot, edge),
            |additions| self.hand_offs.account(additions),
        );
        if let Err(error) = settled
            && let Some(unsaid) = self.note("not-accounted")
        {
            tracing::warn!(%error, unsaid, "what connections have carried is not in all accounts yet");
        }
    }

    /// How many the agent carries itself, by Edge and way.
    pub(crate) fn carried_by_edge(&self) -> HashMap<(Name, &'static str), u64> {
        self.carried.by_edge()
    }

    /// What is counted and measured of connections.
    pub(crate) fn measured(&self) -> &Measured {
        &self.measured
    }

    /// The log of connections that are over.
    pub(crate) fn log(&self) -> &ConnectionLog {
        &self.log
    }

    /// What has been counted, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.counters.all()
    }

    /// Leave to have one more connection. Who waits for it is counted, and said.
    pub(super) async fn permit(self: &Arc<Self>) -> Permit {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if let Some(unsaid) = self.note("connections-full") {
                    let open = self.open();
                    tracing::warn!(
                        open,
                        unsaid,
                        "as many connections as `max_connections` allows: further ones wait; raise it if the host has room"
                    );
                }
                let permit = Arc::clone(&self.permits).acquire_owned().await;
                permit.expect("the semaphore is never closed")
            }
        };
        Permit {
            permit: Some(permit),
            proxy: Arc::clone(self),
        }
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

    /// Notes that a connection needs a local address.
    pub(super) fn use_address(&self, address: IpAddr) -> UsedAddress {
        self.uses.address(address)
    }

    /// Notes that a connection needs the way back to transparent sockets.
    pub(super) fn use_way_back(&self) -> UsedWayBack {
        self.uses.way_back()
    }

    /// Whether the Edge's packets to this address and port would be taken for those of a flow of the datapath.
    pub(super) fn is_flow(&self, edge: SocketAddr, own: SocketAddr) -> bool {
        self.hand_offs.has_flow(&FlowKey {
            source: edge.ip().into(),
            destination: own.ip().into(),
            source_port_be: edge.port().to_be(),
            destination_port_be: own.port().to_be(),
        })
    }

    pub(super) fn ports(&self) -> &Ports {
        &self.ports
    }

    pub(super) fn hand_offs(&self) -> &HandOffs {
        &self.hand_offs
    }

    /// Tells a hand-off that a packet of this tuple has acknowledged what its socket has sent.
    pub fn wake(&self, key: &FlowKey) {
        if let Some(waiting) = self.waiting().get(key) {
            waiting.notify_one();
        }
    }

    /// Has [`Proxy::wake`] reach whoever waits, for as long as the guard lives.
    pub(super) fn woken_by(&self, keys: [FlowKey; 2]) -> Woken<'_> {
        let notify = Arc::new(Notify::new());
        let mut waiting = self.waiting();
        for key in keys {
            waiting.insert(key, Arc::clone(&notify));
        }
        Woken {
            proxy: self,
            keys,
            notify,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<FlowKey, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clients are told to send segments of this size at most from now on; 0 for what the route says.
    pub fn limit_segments(&self, size: u32) {
        self.segment_size
            .send_if_modified(|before| std::mem::replace(before, size) != size);
    }

    pub(super) fn segment_size(&self) -> watch::Receiver<u32> {
        self.segment_size.subscribe()
    }

    /// Waits for the next configuration.
    pub(super) async fn next_configuration(&self) {
        let mut activated = self.activated.subscribe();
        // The sender is ours and lives on.
        let _ = activated.changed().await;
    }

    /// Whether a client is denied that the datapath has not seen itself.
    pub(super) fn denies(active: &Active, client: IpAddr) -> bool {
        let limits = &active.config.limits;
        let longest = |nets: &[IpNet]| {
            let containing = nets.iter().filter(|net| net.contains(&client));
            containing.map(IpNet::prefix_len).max()
        };
        // The longest prefix decides, as in the datapath.
        longest(&limits.deny) > longest(&limits.allow)
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn enter(&self) -> Open<'_> {
        self.open.fetch_add(1, Relaxed);
        Open(&self.open)
    }
}

/// Somebody who waits for acknowledgements.
pub(super) struct Woken<'a> {
    proxy: &'a Proxy,
    keys: [FlowKey; 2],
    notify: Arc<Notify>,
}

impl Woken<'_> {
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Woken<'_> {
    fn drop(&mut self) {
        let mut waiting = self.proxy.waiting();
        for key in &self.keys {
            waiting.remove(key);
        }
    }
}

/// A connection, counted until this is dropped.
pub(super) struct Open<'a>(&'a AtomicU64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Leave to have one connection.
pub(super) struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    proxy: Arc<Proxy>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let debt = &self.proxy.debt;
        let owed = debt.fetch_update(Relaxed, Relaxed, |debt| debt.checked_sub(1));
        if let (Ok(_), Some(permit)) = (owed, self.permit.take()) {
            permit.forget();
        }
    }
}
