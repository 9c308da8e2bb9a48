//! Domains: each server name once, reachable, and with the identity that they ask for.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use super::{Once, twice};
use crate::config::{
    decode::Located,
    diagnostics::{Diagnostic, Report},
    location::Location,
    tables::{DomainDraft, Draft, ModeDraft},
    values::{AlpnProtocol, IdentityMode},
    wording::quoted,
};

pub(super) fn check(draft: &Draft, report: &Report) {
    once_each(draft, report);
    unreachable(draft, report);
    for domain in &draft.domains {
        identity(domain, draft, report);
    }
    unverified_edges(draft, report);
}

fn once_each(draft: &Draft, report: &Report) {
    let mut domains = Once::of(draft.domains.len());
    let mut names = Once::of(draft.domains.len());
    for domain in &draft.domains {
        if let Some(Located { value, at }) = &domain.sip_domain
            && let Some(first) = again(&mut domains, domain, value, at)
        {
            let message = format!("two [[domain]] tables are for {}", quoted(value.as_str()));
            report.push(twice(
                at,
                first,
                message,
                "leave one of them out, or put all server names into `names` of one",
            ));
            // Their default names are then the same too, and that is no second mistake.
            if domain.names.iter().all(|name| name.at == *at) {
                continue;
            }
        }
        for Located { value, at } in &domain.names {
            if let Some(first) = again(&mut names, domain, value, at) {
                let message = format!(
                    "the server name {} is defined twice",
                    quoted(&value.to_string())
                );
                report.push(twice(at, first, message, "leave it out of one of them"));
            }
        }
    }
}

/// Once for each application protocol, and once without: `alpn` may send one name to several places.
fn again<'a, T: Hash + Eq>(
    once: &mut Once<'a, (&'a T, Option<&'a AlpnProtocol>)>,
    domain: &'a DomainDraft,
    what: &'a T,
    at: &'a Location,
) -> Option<&'a Location> {
    let Some(list) = &domain.alpn else {
        return once.again((what, None), at);
    };
    let mut protocols = list.items.iter();
    protocols.find_map(|protocol| once.again((what, Some(&protocol.value)), at))
}

/// A domain is reached by its server name, or because connections to an address are steered to its pool.
fn unreachable(draft: &Draft, report: &Report) {
    if draft.incomplete {
        return;
    }
    let mut steered = HashSet::new();
    for ip_set in &draft.ip_sets {
        match &ip_set.mode {
            Some(ModeDraft::Steer { pool }) => steered.insert(pool.value.as_str()),
            _ => return,
        };
    }
    let reached = |domain: &DomainDraft| {
        let pool = domain.pool.as_ref();
        domain.terminate.is_none() && pool.is_none_or(|pool| steered.contains(pool.value.as_str()))
    };
    let mut unreached = draft.domains.iter().filter(|domain| !reached(domain));
    let Some(first) = unreached.next() else {
        return;
    };
    let message = match unreached.count() {
        0 => "no [[ip_set]] has `inspect = true`, so that this domain is never reached".to_owned(),
        more => format!(
            "no [[ip_set]] has `inspect = true`, so that this domain and {more} more are never reached"
        ),
    };
    report.push(
        Diagnostic::warning(first.at.clone(), message)
            .help("write `inspect = true` instead of `steer` into the [[ip_set]] that its partners connect to"),
    );
}

fn identity(domain: &DomainDraft, draft: &Draft, report: &Report) {
    let Some(Located { value, at }) = domain
        .terminate
        .as_ref()
        .and_then(|terminate| terminate.identity.as_ref())
    else {
        return;
    };
    let (has, keys) = match value {
        IdentityMode::Anonymous => return,
        IdentityMode::Mirror => (
            draft.identity.as_ref().is_some_and(|it| it.has_mirror),
            "`ca` and `key`",
        ),
        IdentityMode::Gateway => (
            draft.identity.as_ref().is_some_and(|it| it.has_gateway),
            "`gateway_certificate` and `gateway_key`",
        ),
    };
    if !has && !draft.incomplete {
        let (missing, help) = match &draft.identity {
            None => (
                "there is no [identity] table",
                format!("write [identity] with {keys}; `snigate ca init` makes the files"),
            ),
            Some(_) => (
                "[identity] does not have what it needs",
                format!("write {keys} into [identity]"),
            ),
        };
        report.push(
            Diagnostic::error(
                at.clone(),
                format!("`identity = \"{value}\"`, and {missing}"),
            )
            .help(help),
        );
    }
}

/// Once for each Edge, however many domains end TLS in front of it.
fn unverified_edges(draft: &Draft, report: &Report) {
    let edges: HashMap<_, _> = draft
        .edges
        .iter()
        .filter_map(|edge| Some((edge.name.as_ref()?.value.as_str(), edge)))
        .collect();
    let pools: HashMap<_, _> = draft
        .pools
        .iter()
        .filter_map(|pool| Some((pool.name.as_ref()?.value.as_str(), pool)))
        .collect();
    let mut warned = Once::new();
    for domain in draft
        .domains
        .iter()
        .filter(|domain| domain.terminate.is_some())
    {
        let Some(pool) = domain
            .pool
            .as_ref()
            .and_then(|pool| pools.get(pool.value.as_str()))
        else {
            continue;
        };
        for member in pool.members.iter().flat_map(|list| &list.items) {
            let Some(edge) = edges.get(member.value.edge.value.as_str()) else {
                continue;
            };
            let Some(name) = edge.name.as_ref().filter(|_| !edge.has_tls) else {
                continue;
            };
            if warned.again(name.value.as_str(), &edge.at).is_none() {
                let message = format!(
                    "TLS ends in front of the Edge {}, which has no `tls`: it must then show a certificate for the \
                     partner's server name from a CA of the system",
                    quoted(&name.value)
                );
                report.push(
                    Diagnostic::warning(edge.at.clone(), message)
                        .related(&domain.at, "for this domain")
                        .help("write `tls = { name = \"edge-a.hoster.example\", roots = \"certs/edge-ca.pem\" }`"),
                );
            }
        }
    }
}
