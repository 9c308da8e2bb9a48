//! What the datapath or the kernel's interfaces bring about.

use std::net::IpAddr;

use serde::Serialize;
use sni_common::{
    contract::{BudgetKey, BudgetKind, Counter, DropReason, Link, Stats},
    token_bucket::TokenBucket,
};

use crate::cli::{
    table::{Column, Row},
    units,
    view::entry::{self, Vlan},
};

/// An entry of BUDGET.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct BudgetEntry {
    source: String,
    /// What it may begin.
    what: &'static str,
    /// How many of them at once.
    tokens: f64,
    refilled_ms: u64,
}

/// BUDGET.
pub(in crate::cli) fn budget(
    entries: &[(BudgetKey, TokenBucket)],
    now_ns: u64,
) -> Vec<BudgetEntry> {
    let mut entries = entries.to_vec();
    entries.sort_by_key(|(key, _)| (IpAddr::from(key.source), key.kind));
    let entry = |(key, bucket): &(BudgetKey, TokenBucket)| BudgetEntry {
        source: source(key),
        what: BudgetKind::try_from(key.kind).map_or("?", BudgetKind::name),
        tokens: bucket.millitokens as f64 / 1000.0,
        refilled_ms: now_ns.saturating_sub(bucket.refilled_ns) / 1_000_000,
    };
    entries.iter().map(entry).collect()
}

/// See [`sni_common::Address::source_group`] and [`sni_common::Address::source_prefix`].
fn source(key: &BudgetKey) -> String {
    let of_prefix = [BudgetKind::SynPrefix, BudgetKind::HelloPrefix].map(|kind| kind as u32);
    let source = key.source;
    match (of_prefix.contains(&key.kind), source.is_v4()) {
        (false, true) => source.to_string(),
        (false, false) => format!("{source}/64"),
        (true, true) => format!("{source}/24"),
        (true, false) => format!("{source}/48"),
    }
}

impl Row for BudgetEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("SOURCE"),
        Column::left("WHAT"),
        Column::right("TOKENS"),
        Column::right("REFILLED"),
    ];

    fn cells(&self) -> Vec<String> {
        let ago = units::duration(std::time::Duration::from_millis(self.refilled_ms));
        vec![
            self.source.clone(),
            self.what.to_owned(),
            format!("{:.1}", self.tokens),
            format!("{ago} ago"),
        ]
    }
}

/// An entry of LINKS.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct LinkEntry {
    interface: Option<String>,
    ifindex: u32,
    parent: Option<String>,
    parent_ifindex: u32,
    vlans: Vec<Vlan>,
}

/// LINKS.
pub(in crate::cli) fn links(
    entries: &[(u32, Link)],
    interface_name: fn(u32) -> Option<String>,
) -> Vec<LinkEntry> {
    let mut entries = entries.to_vec();
    entries.sort_by_key(|(ifindex, _)| *ifindex);
    let entry = |(ifindex, link): &(u32, Link)| LinkEntry {
        interface: interface_name(*ifindex),
        ifindex: *ifindex,
        parent: interface_name(link.ifindex),
        parent_ifindex: link.ifindex,
        vlans: entry::vlans(&link.tags),
    };
    entries.iter().map(entry).collect()
}

impl Row for LinkEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("INTERFACE"),
        Column::left("ON"),
        Column::wrapping("TAGS"),
    ];

    fn cells(&self) -> Vec<String> {
        let interface = |name: &Option<String>, ifindex: u32| match name {
            Some(name) => format!("{name} ({ifindex})"),
            None => ifindex.to_string(),
        };
        let tags: Vec<_> = self.vlans.iter().map(Vlan::to_string).collect();
        vec![
            interface(&self.interface, self.ifindex),
            interface(&self.parent, self.parent_ifindex),
            tags.join(", "),
        ]
    }
}

/// An entry of STATS, all CPUs together.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct StatsEntry {
    index: u32,
    kind: &'static str,
    name: &'static str,
    value: u64,
}

/// STATS: counters, then drop reasons.
pub(in crate::cli) fn stats(stats: &Stats) -> Vec<StatsEntry> {
    let counters = Counter::ALL.iter().map(|counter| StatsEntry {
        index: *counter as u32,
        kind: "counter",
        name: counter.name(),
        value: stats.counter(*counter),
    });
    let drops = DropReason::ALL.iter().map(|reason| StatsEntry {
        index: reason.index(),
        kind: "drop",
        name: reason.name(),
        value: stats.drops(*reason),
    });
    counters.chain(drops).collect()
}

impl Row for StatsEntry {
    const COLUMNS: &'static [Column] = &[
        Column::right("INDEX"),
        Column::left("KIND"),
        Column::left("NAME"),
        Column::right("VALUE"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.index.to_string(),
            self.kind.into(),
            self.name.into(),
            units::count(self.value),
        ]
    }
}
