//! What holds for the tables that any configuration comes to. The fuzz target `config` runs this very file.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sni_common::{
    Address,
    contract::{AclAction, Mode, NO_POOL, ROUTE_CONDITIONAL, RouteAction},
};

use super::Tables;
use crate::config::{self, Config, Name, PoolRef, SourceMode};

/// Ports that the gateway owns toward Edges, and how many.
const PORTS: (u16, u16) = (20_000, 1_000);

/// Panics if the tables of a configuration point nowhere, or anywhere else than the configuration does.
pub(crate) fn check(config: &Config) {
    let gateway = |v4| -> IpAddr {
        if v4 {
            Ipv4Addr::new(203, 0, 113, 1).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1).into()
        }
    };
    match Tables::new(config, PORTS, |edge| Ok(gateway(edge.address.is_ipv4()))) {
        Ok(tables) => {
            check_tables(&tables);
            check_meaning(config, &tables);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // Without an address toward an Edge that needs one there are no tables.
    let owned = config
        .edges
        .iter()
        .any(|edge| edge.source == SourceMode::Gateway);
    let without = Tables::new(config, PORTS, |_| Err("no route".into()));
    assert!(without.is_err() || !owned);
}

fn check_tables(tables: &Tables) {
    for pool in &tables.pools {
        assert!(!pool.members.is_empty(), "{pool:?}");
        for (edge, weight) in &pool.members {
            assert_eq!(tables.edges[*edge].entry.address.is_v4(), pool.v4);
            assert!(*weight > 0, "{pool:?}");
        }
    }
    let is_of = |pool: u32, v4| pool == NO_POOL || tables.pools[pool as usize].v4 == v4;
    let mut listening = HashSet::new();
    for service in &tables.services {
        assert!(is_of(service.pool, service.address.is_v4()), "{service:?}");
        assert!(
            service.mode != Mode::Steer || service.pool != NO_POOL,
            "steered to nothing: {service:?}"
        );
        assert!(service.ip_set < tables.ip_sets.len());
        for port in &service.ports {
            assert!(
                *port != 0 && listening.insert((service.address, *port)),
                "twice: {service:?}"
            );
        }
    }
    let mut names = HashSet::new();
    for (name, route) in &tables.routes {
        assert!(is_of(route.pool_v4, true) && is_of(route.pool_v6, false));
        assert!(names.insert(*name), "twice: {}", name.as_str());
    }
    for (bits, address, _) in &tables.acl {
        let least = if address.is_v4() { 96 } else { 0 };
        assert!((least..=128).contains(bits), "{bits} bits of {address:?}");
    }
}

/// An Edge's address and port, as whom it sees clients, and its weight.
type Member = (Address, u16, SourceMode, u16);

/// The tables say what the configuration does. What it refers to is found by name here, where the tables are made by number.
fn check_meaning(config: &Config, tables: &Tables) {
    let mut services = 0;
    for set in &config.ip_sets {
        for address in &set.addresses {
            services += 1;
            let address = Address::from(*address);
            let service = tables
                .services
                .iter()
                .find(|it| it.address == address && it.ports == set.ports)
                .unwrap_or_else(|| panic!("{address:?} of {} has no service", set.name));
            assert_eq!(tables.ip_sets[service.ip_set], set.name.to_string());
            let (mode, pool) = match &set.mode {
                config::Mode::Steer { pool } => (Mode::Steer, Some(pool)),
                config::Mode::Inspect { default, .. } => (Mode::Inspect, default.as_ref()),
            };
            assert_eq!(service.mode, mode, "{service:?}");
            let v4 = address.is_v4();
            let wanted = pool.map_or_else(Vec::new, |pool| configured(config, pool, v4));
            assert_eq!(members(config, tables, service.pool), wanted, "{service:?}");
        }
    }
    assert_eq!(tables.services.len(), services);
    check_routes(config, tables);
    let count = |action| tables.acl.iter().filter(|entry| entry.2 == action).count();
    assert_eq!(count(AclAction::Deny), config.limits.deny.len());
    assert_eq!(count(AclAction::Allow), config.limits.allow.len());
}

/// Each name leads to the pool of the first domain that has it, in both families; where another one has it too, it does not decide.
fn check_routes(config: &Config, tables: &Tables) {
    let mut seen = HashSet::new();
    for domain in &config.domains {
        for name in domain.names.iter().map(ToString::to_string) {
            let (_, route) = tables
                .routes
                .iter()
                .find(|(key, _)| key.as_str() == name)
                .unwrap_or_else(|| panic!("{name} has no route"));
            let is_conditional = route.flags & ROUTE_CONDITIONAL != 0;
            if !seen.insert(name.clone()) {
                assert!(is_conditional, "{name} is there twice, and decides");
                continue;
            }
            assert!(is_conditional || domain.alpn.is_empty(), "{name} decides");
            let action = match domain.terminate {
                Some(_) => RouteAction::Terminate,
                None => RouteAction::Pass,
            };
            assert_eq!(route.action, action as u8, "{name}");
            for (pool, v4) in [(route.pool_v4, true), (route.pool_v6, false)] {
                let wanted = configured(config, &domain.pool, v4);
                assert_eq!(members(config, tables, pool), wanted, "{name}");
            }
        }
    }
    assert_eq!(tables.routes.len(), seen.len());
}

/// A pool's Edges of one address family, as the configuration has them.
fn configured(config: &Config, pool: &PoolRef, v4: bool) -> Vec<Member> {
    let pool = config.pools.iter().find(|it| it.name == *pool.name());
    let members = pool.into_iter().flat_map(|pool| &pool.members);
    members
        .map(|member| (edge_called(config, member.edge.name()), member.weight))
        .filter(|(edge, _)| edge.address.is_ipv4() == v4)
        .map(|(edge, weight)| {
            let (address, port) = (edge.address.ip().into(), edge.address.port());
            (address, port, edge.source, weight)
        })
        .collect()
}

fn edge_called<'a>(config: &'a Config, name: &Name) -> &'a config::Edge {
    let edge = config.edges.iter().find(|edge| edge.name == *name);
    edge.unwrap_or_else(|| panic!("there is no Edge {name}"))
}

