//! A configuration in the datapath's terms.

use std::{collections::HashMap, net::IpAddr};

use foldhash::HashMapExt as _;
use sni_common::{
    Address,
    contract::{
        AclAction, Edge, EdgeState, Mode, NO_POOL, ROUTE_AGENT, ROUTE_CONDITIONAL, RouteAction,
        SERVICE_BIND, Settings, SniName, SniRoute, SourceMode,
        limits::{MAX_POOLS, MAX_SNI_ROUTES},
    },
    maglev,
};

use super::DatapathError;
use crate::config::{self, Config};

/// What a configuration comes to.
#[derive(Clone, Debug)]
pub struct Tables {
    pub(super) settings: Settings,
    pub(super) edges: Vec<NamedEdge>,
    pub(super) pools: Vec<FamilyPool>,
    /// The number of each pool of the configuration for IPv4 and IPv6, or [`NO_POOL`].
    pub(super) pool_numbers: Vec<[u32; 2]>,
    pub(super) ip_sets: Vec<String>,
    pub(super) services: Vec<ServiceEntry>,
    pub(super) routes: Vec<(SniName, SniRoute)>,
    pub(super) acl: Vec<(u32, Address, AclAction)>,
}

#[derive(Clone, Debug)]
pub(super) struct NamedEdge {
    pub(super) name: String,
    pub(super) identity: u64,
    pub(super) entry: Edge,
}

/// A pool's members of one address family: the datapath translates addresses, not families.
#[derive(Clone, Debug)]
pub(super) struct FamilyPool {
    pub(super) name: String,
    pub(super) v4: bool,
    /// Index in `edges`, and weight.
    pub(super) members: Vec<(usize, u16)>,
}

#[derive(Clone, Debug)]
pub(super) struct ServiceEntry {
    pub(super) address: Address,
    pub(super) ports: Vec<u16>,
    pub(super) mode: Mode,
    /// As [`sni_common::contract::Service::flags`].
    pub(super) flags: u8,
    pub(super) pool: u32,
    /// Index in `ip_sets`.
    pub(super) ip_set: usize,
}

impl Tables {
    /// Translates a configuration.
    ///
    /// `owned_ports` are the first port that the gateway may use toward an Edge, and how many from there; `gateway_address` gives the
    /// gateway's own address toward an Edge whose source is `gateway`, or a sentence why there is none.
    ///
    /// # Errors
    /// An Edge without a usable address, or more pools or server names than fit.
    pub fn new(
        config: &Config,
        owned_ports: (u16, u16),
        mut gateway_address: impl FnMut(&config::Edge) -> Result<IpAddr, String>,
    ) -> Result<Self, DatapathError> {
        let mut edges = Vec::new();
        for edge in &config.edges {
            let gateway = match edge.source {
                config::SourceMode::Preserve => Address::default(),
                config::SourceMode::Gateway => gateway_address(edge)
                    .map_err(|reason| DatapathError::Edge {
                        edge: edge.name.to_string(),
                        address: edge.address.to_string(),
                        reason,
                    })?
                    .into(),
            };
            edges.push(NamedEdge {
                name: edge.name.to_string(),
                identity: edge.maglev_identity(),
                entry: edge_entry(edge, gateway),
            });
        }

        let mut pools = Vec::new();
        let mut numbers = HashMap::new();
        for (index, pool) in config.pools.iter().enumerate() {
            for v4 in [true, false] {
                let members: Vec<_> = pool
                    .members
                    .iter()
                    .map(|member| (member.edge.index(), member.weight))
                    .filter(|(edge, _)| edges[*edge].entry.address.is_v4() == v4)
                    .collect();
                if !members.is_empty() {
                    numbers.insert((index, v4), pools.len() as u32);
                    pools.push(FamilyPool {
                        name: pool.name.to_string(),
                        v4,
                        members,
                    });
                }
            }
        }
        if pools.len() > MAX_POOLS as usize {
            return Err(DatapathError::TooMany {
                what: "the number of pools, counted once per address family,",
                limit: MAX_POOLS,
                advice: "let IP sets share pools",
            });
        }

        let mut services = Vec::new();
        for (index, set) in config.ip_sets.iter().enumerate() {
            for address in &set.addresses {
                let (mode, pool) = match &set.mode {
                    config::Mode::Steer { pool } => {
                        (Mode::Steer, numbers.get(&(pool.index(), address.is_ipv4())))
                    }
                    config::Mode::Inspect { default, .. } => (
                        Mode::Inspect,
                        default
                            .as_ref()
                            .and_then(|pool| numbers.get(&(pool.index(), address.is_ipv4()))),
                    ),
                };
                let binds = matches!(set.mode, config::Mode::Inspect { bind: true, .. });
                services.push(ServiceEntry {
                    address: (*address).into(),
                    ports: set.ports.clone(),
                    mode,
                    flags: if binds { SERVICE_BIND } else { 0 },
                    // An inspected address without a default has no pool; the datapath does not look at it.
                    pool: pool.copied().unwrap_or(NO_POOL),
                    ip_set: index,
                });
            }
        }

        let prefix = |net: &config::IpNet, action| {
            let address = Address::from(net.network());
            (address.prefix_bits(net.prefix_len()), address, action)
        };
        let limits = &config.limits;
        let acl: Vec<_> = limits
            .deny
            .iter()
            .map(|net| prefix(net, AclAction::Deny))
            .chain(limits.allow.iter().map(|net| prefix(net, AclAction::Allow)))
            .collect();
        Ok(Self {
            settings: Settings {
                seed: maglev::identity(&[config.gateway.seed.as_bytes()]),
                syn_millirate: limits.syn_per_source.millirate(),
                syn_burst: limits.syn_per_source.count().get(),
                first_port: owned_ports.0,
                ports: owned_ports.1,
                acl_prefixes: acl.len() as u32,
                syn_prefix_millirate: limits.syn_per_prefix.millirate(),
                syn_prefix_burst: limits.syn_per_prefix.count().get(),
                hello_millirate: limits.hello_per_source.millirate(),
                hello_burst: limits.hello_per_source.count().get(),
                hello_prefix_millirate: limits.hello_per_prefix.millirate(),
                hello_prefix_burst: limits.hello_per_prefix.count().get(),
            },
            edges,
            pool_numbers: (0..config.pools.len())
                .map(|pool| [true, false].map(|v4| number(&numbers, pool, v4)))
                .collect(),
            pools,
            ip_sets: config
                .ip_sets
                .iter()
                .map(|set| set.name.to_string())
                .collect(),
            services,
            routes: routes(config, &numbers)?,
            acl,
        })
    }
}

