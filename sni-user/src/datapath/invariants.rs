//! What holds for the tables that any configuration comes to. The fuzz target `config` runs this very file.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sni_common::contract::{Mode, NO_POOL};

use super::Tables;
use crate::config::{Config, SourceMode};

/// Ports that the gateway owns toward Edges, and how many.
const PORTS: (u16, u16) = (20_000, 1_000);

/// Panics if the tables of a configuration point nowhere, or to Edges of another address family.
pub(crate) fn check(config: &Config) {
    let gateway = |v4| -> IpAddr {
        if v4 {
            Ipv4Addr::new(203, 0, 113, 1).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1).into()
        }
    };
    match Tables::new(config, PORTS, |edge| Ok(gateway(edge.address.is_ipv4()))) {
        Ok(tables) => check_tables(&tables),
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