/// As the tables have them.
fn members(config: &Config, tables: &Tables, pool: u32) -> Vec<Member> {
    let Some(pool) = tables.pools.get(pool as usize) else {
        assert_eq!(pool, NO_POOL);
        return Vec::new();
    };
    let member = |(edge, weight): &(usize, u16)| {
        let edge = &tables.edges[*edge];
        let entry = edge.entry;
        let source = if entry.gateway == Address::default() {
            SourceMode::Preserve
        } else {
            SourceMode::Gateway
        };
        let named = config
            .edges
            .iter()
            .find(|it| it.name.to_string() == edge.name);
        assert_eq!(named.map(|it| it.source), Some(source), "{edge:?}");
        (entry.address, u16::from_be(entry.port_be), source, *weight)
    };
    pool.members.iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Two customers, whose names lead to an Edge each.
    const TEXT: &str = "[gateway]
interfaces = [\"lan0\"]
[[edge]]
name = \"a\"
address = \"203.0.113.10:5061\"
[[edge]]
name = \"b\"
address = \"203.0.113.20:5061\"
[[pool]]
name = \"a\"
edges = [\"a\"]
[[pool]]
name = \"b\"
edges = [\"b\"]
[[ip_set]]
name = \"a\"
addresses = [\"198.51.100.10\"]
steer = \"a\"
[[ip_set]]
name = \"b\"
addresses = [\"198.51.100.20\"]
inspect = true
[[domain]]
sip_domain = \"a.example\"
pool = \"a\"
[[domain]]
sip_domain = \"b.example\"
pool = \"b\"
";

    /// Those of [`TEXT`], gone wrong.
    fn check_gone_wrong(damage: impl Fn(&mut Tables)) {
        let loaded = Config::parse(Path::new("two.toml"), TEXT).expect("it is right");
        let mut tables = Tables::new(&loaded.config, PORTS, |_| Err("no need".into()))
            .expect("it has its tables");
        check_meaning(&loaded.config, &tables);
        damage(&mut tables);
        check_tables(&tables);
        check_meaning(&loaded.config, &tables);
    }

    #[test]
    #[should_panic(expected = "Steer")]
    fn an_address_to_another_customers_pool() {
        check_gone_wrong(|tables| tables.services[0].pool ^= 1);
    }

    #[test]
    #[should_panic(expected = "sip.b.example")]
    fn a_name_to_another_customers_pool() {
        check_gone_wrong(|tables| tables.routes[1].1.pool_v4 ^= 1);
    }

    #[test]
    #[should_panic(expected = "Steer")]
    fn a_pool_with_another_customers_edge() {
        check_gone_wrong(|tables| tables.pools[0].members[0].0 = 1);
    }
}
