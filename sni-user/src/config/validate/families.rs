//! Address families: the datapath does not translate between IPv4 and IPv6, so that a pool needs an Edge of each family that
//! its connections come in.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::config::{
    decode::Located,
    diagnostics::{Diagnostic, Report},
    tables::{Draft, IpSetDraft, ModeDraft, PoolDraft},
    wording::quoted,
};

pub(super) fn check(draft: &Draft, report: &Report) {
    let pools = families_of_pools(draft);
    for ip_set in &draft.ip_sets {
        let Some(pool) = ip_set.pool() else { continue };
        let Some(families) = pools.get(pool.value.as_str()) else {
            continue;
        };
        for (family, address) in Family::of_ip_set(ip_set) {
            if !families.contains(&family) {
                let message = format!(
                    "the pool {} has no {family} Edge for {} (addresses are not translated between IPv4 and IPv6)",
                    quoted(&pool.value),
                    address.value
                );
                let help = format!(
                    "add an {family} Edge to the pool, or leave the {family} addresses out"
                );
                report.push(
                    Diagnostic::error(pool.at.clone(), message)
                        .related(&address.at, "this address")
                        .help(help),
                );
            }
        }
    }
    let inspected = || {
        draft
            .ip_sets
            .iter()
            .filter(|ip_set| matches!(ip_set.mode, Some(ModeDraft::Inspect { .. })))
    };
    for pool in draft
        .domains
        .iter()
        .filter_map(|domain| domain.pool.as_ref())
    {
        let Some(families) = pools.get(pool.value.as_str()) else {
            continue;
        };
        for family in [Family::V4, Family::V6]
            .into_iter()
            .filter(|family| !families.contains(family))
        {
            let reached = inspected()
                .flat_map(Family::of_ip_set)
                .find(|(inspected, _)| *inspected == family);
            if let Some((_, address)) = reached {
                let message = format!(
                    "the pool {} has no {family} Edge for partners that come to {}",
                    quoted(&pool.value),
                    address.value
                );
                report.push(
                    Diagnostic::warning(pool.at.clone(), message)
                        .related(&address.at, "this address")
                        .help(format!("add an {family} Edge to the pool")),
                );
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// Each family of an IP set's addresses, with the first address of it.
    fn of_ip_set(ip_set: &IpSetDraft) -> impl Iterator<Item = (Self, &Located<IpAddr>)> {
        [Self::V4, Self::V6].into_iter().filter_map(|family| {
            let mut addresses = ip_set.addresses.iter().flat_map(|list| &list.items);
            Some((
                family,
                addresses.find(|address| Self::of(&address.value) == family)?,
            ))
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The families of those pools whose Edges are all known.
fn families_of_pools(draft: &Draft) -> HashMap<&str, Vec<Family>> {
    let edges: HashMap<_, _> = draft
        .edges
        .iter()
        .filter_map(|edge| {
            Some((
                edge.name.as_ref()?.value.as_str(),
                edge.address.as_ref()?.value,
            ))
        })
        .collect();
    draft
        .pools
        .iter()
        .filter_map(|pool| {
            Some((
                pool.name.as_ref()?.value.as_str(),
                families_of(pool, &edges)?,
            ))
        })
        .collect()
}

fn families_of(pool: &PoolDraft, edges: &HashMap<&str, SocketAddr>) -> Option<Vec<Family>> {
    let members = pool
        .members
        .as_ref()
        .filter(|list| list.complete && !list.items.is_empty())?;
    members
        .items
        .iter()
        .map(|member| {
            edges
                .get(member.value.edge.value.as_str())
                .map(|edge| Family::of(&edge.ip()))
        })
        .collect()
}
