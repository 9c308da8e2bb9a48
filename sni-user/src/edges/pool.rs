//! Which Edge of a pool a connection goes to, and which is tried next.

use std::{net::SocketAddr, sync::Arc};

use sni_common::{Address, maglev};

use super::Edge;
use crate::config::{self, Balance, Name};

/// Slots that are looked at for further Edges; what is not met by then is appended in order.
const TRIES: u64 = 32;

/// Edges that may stand in for each other.
#[derive(Debug)]
pub struct Pool {
    name: Name,
    balance: Balance,
    seed: u64,
    v4: Family,
    v6: Family,
}

/// A pool's Edges of one address family, with the same table that the datapath has for it.
#[derive(Debug, Default)]
struct Family {
    members: Vec<Weighted>,
    /// Positions in `members`; empty without members.
    table: Vec<u16>,
}

#[derive(Debug)]
struct Weighted {
    edge: Arc<Edge>,
    weight: u16,
}

impl Pool {
    pub(super) fn new(pool: &config::Pool, edges: &[Arc<Edge>], seed: &str) -> Self {
        let seed = maglev::identity(&[seed.as_bytes()]);
        let family = |v4: bool| {
            let members = pool.members.iter().filter_map(|member| {
                let edge = edges.get(member.edge.index())?;
                (edge.config.address.is_ipv4() == v4).then(|| Weighted {
                    edge: Arc::clone(edge),
                    weight: member.weight,
                })
            });
            Family::new(members.collect(), seed)
        };
        Self {
            name: pool.name.clone(),
            balance: pool.balance,
            seed,
            v4: family(true),
            v6: family(false),
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its Edges of the client's address family, the best one first; none where the pool has none of that family.
    pub fn order(&self, client: SocketAddr) -> Vec<Arc<Edge>> {
        let family = if client.is_ipv4() { &self.v4 } else { &self.v6 };
        let order = family.by_maglev(client, self.seed);
        // Each load once: they change while others look at them.
        let mut order: Vec<_> = order.into_iter().map(|it| (it.load(), it)).collect();
        if self.balance == Balance::LeastConnections {
            // Stable: of Edges with equally many the one that Maglev prefers.
            order.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        }
        let edges = order.into_iter().map(|(_, member)| &member.edge);
        edges.cloned().collect()
    }
}

impl Family {
    fn new(members: Vec<Weighted>, seed: u64) -> Self {
        if members.is_empty() {
            return Self::default();
        }
        let mut entries: Vec<_> = (0..)
            .zip(&members)
            .map(|(position, member)| maglev::Member {
                identity: member.edge.config.maglev_identity(),
                edge: position,
                weight: member.weight,
            })
            .collect();
        let mut table = Box::new([maglev::NO_EDGE; maglev::ENTRIES]);
        maglev::fill(&mut table, &mut entries, seed);
        Self {
            members,
            table: table[..maglev::SLOTS].to_vec(),
        }
    }

    /// Every member once: in the order in which the datapath would try them, then the rest.
    fn by_maglev(&self, client: SocketAddr, seed: u64) -> Vec<&Weighted> {
        let address = Address::from(client.ip());
        let tried = (0..TRIES).filter_map(|attempt| {
            let seed = seed.wrapping_add(attempt);
            let slot = maglev::slot(&address, client.port().to_be(), seed);
            self.table
                .get(slot as usize)
                .map(|member| usize::from(*member))
        });
        let mut order: Vec<usize> = Vec::with_capacity(self.members.len());
        for position in tried.chain(0..self.members.len()) {
            if !order.contains(&position) {
                order.push(position);
            }
        }
        order
            .into_iter()
            .filter_map(|position| self.members.get(position))
            .collect()
    }
}

impl Weighted {
    /// Connections in relation to the weight, counting the one that may come.
    fn load(&self) -> f64 {
        (f64::from(self.edge.connections()) + 1.0) / f64::from(self.weight)
    }
}
