//! Next hops stay resolved: the datapath can look a neighbour up, but never ask for one.

use std::{
    collections::HashSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{config, net::Network};

/// An interface and the address of a next hop on it.
pub(crate) type NextHopAddress = (u32, IpAddr);

/// Next hops resolved on demand in one second: clients on the gateway's own link, whose addresses a flood can make up.
const ON_DEMAND_PER_SECOND: usize = 100;

/// The neighbours that the agent cares for.
pub(crate) struct Neighbours {
    network: Network,
    interfaces: Vec<u32>,
    kept: HashSet<NextHopAddress>,
    window: Instant,
    resolved: usize,
}

impl Neighbours {
    pub(crate) fn new(network: Network, interfaces: Vec<u32>) -> Self {
        Self {
            network,
            interfaces,
            kept: HashSet::new(),
            window: Instant::now(),
            resolved: 0,
        }
    }

    /// The interfaces that frames can leave by, VLAN interfaces among them, have changed.
    pub(crate) fn leave_by(&mut self, interfaces: Vec<u32>) {
        self.interfaces = interfaces;
    }

    /// Has the kernel keep the next hops to the Edges, and the gateways of the attached interfaces, resolved for as long as they are needed.
    ///
    /// Trouble is said and tried again with the next change of the network: steering to other Edges goes on.
    pub(crate) async fn keep_edges(&mut self, edges: &[config::Edge]) {
        let mut next_hops = HashSet::new();
        for edge in edges {
            match self.network.route_to(edge.address.ip(), None).await {
                Ok(route) => {
                    next_hops.insert((route.ifindex, route.gateway.unwrap_or(edge.address.ip())));
                }
                Err(error) => tracing::warn!(edge = %edge.name, %error, "no way to the Edge"),
            }
        }
        match self.network.default_next_hops(&self.interfaces).await {
            Ok(gateways) => next_hops.extend(gateways),
            Err(error) => {
                tracing::warn!(%error, "the gateways of the attached interfaces can't be listed")
            }
        }
        for (ifindex, address) in self.kept.difference(&next_hops) {
            if let Err(error) = self.network.release_neighbour(*ifindex, *address).await {
                tracing::debug!(%address, %error, "a neighbour that is needed no more could not be released");
            }
        }
        for (ifindex, address) in &next_hops {
            if let Err(error) = self.network.keep_neighbour(*ifindex, *address).await {
                tracing::warn!(%address, %error, "a next hop can't be kept resolved");
            }
        }
        self.kept = next_hops;
    }

    /// Asks again for entries that have been removed. Not for all: every request is a change of the neighbour table itself.
    pub(crate) async fn mend(&self) {
        for (ifindex, address) in &self.kept {
            if matches!(
                self.network.neighbour_state(*ifindex, *address).await,
                Ok(None)
            ) && let Err(error) = self.network.keep_neighbour(*ifindex, *address).await
            {
                tracing::warn!(%address, %error, "a next hop can't be kept resolved");
            }
        }
    }

    /// Resolves next hops that the datapath has asked for, once.
    pub(crate) async fn resolve(&mut self, wanted: impl Iterator<Item = NextHopAddress>) {
        if self.window.elapsed() >= Duration::from_secs(1) {
            self.window = Instant::now();
            self.resolved = 0;
        }
        for (ifindex, address) in wanted {
            if self.resolved >= ON_DEMAND_PER_SECOND {
                tracing::debug!(
                    "too many next hops to resolve in one second; the rest is asked for again"
                );
                return;
            }
            self.resolved += 1;
            if let Err(error) = self.network.resolve_neighbour(ifindex, address).await {
                tracing::debug!(%address, %error, "a next hop can't be resolved");
            }
        }
    }
}
