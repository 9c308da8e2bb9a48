//! The agent's life between its start and its end: one loop, in which everything that changes something has its turn.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sni_common::expiry::Timeouts;
use tokio::{
    net::TcpListener,
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    AgentError,
    acme::Certificates,
    binding::Binding,
    candidate::LiveRoutes,
    control::{Asked, Facts},
    events::Events,
    exposition::{Endpoint, Readers},
    files::{Stamps, Watch},
    health::Supervision,
    kernel::Kernel,
    open_files,
    revocation::Revocation,
    watching::Watching,
};
use crate::{
    acme::{Counts, responder::PORT},
    control::Server,
    datapath::{LogStream, Maps, Measuring},
    hold::Keeper,
    net::Changes,
    proxy::{Active, Proxy},
    service_manager,
    sweeper::Sweeper,
};

/// Requests that wait for their turn.
const REQUESTS: usize = 16;

/// How often what only open connections need is looked at.
const LEFTOVERS: Duration = Duration::from_secs(30);

/// How often what the agent's own connections have carried goes to the accounts: a kill loses no more of it.
const ACCOUNTING: Duration = Duration::from_secs(1);

/// What can end the agent, or have it reload.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on they are waited for, and no longer end the process.
    pub(super) fn new() -> Result<Self, AgentError> {
        let wait = |kind, what| signal(kind).map_err(|source| AgentError::io(what, source));
        Ok(Self {
            interrupt: wait(SignalKind::interrupt(), "waiting for SIGINT")?,
            terminate: wait(SignalKind::terminate(), "waiting for SIGTERM")?,
            hangup: wait(SignalKind::hangup(), "waiting for SIGHUP")?,
        })
    }
}

/// A running agent.
pub(super) struct Agent {
    pub(super) main: PathBuf,
    pub(super) proxy: Arc<Proxy>,
    pub(super) live: LiveRoutes,
    pub(super) stamps: Stamps,
    facts: Arc<Mutex<Facts>>,
    watch: Watch,
    pub(super) health: Supervision,
    sweeper: Option<(Duration, Sweeper)>,
    revocation: Revocation,
    certificates: Certificates,
    metrics: Endpoint,
    /// While the kernel measures the datapath.
    measuring: Option<Measuring>,
    /// What the listener is bound to.
    port: u16,
}

impl Agent {
    pub(super) fn new(
        main: PathBuf,
        proxy: Arc<Proxy>,
        watch: Watch,
        stamps: Stamps,
        readers: Readers,
    ) -> Self {
        let now = Instant::now();
        let facts = Facts {
            started: now,
            file: main.clone(),
            generation: proxy.active().numbers.generation,
            activated: now,
            refused: None,
            attached: Vec::new(),
            binding: Binding::new().facts(),
        };
        let health = Supervision::new(&proxy.active());
        let facts = Arc::new(Mutex::new(facts));
        let acme = Arc::new(Counts::default());
        Self {
            certificates: Certificates::new(&acme),
            metrics: Endpoint::new(Arc::clone(&proxy), Arc::clone(&facts), acme, readers),
            main,
            proxy,
            health,
            live: LiveRoutes::new(),
            stamps,
            facts,
            watch,
            sweeper: None,
            revocation: Revocation::default(),
            measuring: None,
            port: 0,
        }
    }

    /// Notes where the datapath is attached, and by which programs, for whoever asks.
    pub(super) fn note_attachments(&self, kernel: &Kernel) {
        self.facts().attached = kernel.attached();
        if let Err(error) = self.metrics.ask_programs(&kernel.datapath) {
            tracing::warn!(%error, "what a program that has just been loaded costs is missing in the metrics");
        }
    }

