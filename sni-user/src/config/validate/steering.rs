//! What only the agent can do is not asked of connections that it never sees.

use std::collections::HashMap;

use crate::config::{
    decode::Located,
    diagnostics::{Diagnostic, Report},
    tables::{Draft, EdgeDraft, ModeDraft, PoolDraft},
    values::Balance,
    wording::quoted,
};

pub(super) fn check(draft: &Draft, report: &Report) {
    let pools: HashMap<_, _> = draft
        .pools
        .iter()
        .filter_map(|pool| Some((pool.name.as_ref()?.value.as_str(), pool)))
        .collect();
    for ip_set in &draft.ip_sets {
        let Some(ModeDraft::Steer { pool: reference }) = &ip_set.mode else {
            continue;
        };
        if let Some(pool) = pools.get(reference.value.as_str()) {
            balance(pool, reference, report);
            for edge in edges(pool, draft) {
                proxy_protocol(edge, reference, report);
            }
        }
    }
}

fn balance(pool: &PoolDraft, steered: &Located<String>, report: &Report) {
    if let Some(Located {
        value: Balance::LeastConnections,
        at,
    }) = &pool.balance
    {
        let message = "steered connections are always balanced by Maglev: the datapath counts no connections of an Edge";
        report.push(
            Diagnostic::warning(at.clone(), message)
                .related(&steered.at, "steered to this pool here")
                .help("leave `balance` out, or use another [[pool]] for the addresses that are inspected"),
        );
    }
}

fn proxy_protocol(edge: &EdgeDraft, steered: &Located<String>, report: &Report) {
    if let Some(Located { value: true, at }) = &edge.proxy_protocol {
        let name = edge.name.as_ref().map_or("", |name| &name.value);
        let message = format!(
            "the Edge {} expects a PROXY protocol header, and steered connections have none",
            quoted(name)
        );
        report.push(
            Diagnostic::error(at.clone(), message)
                .related(&steered.at, "steered to it here")
                .help("leave `proxy_protocol` out (with `source = \"preserve\"` the Edge sees the client's address), or `inspect` this [[ip_set]]"),
        );
    }
}

fn edges<'a>(pool: &PoolDraft, draft: &'a Draft) -> impl Iterator<Item = &'a EdgeDraft> {
    draft.edges.iter().filter(|edge| {
        edge.name.as_ref().is_some_and(|name| {
            let members = pool.members.iter().flat_map(|list| &list.items);
            members
                .map(|member| &member.value.edge.value)
                .any(|member| *member == name.value)
        })
    })
}
