//! Addresses: usable ones, each with one meaning.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use super::{Once, twice};
use crate::config::{
    decode::{List, Located},
    diagnostics::{Diagnostic, Report},
    location::Location,
    model::Config,
    tables::{Draft, IpSetDraft, LimitsDraft},
    wording::quoted,
};

pub(super) fn check(draft: &Draft, report: &Report) {
    edges(draft, report);
    ip_sets(draft, report);
    if let Some(limits) = &draft.limits {
        prefixes(limits, report);
    }
}

fn edges(draft: &Draft, report: &Report) {
    let mut once = Once::new();
    for Located { value, at } in draft.edges.iter().filter_map(|edge| edge.address.as_ref()) {
        usable(&value.ip(), at, report);
        if value.port() == 0 {
            report.push(
                Diagnostic::error(
                    at.clone(),
                    format!("{value} has port 0, where no Edge can listen"),
                )
                .help("write the Edge's port, such as 5061"),
            );
        }
        if let Some(first) = once.again(*value, at) {
            let message = format!("two [[edge]] tables have the address {value}");
            report.push(twice(
                at,
                first,
                message,
                "leave one of them out; one Edge may be in several pools",
            ));
        }
    }
}

fn ip_sets(draft: &Draft, report: &Report) {
    let mut edges = HashMap::new();
    for edge in draft.edges.iter().filter_map(|edge| edge.address.as_ref()) {
        edges.entry(edge.value.ip()).or_insert(&edge.at);
    }
    let mut services: HashMap<(IpAddr, u16), (usize, &Location)> = HashMap::new();
    let mut entries = 0;
    for (index, ip_set) in draft.ip_sets.iter().enumerate() {
        repeated_ports(ip_set, report);
        let addresses = ip_set.addresses.as_ref().map_or(0, |list| list.items.len());
        entries += addresses * (1 + ip_set.port_numbers().len());
        // Going on would cost time and memory out of proportion to the file: a few lines can mean millions of services.
        if let (Some(list), true) = (&ip_set.addresses, entries > Config::MAX_SERVICES) {
            let most = Config::MAX_SERVICES;
            report.push(
                Diagnostic::error(
                    list.at.clone(),
                    format!("there are more than {most} addresses, and ports on them, up to here"),
                )
                .help("give the others to another gateway"),
            );
            return;
        }
        let mut once = Once::new();
        for Located { value, at } in ip_set.addresses.iter().flat_map(|list| &list.items) {
            usable(value, at, report);
            if let Some(edge) = edges.get(value) {
                let message = format!(
                    "{value} is also the address of an Edge, and its packets would come back to the gateway"
                );
                report.push(
                    Diagnostic::error(at.clone(), message)
                        .related(edge, "the Edge is here")
                        .help("give the Edge an address of its own behind the gateway"),
                );
            }
            if let Some(first) = once.again(*value, at) {
                report.push(twice(
                    at,
                    first,
                    format!("{value} is in this [[ip_set]] twice"),
                    "leave one of them out",
                ));
                continue;
            }
            shared(ip_set, index, value, at, &mut services, report);
        }
    }
}

/// Reports an address whose ports another IP set has, once for each of those sets.
fn shared<'a>(
    ip_set: &IpSetDraft,
    index: usize,
    address: &IpAddr,
    at: &'a Location,
    services: &mut HashMap<(IpAddr, u16), (usize, &'a Location)>,
    report: &Report,
) {
    let mut complained = Vec::new();
    for port in ip_set.port_numbers() {
        let (owner, first) = *services.entry((*address, port)).or_insert((index, at));
        if owner != index && !complained.contains(&owner) {
            complained.push(owner);
            let message = format!("port {port} of {address} is in two [[ip_set]] tables");
            report.push(twice(
                at,
                first,
                message,
                "leave the address out of one of them, or give them different `ports`",
            ));
        }
    }
}

fn repeated_ports(ip_set: &IpSetDraft, report: &Report) {
    let mut once = Once::new();
    for port in ip_set.ports.iter().flat_map(|list| &list.items) {
        if let Some(first) = once.again(port.value.0, &port.at) {
            let message = format!("port {} is in this [[ip_set]] twice", port.value.0);
            report.push(twice(&port.at, first, message, "leave one of them out"));
        }
    }
}

/// Reports an address that no connection over a network can have.
fn usable(address: &IpAddr, at: &Location, report: &Report) {
    let why = match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let v4 = v6
                .to_ipv4_mapped()
                .map(|v4| v4.to_string())
                .unwrap_or_default();
            let message = format!("{address} is an IPv4 address in IPv6 form");
            report.push(
                Diagnostic::error(at.clone(), message).help(format!("write {}", quoted(&v4))),
            );
            return;
        }
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_loopback() => "a loopback address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V4(v4) if v4.is_link_local() => "a link-local address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        _ => return,
    };
    report.push(
        Diagnostic::error(
            at.clone(),
            format!("{address} is {why}, which cannot be reached through the gateway"),
        )
        .help("write an address of a host, such as \"198.51.100.10\""),
    );
}

/// The prefixes of `deny` and `allow`: none twice, none in both.
fn prefixes(limits: &LimitsDraft, report: &Report) {
    let lists = [limits.deny.as_ref(), limits.allow.as_ref()];
    if let Some(first) = lists.into_iter().flat_map(items).nth(Config::MAX_PREFIXES) {
        report.push(
            Diagnostic::error(
                first.at.clone(),
                format!(
                    "there are more than {} prefixes in `deny` and `allow`",
                    Config::MAX_PREFIXES
                ),
            )
            .help("join neighbouring prefixes"),
        );
    }
    let mut denied = Once::new();
    let mut allowed = Once::new();
    for prefix in items(limits.deny.as_ref()) {
        repeated(&mut denied, prefix, "deny", report);
    }
    for prefix in items(limits.allow.as_ref()) {
        repeated(&mut allowed, prefix, "allow", report);
        if let Some(first) = denied.first.get(&prefix.value) {
            report.push(
                Diagnostic::error(
                    prefix.at.clone(),
                    format!("{} is both allowed and denied", prefix.value),
                )
                .related(first, "denied here")
                .help("leave it out of `allow` or of `deny`"),
            );
        }
    }
}

fn repeated<'a>(
    once: &mut Once<'a, IpNet>,
    prefix: &'a Located<IpNet>,
    key: &str,
    report: &Report,
) {
    if let Some(first) = once.again(prefix.value, &prefix.at) {
        report.push(
            Diagnostic::warning(
                prefix.at.clone(),
                format!("{} is in `{key}` twice", prefix.value),
            )
            .related(first, "the first is here")
            .help("leave one of them out"),
        );
    }
}

fn items(list: Option<&List<IpNet>>) -> impl Iterator<Item = &Located<IpNet>> {
    list.into_iter().flat_map(|list| &list.items)
}
