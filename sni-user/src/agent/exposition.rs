//! The metrics endpoint: nothing is gathered until somebody asks, then by a thread of its own, so that no connection waits for it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
};
use prometheus::TEXT_FORMAT;
use rustls::pki_types::UnixTime;
use sni_common::contract::{EdgeState, LabelKind, Way};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::{binding, control::Facts};
use crate::{
    acme::Counts,
    datapath::{Datapath, DatapathError, Maps, Programs, attached_interfaces},
    http::{self, Answer},
    metrics::{
        Exposition, ExpositionError, acme, certificates, configuration, connections, datapath,
        edges, process, tables,
    },
    proxy::{Active, Proxy},
};

/// Where the metrics are.
const PATH: &str = "/metrics";
/// Scrapes at once; further ones wait.
const CONNECTIONS: usize = 8;
/// Whoever asks within this time gets what another one has been told: several servers, and whoever asks in a loop, cost no more than one.
const FRESH: Duration = Duration::from_secs(1);
/// When to try again to listen: the address of a management interface may come later than the agent.
const AGAIN: Duration = Duration::from_secs(10);

/// What is read at a scrape.
pub(super) struct Readers {
    maps: Maps,
    /// Those that are loaded: another hook's comes with it.
    programs: Mutex<Programs>,
}

impl Readers {
    pub(super) fn open(datapath: &Datapath) -> Result<Self, DatapathError> {
        Ok(Self {
            maps: Maps::open(datapath.maps.pin_path())?,
            programs: Mutex::new(datapath.programs()?),
        })
    }
}

/// Serves the metrics for as long as it lives, where the configuration says.
pub(super) struct Endpoint {
    gatherer: Arc<Gatherer>,
    address: Option<SocketAddr>,
    server: Option<JoinHandle<()>>,
}

impl Endpoint {
    pub(super) fn new(
        proxy: Arc<Proxy>,
        facts: Arc<Mutex<Facts>>,
        acme: Arc<Counts>,
        readers: Readers,
    ) -> Self {
        let gatherer = Gatherer {
            proxy,
            acme,
            facts,
            readers,
            started: SystemTime::now(),
            latest: Mutex::new(None),
        };
        Self {
            gatherer: Arc::new(gatherer),
            address: None,
            server: None,
        }
    }

    /// Asks the datapath's programs from now on, those that have been loaded meanwhile as well.
    pub(super) fn ask_programs(&self, datapath: &Datapath) -> Result<(), DatapathError> {
        let programs = datapath.programs()?;
        *self.gatherer.programs() = programs;
        Ok(())
    }

