//! The agent's life between its start and its end.

use std::{
    collections::HashSet,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sni_common::{
    contract::{DropReason, Event, EventKind, LabelKind},
    expiry::Timeouts,
};
use tokio::{
    net::TcpListener,
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use super::{
    AgentError, RunOptions,
    candidate::{Candidate, LiveRoutes},
    control::{Asked, Change, Facts, refusal, remembered},
    files::{Stamps, Watch},
    kernel::Kernel,
};
use crate::{
    config::{Config, Name, ServerName},
    control::{Refusal, RefusalKind, Reloaded, RouteAdded, RouteRemoved, Server, domains},
    datapath::{EventStream, LogStream, Maps},
    neighbours::NextHopAddress,
    net::Changes,
    proxy::{Active, Numbers, Proxy},
    sweeper::Sweeper,
    tls::crl,
};

/// Requests that wait for their turn.
const REQUESTS: usize = 16;

/// A running agent.
pub(super) struct Agent {
    main: PathBuf,
    proxy: Arc<Proxy>,
    listener: Option<TcpListener>,
    live: LiveRoutes,
    facts: Arc<Mutex<Facts>>,
    watch: Watch,
    stamps: Stamps,
    sweeper: Option<(Duration, Sweeper)>,
    revocation: Revocation,
}

/// The web server for the mirror CA's revocation list.
#[derive(Default)]
struct Revocation {
    url: Option<String>,
    server: Option<JoinHandle<()>>,
}

impl Agent {
    pub(super) fn new(
        options: RunOptions,
        proxy: Arc<Proxy>,
        listener: TcpListener,
        stamps: Stamps,
    ) -> Result<Self, AgentError> {
        let now = Instant::now();
        let facts = Facts {
            started: now,
            file: options.config.clone(),
            generation: proxy.active().numbers.generation,
            activated: now,
            refused: None,
        };
        Ok(Self {
            main: options.config,
            proxy,
            listener: Some(listener),
            live: LiveRoutes::new(),
            facts: Arc::new(Mutex::new(facts)),
            watch: Watch::new()
                .map_err(|source| AgentError::io("listening for changes of files", source))?,
            stamps,
            sweeper: None,
            revocation: Revocation::default(),
        })
    }

    /// Serves until SIGINT or SIGTERM.
    pub(super) async fn serve(
        mut self,
        kernel: &mut Kernel,
        mut changes: Changes,
    ) -> Result<(), AgentError> {
        let waiting = |what| move |source| AgentError::io(what, source);
        let mut interrupt =
            signal(SignalKind::interrupt()).map_err(waiting("waiting for SIGINT"))?;
        let mut terminate =
            signal(SignalKind::terminate()).map_err(waiting("waiting for SIGTERM"))?;
        let mut hangup = signal(SignalKind::hangup()).map_err(waiting("waiting for SIGHUP"))?;
        let mut events: EventStream = kernel.datapath.events()?;
        let mut log: LogStream = kernel.datapath.log()?;
        let (asked, mut requests) = mpsc::channel(REQUESTS);
        let config = self.config();
        let server = Server::bind(&config.config.gateway.control).await?;
        drop(config);
        self.follow_configuration().await?;

        // Dropped with this function, and everything that they serve with them.
        let mut tasks = JoinSet::new();
        let handler = Arc::new(Asked {
            proxy: Arc::clone(&self.proxy),
            facts: Arc::clone(&self.facts),
            changes: asked,
        });
        tasks.spawn(async move {
            server.serve(handler).await;
        });
        if let Some(listener) = self.listener.take() {
            tasks.spawn(Arc::clone(&self.proxy).run(listener));
        }
        let mut wanted = HashSet::new();
        tracing::info!("ready");
        loop {
            select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                _ = hangup.recv() => self.reload_and_say(kernel, "SIGHUP").await,
                read = events.next(|event| take(event, &kernel.datapath.maps, &mut wanted)) => read?,
                read = log.next() => read?,
                change = changes.next() => {
                    let change = change?;
                    tracing::debug!(?change, "the host's network changed");
                    let active = self.config();
                    kernel.follow(change, &active.config).await;
                }
                Some(request) = requests.recv() => self.answer(kernel, request).await,
                () = self.watch.changed() => {
                    if self.stamps.have_changed() {
                        self.reload_and_say(kernel, "a file has changed").await;
                    }
                }
            }
            kernel.neighbours.resolve(wanted.drain()).await;
        }
    }

    fn config(&self) -> Arc<Active> {
        self.proxy.active()
    }

    /// What goes by the configuration besides the datapath and the proxy.
    async fn follow_configuration(&mut self) -> Result<(), AgentError> {
        let active = self.config();
        let gateway = &active.config.gateway;
        let idle = gateway.idle_timeout;
        if self.sweeper.as_ref().is_none_or(|(of, _)| *of != idle) {
            // The old one ends first: two would only be in each other's way.
            self.sweeper = None;
            let idle_ns = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
            let maps = Maps::open(&gateway.pin_path)?;
            self.sweeper = Some((idle, Sweeper::start(maps, Timeouts::with_idle(idle_ns))));
        }
        self.watch.listen(&self.stamps);
        self.revocation.follow(&active.config, &self.proxy).await;
        Ok(())
    }

    async fn answer(&mut self, kernel: &mut Kernel, request: Change) {
        // Who has asked may have gone; what was asked is done all the same.
        match request {
            Change::Reload(answer) => drop(answer.send(self.reload(kernel).await)),
            Change::AddRoute(name, pool, answer) => {
                drop(answer.send(self.add_route(kernel, name, pool).await));
            }
            Change::RemoveRoute(name, answer) => {
                drop(answer.send(self.remove_route(kernel, name).await));
            }
            Change::AddDomain(domain, answer) => {
                let main = self.main.clone();
                let changed = domains::add(&main, &domain, || self.reload(kernel)).await;
                drop(answer.send(changed.map_err(Refusal::from)));
            }
            Change::RemoveDomain(sip_domain, answer) => {
                let main = self.main.clone();
                let changed = domains::remove(&main, &sip_domain, || self.reload(kernel)).await;
                drop(answer.send(changed.map_err(Refusal::from)));
            }
        }
    }

    /// A reload that nobody waits for.
    async fn reload_and_say(&mut self, kernel: &mut Kernel, why: &'static str) {
        tracing::info!(why, "loading the configuration anew");
        // Said by itself.
        let _ = self.reload(kernel).await;
    }

    /// Loads everything anew, and makes it active as a whole or not at all.
    async fn reload(&mut self, kernel: &mut Kernel) -> Result<Reloaded, Refusal> {
        let reloaded = self.try_reload(kernel).await;
        if let Err(error) = &reloaded {
            for line in error.to_string().lines() {
                tracing::error!(
                    "the configuration is not taken, what was active stays active: {line}"
                );
            }
            // Until somebody changes them again, these files are not worth another attempt.
            self.stamps = self.stamps.anew();
            self.facts().refused = Some(remembered(error));
        }
        reloaded.map_err(|error| refusal(&self.main, &error))
    }

    async fn try_reload(&mut self, kernel: &mut Kernel) -> Result<Reloaded, AgentError> {
        let began = Instant::now();
        let before = self.config();
        let mut live = self.live.clone();
        let candidate = tokio::task::block_in_place(|| {
            Candidate::load(&self.main, &mut live, Some(&before.tls))
        })?;
        candidate.check_change(&before.config.gateway)?;
        let activated = kernel
            .apply(&candidate.config, Some(&before.config))
            .await?;
        candidate.log_warnings();
        let warnings = candidate.warnings();
        let Candidate {
            config,
            tls,
            files,
            stamps,
            ..
        } = candidate;
        let reloaded = Reloaded {
            generation: activated.generation,
            took_us: 0,
            files: files.len(),
            ip_sets: config.ip_sets.len(),
            edges: config.edges.len(),
            pools: config.pools.len(),
            domains: config.domains.len(),
            names: activated.names,
            terminated: (config.domains.iter())
                .filter(|domain| domain.terminate.is_some())
                .count(),
            warnings,
        };
        let numbers = Numbers::from(&activated);
        self.proxy
            .activate(Active::new(config, tls, numbers, &before.edges));
        let took = began.elapsed();
        self.live = live;
        self.stamps = stamps;
        {
            let mut facts = self.facts();
            facts.generation = activated.generation;
            facts.activated = Instant::now();
            facts.refused = None;
        }
        tracing::info!(
            generation = activated.generation,
            domains = reloaded.domains,
            names = reloaded.names,
            ?took,
            "configuration active"
        );
        self.follow_configuration().await?;
        Ok(Reloaded {
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            ..reloaded
        })
    }

    async fn add_route(
        &mut self,
        kernel: &mut Kernel,
        name: ServerName,
        pool: Name,
    ) -> Result<RouteAdded, Refusal> {
        let active = self.config();
        let is_live = self.live.contains_key(&name);
        if !is_live && defines(&active.config, &name) {
            let message = format!(
                "the configuration defines {name} already: change it there (`snigate domain ls` says where)"
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        if !active.config.pools.iter().any(|it| it.name == pool) {
            let pools: Vec<_> = (active.config.pools.iter())
                .map(|pool| pool.name.as_str())
                .collect();
            let message = format!(
                "there is no pool {pool}: the pools are {}",
                pools.join(", ")
            );
            return Err(Refusal::new(RefusalKind::NotFound, message));
        }
        let replaced = self.live.insert(name.clone(), pool.clone());
        if let Err(refusal) = self.reload(kernel).await {
            // The live routes are as they were before the attempt, but for this one.
            match replaced {
                Some(before) => self.live.insert(name, before),
                None => self.live.remove(&name),
            };
            return Err(refusal);
        }
        Ok(RouteAdded {
            name: name.to_string(),
            pool: pool.to_string(),
            replaced: replaced.map(|pool| pool.to_string()),
        })
    }

    async fn remove_route(
        &mut self,
        kernel: &mut Kernel,
        name: ServerName,
    ) -> Result<RouteRemoved, Refusal> {
        let Some(pool) = self.live.remove(&name) else {
            let message = if defines(&self.config().config, &name) {
                format!(
                    "{name} is a name of the configuration: remove it there (`snigate domain ls` says where)"
                )
            } else {
                format!("there is no route for {name}: `snigate route ls` shows what there is")
            };
            return Err(Refusal::new(RefusalKind::NotFound, message));
        };
        if let Err(refusal) = self.reload(kernel).await {
            self.live.insert(name, pool);
            return Err(refusal);
        }
        Ok(RouteRemoved {
            name: name.to_string(),
            pool: pool.to_string(),
        })
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn defines(config: &Config, name: &ServerName) -> bool {
    let mut names = config.domains.iter().flat_map(|domain| &domain.names);
    names.any(|defined| defined == name)
}

impl Revocation {
    /// Serves the list where the configuration says, anew if that has changed.
    async fn follow(&mut self, config: &Config, proxy: &Arc<Proxy>) {
        let mirror = config.identity.mirror.as_ref();
        let url = mirror.and_then(|mirror| mirror.crl_url.clone());
        if url == self.url && self.server.is_some() == url.is_some() {
            return;
        }
        if let Some(server) = self.server.take() {
            server.abort();
            // The port is free when the task is gone.
            let _ = server.await;
        }
        self.url.clone_from(&url);
        let Some(url) = url else { return };
        match crl::listen(&url).await {
            Ok(listener) => {
                let proxy = Arc::clone(proxy);
                let mirror = move || proxy.active().tls.mirror().cloned();
                self.server = Some(tokio::spawn(crl::serve(listener, mirror)));
                tracing::info!(url, "serving the revocation list of the mirror CA");
            }
            Err(error) => {
                tracing::error!(url, %error, "the revocation list of the mirror CA can't be served: Edges that check it will refuse mirrored certificates");
            }
        }
    }
}

impl Drop for Revocation {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn take(event: Event, maps: &Maps, wanted: &mut HashSet<NextHopAddress>) {
    let key = &event.key;
    let (source, destination) = (IpAddr::from(key.source), IpAddr::from(key.destination));
    let (source_port, destination_port) = (
        u16::from_be(key.source_port_be),
        u16::from_be(key.destination_port_be),
    );
    match EventKind::try_from(event.kind) {
        Ok(EventKind::NeighbourWanted) => {
            wanted.insert((event.ifindex, destination));
        }
        Ok(EventKind::Dropped) => {
            let reason = DropReason::try_from(event.reason);
            let (name, sentence) = reason.map_or(
                ("unknown", "A reason that this version does not know."),
                |reason| (reason.name(), reason.sentence()),
            );
            tracing::warn!(reason = name, %source, source_port, %destination, destination_port, "dropped (sampled): {sentence}");
        }
        Ok(kind) if tracing::enabled!(tracing::Level::DEBUG) => {
            let edge = maps
                .label(LabelKind::Edge, 0, event.edge)
                .unwrap_or_default();
            tracing::debug!(%kind, %source, source_port, %destination, destination_port, edge, "flow");
        }
        Ok(_) => {}
        Err(unknown) => {
            tracing::warn!(%unknown, "an event of a kind that this version does not know")
        }
    }
}
