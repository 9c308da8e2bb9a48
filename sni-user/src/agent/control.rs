//! What the agent does when it is asked over its control socket.
//!
//! Requests that change something are carried out by the agent's one loop, in order; the others are answered at once.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use tokio::sync::{broadcast, mpsc, oneshot};

use super::{
    AgentError, binding,
    error::FileFindings,
    health::{Board, named},
    watching::Watching,
};
use crate::{
    config::{Name, ServerName},
    control::{
        ActiveConfiguration, AgentStatus, AttachedInterface, CarriedConnection, Connections,
        DomainChanged, DomainTable, EdgeChanged, EdgeEnded, Handler, HelloSeen, Refusal,
        RefusalKind, RefusedConfiguration, Reloaded, RouteAdded, RouteRemoved,
    },
    proxy::Proxy,
};

type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// A request that changes something.
pub(super) enum Change {
    Reload(Answer<Reloaded>),
    AddRoute(ServerName, Name, Answer<RouteAdded>),
    RemoveRoute(ServerName, Answer<RouteRemoved>),
    DrainEdge(Name, Answer<EdgeChanged>),
    EnableEdge(Name, Answer<EdgeChanged>),
    AddDomain(Box<DomainTable>, Answer<DomainChanged>),
    RemoveDomain(String, Answer<DomainChanged>),
}

/// What the agent tells about itself.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) started: Instant,
    pub(super) file: PathBuf,
    pub(super) generation: u32,
    pub(super) activated: Instant,
    pub(super) refused: Option<RefusedConfiguration>,
    pub(super) attached: Vec<AttachedInterface>,
    pub(super) binding: binding::Facts,
}

/// The agent, as the control socket sees it.
pub(super) struct Asked {
    pub(super) proxy: Arc<Proxy>,
    pub(super) watching: Arc<Watching>,
    pub(super) facts: Arc<Mutex<Facts>>,
    pub(super) edges: Arc<Board>,
    pub(super) changes: mpsc::Sender<Change>,
}

impl Asked {
    async fn change<T>(&self, change: impl FnOnce(Answer<T>) -> Change) -> Result<T, Refusal> {
        let gone = || Refusal::new(RefusalKind::Failed, "the agent is ending");
        let (answer, answered) = oneshot::channel();
        let sent = self.changes.send(change(answer)).await;
        sent.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Handler for Asked {
    async fn status(&self) -> Result<AgentStatus, Refusal> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let ms = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: ms(facts.started),
            configuration: ActiveConfiguration {
                file: facts.file.clone(),
                generation: facts.generation,
                age_ms: ms(facts.activated),
                refused: facts.refused.clone(),
            },
            interfaces: facts.attached.clone(),
            binding: Some(facts.binding.status()),
            edges: self.edges.status(),
            connections: self.proxy.open(),
            counters: self.proxy.counters(),
        })
    }

    fn connections(&self, client: Option<IpAddr>) -> Connections {
        self.proxy.connections(client).into()
    }

    async fn reload(&self) -> Result<Reloaded, Refusal> {
        self.change(Change::Reload).await
    }

    async fn add_route(&self, name: ServerName, pool: Name) -> Result<RouteAdded, Refusal> {
        self.change(|answer| Change::AddRoute(name, pool, answer))
            .await
    }

    async fn remove_route(&self, name: ServerName) -> Result<RouteRemoved, Refusal> {
        self.change(|answer| Change::RemoveRoute(name, answer))
            .await
    }

    async fn drain_edge(&self, name: Name) -> Result<EdgeChanged, Refusal> {
        self.change(|answer| Change::DrainEdge(name, answer)).await
    }

    async fn enable_edge(&self, name: Name) -> Result<EdgeChanged, Refusal> {
        self.change(|answer| Change::EnableEdge(name, answer)).await
    }

    async fn end_edge(&self, name: Name) -> Result<EdgeEnded, Refusal> {
        let active = self.proxy.active();
        let edge = named(&name, &active)?;
        let is_its = |it: &CarriedConnection| it.edge_address == edge.config.address;
        let connections = self.proxy.connections(None);
        let connections = connections.iter().filter(|it| is_its(it)).count();
        edge.end_connections();
        Ok(EdgeEnded { connections })
    }

    async fn add_domain(&self, domain: DomainTable) -> Result<DomainChanged, Refusal> {
        self.change(|answer| Change::AddDomain(Box::new(domain), answer))
            .await
    }

    async fn remove_domain(&self, sip_domain: String) -> Result<DomainChanged, Refusal> {
        self.change(|answer| Change::RemoveDomain(sip_domain, answer))
            .await
    }

    fn watch(&self) -> broadcast::Receiver<Arc<HelloSeen>> {
        self.watching.begin()
    }
}

/// An error of the agent as an answer to whoever asked.
pub(super) fn refusal(file: &std::path::Path, error: &AgentError) -> Refusal {
    match error {
        AgentError::Configuration(found) => Refusal::configuration(file, found),
        AgentError::Files(findings) => Refusal::new(
            RefusalKind::Configuration,
            format!("{findings}\nWhat was active stays active."),
        ),
        AgentError::Unchangeable { .. } => Refusal::new(RefusalKind::Conflict, error.to_string()),
        other => Refusal::new(RefusalKind::Failed, other.to_string()),
    }
}

/// The same for the status: when, and the first sentence.
pub(super) fn remembered(error: &AgentError) -> RefusedConfiguration {
    let why = match error {
        AgentError::Configuration(found) => found
            .errors()
            .next()
            .map_or_else(String::new, ToString::to_string),
        // Warnings are among them, and may come first.
        AgentError::Files(FileFindings(found)) => found
            .iter()
            .find(|finding| finding.is_error())
            .map_or_else(String::new, ToString::to_string),
        other => other.to_string(),
    };
    RefusedConfiguration {
        at: SystemTime::now(),
        why: why.lines().next().unwrap_or_default().to_owned(),
    }
}
