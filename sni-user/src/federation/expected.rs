//! Where a domain's partners are meant to come to.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    config::{Config, Domain, HostName, IpSet, Mode, PoolRef},
    proxy::Routing,
};

/// The addresses and routes of a configuration.
pub(super) struct Expected<'a> {
    config: &'a Config,
    routing: Routing,
    services: HashMap<SocketAddr, &'a IpSet>,
    addresses: HashSet<IpAddr>,
    domains: HashMap<&'a HostName, Vec<usize>>,
}

/// What an address is to us.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// None of ours.
    Foreign,
    /// Ours, and not with this port.
    OtherPort,
    /// An IP set's.
    Served(&'a IpSet),
}

/// Why connections do not come where they should.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Astray {
    /// They come elsewhere.
    Elsewhere(String),
    /// They are refused.
    Refused,
}

impl<'a> Expected<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        let mut services = HashMap::new();
        for set in &config.ip_sets {
            for address in &set.addresses {
                services.extend(
                    set.ports
                        .iter()
                        .map(|port| (SocketAddr::new(*address, *port), set)),
                );
            }
        }
        let mut domains: HashMap<_, Vec<_>> = HashMap::new();
        for (index, domain) in config.domains.iter().enumerate() {
            domains.entry(&domain.sip_domain).or_default().push(index);
        }
        Self {
            addresses: services.keys().map(SocketAddr::ip).collect(),
            routing: Routing::new(config),
            services,
            domains,
            config,
        }
    }

    pub(super) fn place(&self, address: SocketAddr) -> Place<'a> {
        match self.services.get(&address) {
            Some(set) => Place::Served(set),
            None if self.addresses.contains(&address.ip()) => Place::OtherPort,
            None => Place::Foreign,
        }
    }

    /// Whether connections to an IP set with this server name come where the domain says. Of a domain that the configuration does not
    /// have, only that they come anywhere.
    pub(super) fn reaches(&self, set: &IpSet, domain: &HostName, name: &str) -> Result<(), Astray> {
        let wanted: Vec<_> = self
            .domains
            .get(domain)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        match &set.mode {
            Mode::Steer { pool } => self.steered(set, pool, &wanted),
            Mode::Inspect { default, .. } => self.inspected(set, default.as_ref(), &wanted, name),
        }
    }

    fn steered(&self, set: &IpSet, pool: &PoolRef, wanted: &[usize]) -> Result<(), Astray> {
        let Some(domain) = wanted.first().map(|index| &self.config.domains[*index]) else {
            return Ok(());
        };
        let set = &set.name;
        if domain.terminate.is_some() {
            return Err(Astray::Elsewhere(format!(
                "the IP set {set} steers to {}, past the certificate that the gateway has for the domain",
                pool.name()
            )));
        }
        self.same_edges(pool, domain, &format!("the IP set {set} steers"))
    }

    fn inspected(
        &self,
        set: &IpSet,
        default: Option<&PoolRef>,
        wanted: &[usize],
        name: &str,
    ) -> Result<(), Astray> {
        // A client of one of them: of those that share a name, each asks for protocols of its own.
        let offered: Vec<_> = wanted
            .iter()
            .flat_map(|index| &self.config.domains[*index].alpn)
            .map(|alpn| alpn.as_bytes().to_vec())
            .collect();
        let set = &set.name;
        match (self.routing.named(name, &offered), default) {
            (Some(named), _) => match named.domain {
                Some(found) if wanted.is_empty() || wanted.contains(&found) => Ok(()),
                Some(found) => Err(Astray::Elsewhere(format!(
                    "the name belongs to the domain {}",
                    self.config.domains[found].sip_domain
                ))),
                None => Err(Astray::Refused),
            },
            (None, Some(pool)) => match wanted.first().map(|index| &self.config.domains[*index]) {
                None => Ok(()),
                Some(domain) if domain.terminate.is_some() => Err(Astray::Elsewhere(format!(
                    "no domain has the name, and the default of the IP set {set} is passed through, past the domain's certificate"
                ))),
                Some(domain) => self.same_edges(
                    pool,
                    domain,
                    &format!("no domain has the name, and the IP set {set} sends by default"),
                ),
            },
            (None, None) => Err(Astray::Refused),
        }
    }

    /// A pool for one address family is another pool, with the same Edges' addresses of that family among its own: one in common is enough.
    fn same_edges(&self, pool: &PoolRef, domain: &Domain, who: &str) -> Result<(), Astray> {
        let edges = |pool: &PoolRef| {
            let members = &self.config.pool(pool).members;
            members
                .iter()
                .map(|member| member.edge.index())
                .collect::<HashSet<_>>()
        };
        if edges(pool).is_disjoint(&edges(&domain.pool)) {
            return Err(Astray::Elsewhere(format!(
                "{who} to {}, and the domain is meant for {}",
                pool.name(),
                domain.pool.name()
            )));
        }
        Ok(())
    }
}
