//! Which Edge of a pool a connection goes to, and which is tried next.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
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
    v4: Family,
    v6: Family,
}

/// A pool's Edges of one address family, with the same tables that the datapath has for it.
#[derive(Debug, Default)]
struct Family {
    members: Vec<Weighted>,
    /// Positions in `members`; empty without members.
    table: Vec<u16>,
    /// Likewise of those that are up; nobody where there are none.
    available: ArcSwap<Vec<u16>>,
    seed: u64,
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
            v4: family(true),
            v6: family(false),
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Has it go by the states of its Edges.
    pub(super) fn refresh(&self) {
        self.v4.refresh();
        self.v6.refresh();
    }

    /// Whether it has Edges of the client's address family.
    pub fn serves(&self, client: SocketAddr) -> bool {
        !self.family(client.is_ipv4()).members.is_empty()
    }

    /// Whether this Edge is one of its, and it has none that is up of that address family.
    pub fn is_left_without(&self, edge: &Edge) -> bool {
        let members = &self.family(edge.config.address.is_ipv4()).members;
        let is_it = |member: &Weighted| member.edge.index == edge.index;
        members.iter().any(is_it) && !members.iter().any(|member| member.edge.is_up())
    }

    fn family(&self, v4: bool) -> &Family {
        if v4 { &self.v4 } else { &self.v6 }
    }

    /// Its Edges of the client's address family that are up, the best one first.
    pub fn order(&self, client: SocketAddr) -> Vec<Arc<Edge>> {
        let family = self.family(client.is_ipv4());
        let order = family.by_maglev(client);
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
        let mut table = Box::new([maglev::NO_EDGE; maglev::ENTRIES]);
        maglev::fill(&mut table, &mut entries(&members, |_| true), seed);
        let family = Self {
            members,
            table: table[..maglev::SLOTS].to_vec(),
            available: ArcSwap::default(),
            seed,
        };
        family.refresh();
        family
    }

    fn refresh(&self) {
        if self.members.is_empty() {
            return;
        }
        let mut available = entries(&self.members, Edge::is_up);
        let mut table = Box::new([maglev::NO_EDGE; maglev::ENTRIES]);
        maglev::fill_available(&mut table, &self.table, &mut available, self.seed);
        let slots = table[..maglev::SLOTS].to_vec();
        self.available.store(Arc::new(slots));
    }

    /// Every member that is up once: in the order in which the datapath would try them, then the rest.
    fn by_maglev(&self, client: SocketAddr) -> Vec<&Weighted> {
        let address = Address::from(client.ip());
        let available = self.available.load();
        let tried = (0..TRIES).filter_map(|attempt| {
            let seed = self.seed.wrapping_add(attempt);
            let slot = maglev::slot(&address, client.port().to_be(), seed);
            let member = available.get(slot as usize);
            member.map(|member| usize::from(*member))
        });
        let mut order: Vec<usize> = Vec::with_capacity(self.members.len());
        for position in tried.chain(0..self.members.len()) {
            if !order.contains(&position) {
                order.push(position);
            }
        }
        let members = order
            .into_iter()
            .filter_map(|position| self.members.get(position));
        // The table may be a moment older than a state.
        members.filter(|member| member.edge.is_up()).collect()
    }
}

/// Those of the members that `wanted` takes, as Maglev wants them.
fn entries(members: &[Weighted], wanted: impl Fn(&Edge) -> bool) -> Vec<maglev::Member> {
    let all = (0..).zip(members);
    all.filter(|(_, member)| wanted(&member.edge))
        .map(|(position, member)| maglev::Member {
            identity: member.edge.config.maglev_identity(),
            edge: position,
            weight: member.weight,
        })
        .collect()
}

impl Weighted {
    /// Connections in relation to the weight, counting the one that may come.
    fn load(&self) -> f64 {
        (f64::from(self.edge.connections()) + 1.0) / f64::from(self.weight)
    }
}
