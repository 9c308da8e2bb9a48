//! The Edges as the agent sees them: which are up, how many connections each has, and which of a pool's is next.

mod health;
mod pool;
mod standing;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use sni_common::contract::EdgeState;
use tokio::sync::Notify;

use self::standing::Standing;
pub use self::{health::Health, pool::Pool};
use crate::config::{self, Config};

/// One Edge of the configuration, and what the agent knows of it.
#[derive(Debug)]
pub struct Edge {
    /// As it is configured.
    pub config: config::Edge,
    /// Its position in the configuration.
    pub index: usize,
    connections: Arc<Connections>,
    standing: Arc<Standing>,
    /// Told when connects to an Edge fail as often as it may.
    trouble: Arc<Notify>,
}

/// How many connections an Edge has.
///
/// Those of the datapath are what the last sweep has found, and those that were handed off since it began. So what was handed off while a sweep
/// was reading may be counted twice, and what has ended since is still counted, until the next one: five seconds, longer with millions of flows.
/// Nothing is missed, except that an agent knows nothing of what earlier ones have handed off before its first sweep.
#[derive(Debug, Default)]
struct Connections {
    /// Those whose sockets the agent has.
    carried: AtomicU32,
    /// How many have been handed off, ever; wraps around.
    handed_off: AtomicU32,
    /// What the last sweep has found, in the upper half; in the lower `handed_off` when it began.
    swept: AtomicU64,
}

/// How many connections had been handed off, by Edge, when a sweep began.
#[derive(Debug)]
pub struct BeforeSweep(Vec<u32>);

impl Edge {
    /// Connections that the agent has to it, those that are being made included, and those that were handed off.
    pub fn connections(&self) -> u32 {
        let counts = &self.connections;
        let swept = counts.swept.load(Ordering::Relaxed);
        let (found, before) = ((swept >> 32) as u32, swept as u32);
        let since = counts
            .handed_off
            .load(Ordering::Relaxed)
            .wrapping_sub(before);
        let carried = counts.carried.load(Ordering::Relaxed);
        carried.saturating_add(found).saturating_add(since)
    }

    /// Whether it gets new connections.
    pub fn is_up(&self) -> bool {
        self.standing.is_up()
    }

    /// What it is taken for.
    pub fn state(&self) -> EdgeState {
        self.standing.state()
    }

    /// It is taken for this from now on; pools go by it with [`Edges::refresh`].
    pub fn set_state(&self, state: EdgeState) {
        self.standing.set_state(state);
    }

    /// The agent has connected to it.
    pub fn connected(&self) {
        self.standing.connected();
    }

    /// The agent could not connect to it on behalf of this client. Only what the Edge, or the way to it, is to blame for counts, and one client counts once
    /// in a row: with `preserve` it may be the client that the Edge does not like.
    pub fn not_connected(&self, client: IpAddr, reason: &io::Error) {
        let Some(health) = &self.config.health else {
            return;
        };
        if standing::is_the_edges(reason) && self.standing.failed(client, reason) >= health.fall {
            self.trouble.notify_one();
        }
    }

    /// Why it is to be taken for down, if its last connects have failed as often in a row as it may.
    pub fn failing(&self) -> Option<String> {
        self.standing.failing(self.config.health.as_ref()?.fall)
    }

    /// Ends the agent's own connections to it.
    pub fn end_connections(&self) {
        self.standing.end_connections();
    }

    /// Until [`Edge::end_connections`].
    pub async fn ended(&self) {
        self.standing.ended().await;
    }

    /// Counts a connection for as long as the guard lives.
    pub fn enter(&self) -> Entered {
        self.connections.carried.fetch_add(1, Ordering::Relaxed);
        Entered(Arc::clone(&self.connections))
    }
}

/// A connection to an Edge, counted until this is dropped.
#[derive(Debug)]
pub struct Entered(Arc<Connections>);

impl Entered {
    /// It is the datapath's from here on.
    pub fn hand_off(self) {
        self.0.handed_off.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.carried.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Every Edge and pool of a configuration, in its order.
#[derive(Debug, Default)]
pub struct Edges {
    edges: Vec<Arc<Edge>>,
    pools: Vec<Pool>,
    trouble: Arc<Notify>,
}

impl Edges {
    /// The Edges of a configuration. Counts and states of `earlier` ones with the same name and address go on: their connections do.
    pub fn new(config: &Config, earlier: &Self) -> Self {
        let known: HashMap<(&str, SocketAddr), &Arc<Edge>> = earlier
            .edges
            .iter()
            .map(|edge| ((edge.config.name.as_str(), edge.config.address), edge))
            .collect();
        let edges: Vec<_> = config
            .edges
            .iter()
            .enumerate()
            .map(|(index, edge)| {
                let (connections, standing) = known
                    .get(&(edge.name.as_str(), edge.address))
                    .map(|known| (Arc::clone(&known.connections), Arc::clone(&known.standing)))
                    .unwrap_or_default();
                Arc::new(Edge {
                    config: edge.clone(),
                    index,
                    connections,
                    standing,
                    trouble: Arc::clone(&earlier.trouble),
                })
            })
            .collect();
        let pools: Vec<_> = config
            .pools
            .iter()
            .map(|pool| Pool::new(pool, &edges, &config.gateway.seed))
            .collect();
        Self {
            edges,
            pools,
            trouble: Arc::clone(&earlier.trouble),
        }
    }

    /// Has the pools go by the states of their Edges.
    pub fn refresh(&self) {
        for pool in &self.pools {
            pool.refresh();
        }
    }

    /// The pools, in the configuration's order.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter()
    }

    /// Told when connects to an Edge have failed as often as it may; see [`Edge::failing`].
    pub fn trouble(&self) -> Arc<Notify> {
        Arc::clone(&self.trouble)
    }

    /// A pool by its position in the configuration.
    pub fn pool(&self, index: usize) -> Option<&Pool> {
        self.pools.get(index)
    }

    /// A sweep begins.
    pub fn before_sweep(&self) -> BeforeSweep {
        let handed_off = |edge: &Arc<Edge>| edge.connections.handed_off.load(Ordering::Relaxed);
        BeforeSweep(self.edges.iter().map(handed_off).collect())
    }

    /// A sweep has found so many handed-off flows of each Edge, by its position.
    pub fn swept(&self, before: &BeforeSweep, found: impl Fn(usize) -> u32) {
        for (edge, before) in self.edges.iter().zip(&before.0) {
            let swept = u64::from(found(edge.index)) << 32 | u64::from(*before);
            edge.connections.swept.store(swept, Ordering::Relaxed);
        }
    }

    /// All Edges.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Edge>> {
        self.edges.iter()
    }
}

#[cfg(test)]
mod tests;