    /// Serves until SIGINT or SIGTERM. The connections that the agent carries end with it.
    pub(super) async fn serve(
        mut self,
        kernel: &mut Kernel,
        listener: TcpListener,
        keeper: &mut Keeper,
        mut changes: Changes,
        mut signals: Signals,
    ) -> Result<(), AgentError> {
        let stream = kernel.datapath.events()?;
        let mut log: LogStream = kernel.datapath.log()?;
        let (asked, mut requests) = mpsc::channel(REQUESTS);
        self.note_attachments(kernel);
        let server = Server::bind(&self.active().config.gateway.control).await?;
        let active = self.active();
        self.health.follow(&mut kernel.datapath.maps, &active);
        self.follow_configuration().await;
        // Only now that no other agent can have this control socket: the holder's place goes by it.
        tokio::task::block_in_place(|| keeper.keep(&listener));

        // What they serve ends with them, and they with this function.
        let mut tasks = JoinSet::new();
        let pin_path = self.active().config.gateway.pin_path.clone();
        let watching = Watching::new(Arc::clone(&self.proxy), Maps::open(&pin_path)?)?;
        tasks.spawn(Arc::clone(&watching).follow());
        let handler = Arc::new(Asked {
            proxy: Arc::clone(&self.proxy),
            watching: Arc::clone(&watching),
            facts: Arc::clone(&self.facts),
            edges: self.health.board(),
            changes: asked,
        });
        tasks.spawn(async move {
            server.serve(handler).await;
        });
        let address = listener.local_addr();
        self.port = address
            .map_err(|source| AgentError::io("asking where the listener is bound to", source))?
            .port();
        tasks.spawn(Arc::clone(&self.proxy).run(listener));
        self.follow_segments(kernel).await;
        let (events, mut wanted) = Events::new(Arc::clone(&self.proxy), Maps::open(&pin_path)?);
        let mut readers = JoinSet::new();
        readers.spawn(events.run(stream));
        let mut leftovers = tokio::time::interval(LEFTOVERS);
        let mut accounting = tokio::time::interval(ACCOUNTING);
        // Without a watchdog, once in a while for nobody.
        let mut alive = tokio::time::interval(service_manager::watchdog().unwrap_or(LEFTOVERS));
        tracing::info!("ready");
        service_manager::ready();
        loop {
            select! {
                _ = signals.interrupt.recv() => break,
                _ = signals.terminate.recv() => break,
                _ = signals.hangup.recv() => self.reload_and_say(kernel, "SIGHUP").await,
                read = log.next() => read?,
                change = changes.next() => {
                    let change = change?;
                    tracing::debug!(?change, "the host's network changed");
                    let active = self.active();
                    kernel.follow(change, &active.config, &self.proxy.uses()).await;
                    if change.links || change.routes {
                        self.follow_segments(kernel).await;
                    }
                    self.note_attachments(kernel);
                }
                Some(request) = requests.recv() => self.answer(kernel, request).await,
                () = self.watch.changed() => {
                    if self.stamps.have_changed() {
                        self.reload_and_say(kernel, "a file has changed").await;
                    }
                }
                () = self.certificates.changed() => {
                    if self.stamps.have_changed() {
                        self.reload_and_say(kernel, "a certificate has changed").await;
                    }
                }
                Some(first) = wanted.recv() => {
                    // Each once, however often it was asked for.
                    let mut all = HashSet::from([first]);
                    while let Ok(another) = wanted.try_recv() {
                        all.insert(another);
                    }
                    kernel.neighbours.resolve(all.into_iter()).await;
                }
                event = self.health.next() => {
                    let maps = &mut kernel.datapath.maps;
                    tokio::task::block_in_place(|| self.health.handle(event, maps, &self.proxy));
                }
                () = keeper.is_lost() => keeper.mend(),
                () = kernel.binding.due() => self.follow_segments(kernel).await,
                _ = alive.tick() => service_manager::alive(),
                _ = accounting.tick() => tokio::task::block_in_place(|| self.proxy.settle_accounts()),
                _ = leftovers.tick() => {
                    let active = self.active();
                    kernel.clear_leftovers(&active.config, &self.proxy.uses()).await;
                }
                Some(ended) = readers.join_next() => return Err(match ended {
                    Ok(error) => error.into(),
                    Err(panic) => AgentError::Task { why: panic.to_string() },
                }),
                // They end only with this function, or by a panic: an agent that can't be asked, or accepts nothing, must not look alive.
                ended = tasks.join_next() => {
                    let why = ended.map_or_else(String::new, |ended| format!("{ended:?}"));
                    return Err(AgentError::Task { why });
                }
            }
        }
        service_manager::stopping();
        watching.end();
        // Its sockets say goodbye while their addresses are still there.
        self.proxy.stop().await;
        self.proxy.settle_accounts();
        Ok(())
    }

    /// Has clients send no larger segments than Edges can be sent, whoever tells them: the listener, or the datapath where it binds.
    pub(super) async fn follow_segments(&self, kernel: &mut Kernel) {
        let active = self.active();
        let segments = kernel.segments(&active.config).await;
        self.proxy
            .limit_segments(segments.map_or(0, |segments| segments.limit));
        kernel.bind(self.port, &active.config, segments).await;
        self.facts().binding = kernel.binding.facts();
    }

    /// What the agent goes by.
    pub(super) fn active(&self) -> Arc<Active> {
        self.proxy.active()
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes by the configuration besides the datapath and the proxy. None of it keeps a configuration from being active.
    pub(super) async fn follow_configuration(&mut self) {
        let active = self.active();
        let gateway = &active.config.gateway;
        open_files::raise(gateway.max_connections);
        let idle = gateway.idle_timeout;
        if self.sweeper.as_ref().is_none_or(|(of, _)| *of != idle) {
            match Maps::open(&gateway.pin_path) {
                Ok(maps) => {
                    // The old one ends first: two would only be in each other's way. It may be in the middle of millions of flows.
                    if let Some(old) = self.sweeper.take() {
                        let _ = tokio::task::spawn_blocking(move || drop(old)).await;
                    }
                    let idle_ns = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
                    let sweeper =
                        Sweeper::start(maps, Timeouts::with_idle(idle_ns), Arc::clone(&self.proxy));
                    self.sweeper = Some((idle, sweeper));
                }
                Err(error) => {
                    tracing::error!(%error, "the sweep of ended flows does not go by the new `idle_timeout`; the next reload tries again");
                }
            }
        }
        Certificates::prepare(&active.config);
        self.listen_on();
        if self.revocation.is_to_change(&active.config) {
            self.certificates.make_room().await;
        }
        let tokens = self.certificates.tokens();
        let revocation = &mut self.revocation;
        revocation
            .follow(&active.config, &self.proxy, &tokens)
            .await;
        let taken = |address| revocation.has_port(address, PORT);
        self.certificates.follow(&active.config, taken).await;
        self.metrics.follow(gateway.metrics).await;
        self.measure(gateway.datapath_time);
    }

    /// Has the kernel measure the datapath, or no longer.
    fn measure(&mut self, wanted: bool) {
        if !wanted {
            self.measuring = None;
        } else if self.measuring.is_none() {
            match Measuring::begin() {
                Ok(measuring) => self.measuring = Some(measuring),
                Err(error) => {
                    tracing::warn!(%error, "`datapath_time` needs CAP_SYS_ADMIN; without it, `sysctl -w kernel.bpf_stats_enabled=1` does the same");
                }
            }
        }
    }

    /// Listens where the stamps say.
    pub(super) fn listen_on(&mut self) {
        self.watch.listen(&self.stamps);
        // While all of it was loaded, nobody listened there.
        if self.stamps.have_changed() {
            self.watch.begin();
        }
    }
}