/// The number of a pool of the configuration in one address family.
fn number(numbers: &HashMap<(usize, bool), u32>, pool: usize, v4: bool) -> u32 {
    numbers.get(&(pool, v4)).copied().unwrap_or(NO_POOL)
}

/// Names to routes. Where several domains have a name, the first one's route stands for all of them, and says that the name does not decide.
fn routes(
    config: &Config,
    numbers: &HashMap<(usize, bool), u32>,
) -> Result<Vec<(SniName, SniRoute)>, DatapathError> {
    let pool = |domain: &config::Domain, v4| number(numbers, domain.pool.index(), v4);
    let names = config.domains.iter().map(|domain| domain.names.len()).sum();
    let mut routes: Vec<(SniName, SniRoute)> = Vec::with_capacity(names);
    let mut places = foldhash::HashMap::with_capacity(names);
    for domain in &config.domains {
        for name in &domain.names {
            let place = *places.entry(name).or_insert(routes.len());
            if let Some((_, earlier)) = routes.get_mut(place) {
                earlier.flags |= ROUTE_CONDITIONAL;
                continue;
            }
            let written = name.to_string();
            let key = SniName::new(&written).map_err(|source| DatapathError::Name {
                name: written,
                domain: domain.sip_domain.to_string(),
                source,
            })?;
            let action = match domain.terminate {
                Some(_) => RouteAction::Terminate,
                None => RouteAction::Pass,
            };
            // Only the agent knows what a client offers.
            let conditional = if domain.alpn.is_empty() {
                0
            } else {
                ROUTE_CONDITIONAL
            };
            let needs_agent = config.needs_agent(config.pool(&domain.pool));
            let route = SniRoute {
                pool_v4: pool(domain, true),
                pool_v6: pool(domain, false),
                action: action as u8,
                flags: conditional | if needs_agent { ROUTE_AGENT } else { 0 },
                route: key.number(),
                ..SniRoute::default()
            };
            routes.push((key, route));
        }
    }
    // The map holds the old and the new configuration at once.
    if routes.len() > MAX_SNI_ROUTES as usize / 2 {
        return Err(DatapathError::TooMany {
            what: "the number of server names of all domains",
            limit: MAX_SNI_ROUTES / 2,
            advice: "let wildcards (`*.contoso.example`) stand for names, or share the domains among several gateways",
        });
    }
    Ok(routes)
}

fn edge_entry(edge: &config::Edge, gateway: Address) -> Edge {
    Edge {
        address: edge.address.ip().into(),
        gateway,
        port_be: edge.address.port().to_be(),
        source: match edge.source {
            config::SourceMode::Preserve => SourceMode::Preserve,
            config::SourceMode::Gateway => SourceMode::Gateway,
        } as u8,
        state: EdgeState::Up as u8,
        no_timestamps_until_s: 0,
    }
}
