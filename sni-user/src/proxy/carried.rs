//! The connections that the agent carries itself, for those who ask.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::relay::Activity;
use crate::{control::CarriedConnection, edges::Edge};

/// What a connection has carried so far, and when it last did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes from the client to the Edge.
    pub(crate) to_edge: AtomicU64,
    /// Bytes from the Edge to the client.
    pub(crate) to_client: AtomicU64,
    pub(crate) activity: Activity,
}

/// A connection of the agent.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) client: SocketAddr,
    pub(super) address: SocketAddr,
    pub(super) server_name: Option<String>,
    pub(super) route: u64,
    pub(super) ip_set: Option<String>,
    pub(super) edge: Arc<Edge>,
    pub(super) way: &'static str,
    pub(super) began: Instant,
    pub(super) progress: Arc<Progress>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    next: AtomicU64,
    entries: Mutex<HashMap<u64, Entry>>,
}

impl Registry {
    /// Lists a connection for as long as the guard lives.
    pub(super) fn enter(&self, entry: Entry) -> Listed<'_> {
        let number = self.next.fetch_add(1, Relaxed);
        self.lock().insert(number, entry);
        Listed {
            registry: self,
            number,
        }
    }

    /// As they are now, all or those of one client, in the order of their clients.
    pub(super) fn of(&self, client: Option<IpAddr>) -> Vec<CarriedConnection> {
        let entries = self.lock();
        let wanted = entries
            .values()
            .filter(|entry| client.is_none_or(|client| entry.client.ip() == client));
        let mut all: Vec<_> = wanted.map(Entry::shown).collect();
        drop(entries);
        all.sort_unstable_by_key(|connection| (connection.client, connection.vip));
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn shown(&self) -> CarriedConnection {
        CarriedConnection {
            client: self.client,
            vip: self.address,
            server_name: self.server_name.clone(),
            route: self.route,
            ip_set: self.ip_set.clone(),
            edge: self.edge.config.name.to_string(),
            edge_address: self.edge.config.address,
            way: self.way.to_owned(),
            age_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            idle_ms: self.progress.activity.silent_ms(),
            to_edge: self.progress.to_edge.load(Relaxed),
            to_client: self.progress.to_client.load(Relaxed),
        }
    }
}

/// A listed connection.
#[derive(Debug)]
pub(super) struct Listed<'a> {
    registry: &'a Registry,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.number);
    }
}
