//! An agent for tests, on both sides of the socket: here, and for the command line.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use sni_common::contract::Matched;
use tokio::sync::{Notify, broadcast};

use super::*;
use crate::config::{Config, Name, ServerName};

/// How many hellos a watcher may fall behind.
const BEHIND: usize = 8;

/// Remembers what it was asked.
pub(crate) struct FakeAgent {
    asked: Mutex<Vec<String>>,
    pub(crate) seen: broadcast::Sender<Arc<HelloSeen>>,
    /// Reloads wait for this.
    pub(crate) go_on: Notify,
    pub(crate) reloaded: Notify,
}

impl Default for FakeAgent {
    fn default() -> Self {
        Self {
            asked: Mutex::default(),
            seen: broadcast::channel(BEHIND).0,
            go_on: Notify::new(),
            reloaded: Notify::new(),
        }
    }
}

impl FakeAgent {
    pub(crate) fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().expect("no panic")
    }
}

pub(crate) fn connection() -> CarriedConnection {
    CarriedConnection {
        client: "198.51.100.1:4711".parse().expect("an address"),
        vip: "198.51.100.20:5061".parse().expect("an address"),
        server_name: Some("sip.contoso.example".into()),
        route: 77,
        ip_set: Some("shared".into()),
        edge: "edge-a".into(),
        edge_address: "203.0.113.10:5061".parse().expect("an address"),
        way: "terminated".into(),
        age_ms: 90_000,
        idle_ms: 30_000,
        to_edge: 3400,
        to_client: 98_000,
    }
}

pub(crate) fn status() -> AgentStatus {
    AgentStatus {
        version: "0.1.0".into(),
        pid: 42,
        uptime_ms: 1000,
        configuration: ActiveConfiguration {
            file: "/etc/snigate/snigate.toml".into(),
            generation: 7,
            age_ms: 500,
            refused: Some(RefusedConfiguration {
                at: SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_250),
                why: "no pool".into(),
            }),
        },
        interfaces: Vec::new(),
        binding: Some(BindingStatus {
            off: None,
            since_ms: 750,
            stamped_ms: Some(250),
        }),
        edges: vec![EdgeStatus {
            name: "edge-a".into(),
            address: "203.0.113.10:5061".parse().expect("an address"),
            state: "down".into(),
            since_ms: 12_000,
            why: Some("it can't be connected to: Connection refused".into()),
            checked_ms: Some(700),
        }],
        connections: 3,
        counters: [("hellos".to_owned(), 12)].into(),
    }
}

pub(crate) fn reloaded() -> Reloaded {
    Reloaded {
        generation: 7,
        took_us: 1500,
        files: 2,
        ip_sets: 1,
        edges: 2,
        pools: 1,
        domains: 3,
        names: 4,
        terminated: 1,
        warnings: vec!["too quiet".into()],
    }
}

impl Handler for FakeAgent {
    async fn status(&self) -> Result<AgentStatus, Refusal> {
        self.asked().push("status".into());
        Ok(status())
    }

    fn connections(&self, client: Option<IpAddr>) -> Connections {
        self.asked().push(match client {
            Some(client) => format!("connections of {client}"),
            None => "connections".into(),
        });
        vec![connection()].into()
    }

    async fn reload(&self) -> Result<Reloaded, Refusal> {
        self.asked().push("reload".into());
        self.go_on.notified().await;
        self.asked().push("reloaded".into());
        self.reloaded.notify_one();
        Ok(reloaded())
    }

    async fn add_route(&self, name: ServerName, pool: Name) -> Result<RouteAdded, Refusal> {
        self.asked().push(format!("{name} to {pool}"));
        Ok(RouteAdded {
            name: name.to_string(),
            pool: pool.to_string(),
            replaced: None,
        })
    }

    async fn remove_route(&self, name: ServerName) -> Result<RouteRemoved, Refusal> {
        Err(Refusal::new(
            RefusalKind::NotFound,
            format!("{name} has no live route"),
        ))
    }

    async fn drain_edge(&self, name: Name) -> Result<EdgeChanged, Refusal> {
        self.asked().push(format!("drain {name}"));
        Ok(edge(&name, "draining", vec!["edges-a".into()]))
    }

    async fn enable_edge(&self, name: Name) -> Result<EdgeChanged, Refusal> {
        self.asked().push(format!("enable {name}"));
        Ok(edge(&name, "up", Vec::new()))
    }

    async fn end_edge(&self, name: Name) -> Result<EdgeEnded, Refusal> {
        self.asked().push(format!("end {name}"));
        Ok(EdgeEnded { connections: 1 })
    }

    async fn add_domain(&self, domain: DomainTable) -> Result<DomainChanged, Refusal> {
        self.asked().push(format!("{domain:?}"));
        Ok(DomainChanged {
            sip_domain: domain.sip_domain,
            file: "domains.d/x.toml".into(),
            reloaded: reloaded(),
        })
    }

    async fn remove_domain(&self, sip_domain: String) -> Result<DomainChanged, Refusal> {
        let mistaken = Config::parse(Path::new("/etc/snigate.toml"), "hok = 1\n").unwrap_err();
        self.asked().push(sip_domain);
        Err(Refusal::configuration(
            Path::new("/etc/snigate.toml"),
            &mistaken,
        ))
    }

    fn watch(&self) -> broadcast::Receiver<Arc<HelloSeen>> {
        self.seen.subscribe()
    }
}

fn edge(name: &Name, state: &str, without: Vec<String>) -> EdgeChanged {
    EdgeChanged {
        name: name.to_string(),
        address: "203.0.113.10:5061".parse().expect("an address"),
        state: state.into(),
        changed: true,
        without,
    }
}

pub(crate) fn hello(name: &str, source: &str) -> Arc<HelloSeen> {
    Arc::new(HelloSeen {
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        source: source.parse().expect("an address"),
        address: "198.51.100.20:5061".parse().expect("an address"),
        server_name: Some(name.to_owned()),
        version: Some("1.3".into()),
        alpn: vec!["sip".into()],
        ja4: None,
        post_quantum: true,
        ech: false,
        route: Some("edges-a".into()),
        matched: Some(Matched::Exact),
        result: "passed to edge-a".into(),
    })
}