    /// Serves at this address from now on.
    pub(super) async fn follow(&mut self, address: SocketAddr) {
        if self.address == Some(address) {
            return;
        }
        if let Some(server) = self.server.take() {
            server.abort();
            // The port is free when the task is gone.
            let _ = server.await;
        }
        self.address = Some(address);
        // Here, so that it is served when the agent says that it is ready.
        let bound = TcpListener::bind(address).await;
        let gatherer = Arc::clone(&self.gatherer);
        self.server = Some(tokio::spawn(async move {
            let listener = listener(address, bound).await;
            http::serve(listener, "metrics", CONNECTIONS, move |request| {
                answer(request, Arc::clone(&gatherer))
            })
            .await;
        }));
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

/// A listener, however long it takes. Says once why there is none yet.
async fn listener(address: SocketAddr, mut bound: io::Result<TcpListener>) -> TcpListener {
    let mut said = false;
    loop {
        match bound {
            Ok(listener) => {
                tracing::info!(%address, "serving metrics");
                return listener;
            }
            Err(error) if !said => {
                tracing::error!(%address, %error, "metrics can't be served there, which is tried again every {} s: set `gateway.metrics` to an address of this host and a free port", AGAIN.as_secs());
                said = true;
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
        bound = TcpListener::bind(address).await;
    }
}

async fn answer(request: Request<Incoming>, gatherer: Arc<Gatherer>) -> Answer {
    if let Some(refusal) = http::refusal(&request, PATH) {
        return refusal;
    }
    match spawn_blocking(move || gatherer.latest()).await {
        Ok(Ok(text)) => http::page(text, &[(CONTENT_TYPE, TEXT_FORMAT)]),
        Ok(Err(error)) => failed(&error),
        Err(panic) => failed(&panic),
    }
}

fn failed(error: &dyn std::error::Error) -> Answer {
    tracing::error!(%error, "the metrics can't be gathered");
    let text = format!("the metrics can't be gathered: {error}\n");
    http::plain(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Puts the answers together.
struct Gatherer {
    proxy: Arc<Proxy>,
    facts: Arc<Mutex<Facts>>,
    acme: Arc<Counts>,
    readers: Readers,
    started: SystemTime,
    latest: Mutex<Option<(Instant, Bytes)>>,
}

impl Gatherer {
    /// The latest answer, if it is fresh, or a new one. One at a time: who comes meanwhile waits, and gets the same.
    fn latest(&self) -> Result<Bytes, ExpositionError> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, text)) = &*latest
            && at.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let text = Bytes::from(self.gather()?);
        *latest = Some((Instant::now(), text.clone()));
        Ok(text)
    }

    fn gather(&self) -> Result<String, ExpositionError> {
        let maps = &self.readers.maps;
        let to = Exposition::new();
        let active = self.proxy.active();
        let measured = self.proxy.measured();
        let stats = maps.stats()?;
        measured.expose(&to, &stats, &active.config)?;
        datapath::expose(&to, &stats, &self.programs().run_times()?)?;
        connections::expose(&to, &self.open(&active), &self.proxy.counters())?;
        edges::expose(&to, &active.config, &states(maps, &active)?)?;
        let fill = maps.fill()?;
        tables::expose(&to, &fill, measured.last_sweep().as_ref(), Instant::now())?;
        self.configuration(&to, &active)?;
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        certificates::expose(&to, &active.tls.lifetimes(), now)?;
        if active.config.acme.is_some() {
            acme::expose(&to, &self.acme)?;
        }
        process::expose(&to, self.started)?;
        to.text()
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        let programs = self.readers.programs.lock();
        programs.unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections of the agent, and those of the datapath.
    fn open(&self, active: &Active) -> connections::Open {
        let mut open = connections::Open {
            agent: self.proxy.open(),
            agent_limit: active.config.gateway.max_connections,
            ..connections::Open::default()
        };
        for ((edge, way), count) in self.proxy.carried_by_edge() {
            open.by_edge.insert((edge.to_string(), way), count);
        }
        if let Some(last) = &*self.proxy.measured().last_sweep() {
            open.half_open = Some(last.found.half_open);
            for ((slot, way), count) in &last.found.open {
                let way = Way::try_from(*way).map_or("unknown", Way::name);
                // An Edge that has moved has two slots for as long as flows go to the old place.
                let flows = open.by_edge.entry((self.edge(*slot), way)).or_default();
                *flows += u64::from(*count);
            }
        }
        open
    }

    fn edge(&self, slot: u16) -> String {
        let name = self.readers.maps.label(LabelKind::Edge, 0, slot.into());
        name.unwrap_or_else(|| format!("#{slot}"))
    }

    fn configuration(&self, to: &Exposition, active: &Active) -> Result<(), ExpositionError> {
        let maps = &self.readers.maps;
        let generation = maps.generation()?;
        let attached = attached_interfaces(maps.pin_path())?;
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let state = configuration::State {
            config: &active.config,
            generation,
            age: facts.activated.elapsed(),
            refused: facts.refused.is_some(),
            attached,
            binds: binding::wanted(&active.config).then(|| facts.binding.is_on()),
        };
        configuration::expose(to, &state)
    }
}

/// The states of the configured Edges, in the configuration's order.
fn states(maps: &Maps, active: &Active) -> Result<Vec<EdgeState>, DatapathError> {
    let slots = active.numbers.edges.iter();
    let state = |slot: &u16| {
        let edge = maps.edge(*slot)?;
        // Only this program writes them.
        Ok(EdgeState::try_from(edge.state).unwrap_or(EdgeState::Down))
    };
    slots.map(state).collect()
}
