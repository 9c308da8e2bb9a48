//! The Edges as the agent sees them: how many connections each has, and which of a pool's is next.

mod pool;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

pub use self::pool::Pool;
use crate::config::{self, Config};

/// One Edge of the configuration, and what the agent knows of it.
#[derive(Debug)]
pub struct Edge {
    /// As it is configured.
    pub config: config::Edge,
    /// Its position in the configuration.
    pub index: usize,
    /// Connections of this agent, whatever became of them in the datapath.
    connections: Arc<AtomicU32>,
}

impl Edge {
    /// Connections that the agent has to it, those that are being made included.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a connection for as long as the guard lives.
    pub fn enter(&self) -> Entered {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Entered(Arc::clone(&self.connections))
    }
}

/// A connection to an Edge, counted until this is dropped.
#[derive(Debug)]
pub struct Entered(Arc<AtomicU32>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Every Edge and pool of a configuration, in its order.
#[derive(Debug, Default)]
pub struct Edges {
    edges: Vec<Arc<Edge>>,
    pools: Vec<Pool>,
}

impl Edges {
    /// The Edges of a configuration. Counts of `earlier` ones with the same name and address go on: their connections do.
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
                let count = known
                    .get(&(edge.name.as_str(), edge.address))
                    .map_or_else(Arc::default, |known| Arc::clone(&known.connections));
                Arc::new(Edge {
                    config: edge.clone(),
                    index,
                    connections: count,
                })
            })
            .collect();
        let pools = config
            .pools
            .iter()
            .map(|pool| Pool::new(pool, &edges, &config.gateway.seed))
            .collect();
        Self { edges, pools }
    }

    /// A pool by its position in the configuration.
    pub fn pool(&self, index: usize) -> Option<&Pool> {
        self.pools.get(index)
    }

    /// All Edges.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Edge>> {
        self.edges.iter()
    }
}

#[cfg(test)]
mod tests;
