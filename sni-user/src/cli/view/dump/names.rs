//! Server names: what is configured, what clients asked for, and who answers them.

use serde::Serialize;
use sni_common::contract::{
    Learned, LearnedKey, Matched, NO_POOL, ROUTE_AGENT, ROUTE_CONDITIONAL, RouteAction, SniRoute,
    SniRouteKey,
};

use crate::cli::{
    read::Names,
    table::{Column, Row},
    units,
};

/// A pool that a route names.
#[derive(Clone, Debug, Serialize)]
struct RoutePool {
    number: u32,
    name: String,
}

fn pool(number: u32, generation: u32, names: &Names) -> Option<RoutePool> {
    (number != NO_POOL).then(|| RoutePool {
        number,
        name: names.pool_of(generation, number),
    })
}

fn pool_cell(pool: &Option<RoutePool>) -> String {
    pool.as_ref()
        .map_or_else(|| "-".into(), |pool| pool.name.clone())
}

fn action(value: u8) -> String {
    RouteAction::try_from(value).map_or_else(|e| e.to_string(), |action| action.to_string())
}

/// An entry of SNI_ROUTES.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct RouteEntry {
    generation: u32,
    name: String,
    action: String,
    /// The name alone does not decide.
    conditional: bool,
    /// Only the agent can take connections to the pool.
    agent: bool,
    pool_v4: Option<RoutePool>,
    pool_v6: Option<RoutePool>,
    /// By which flows and accounts refer to it, in hexadecimal digits.
    route: String,
}

/// SNI_ROUTES.
pub(in crate::cli) fn routes(
    mut entries: Vec<(SniRouteKey, SniRoute)>,
    names: &Names,
) -> Vec<RouteEntry> {
    entries.sort_unstable_by_key(|(key, _)| *key);
    let entry = |(key, route): &(SniRouteKey, SniRoute)| RouteEntry {
        generation: key.generation,
        name: key.name.to_string(),
        action: action(route.action),
        conditional: route.flags & ROUTE_CONDITIONAL != 0,
        agent: route.flags & ROUTE_AGENT != 0,
        route: format!("{:016x}", route.route),
        pool_v4: pool(route.pool_v4, key.generation, names),
        pool_v6: pool(route.pool_v6, key.generation, names),
    };
    entries.iter().map(entry).collect()
}

impl Row for RouteEntry {
    const COLUMNS: &'static [Column] = &[
        Column::right("GENERATION"),
        Column::wrapping("NAME"),
        Column::left("ACTION"),
        Column::left("DECIDES").spare(1),
        Column::wrapping("IPV4 POOL"),
        Column::wrapping("IPV6 POOL"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.generation.to_string(),
            self.name.clone(),
            self.action.clone(),
            if self.conditional || self.agent {
                "agent".into()
            } else {
                "name".into()
            },
            pool_cell(&self.pool_v4),
            pool_cell(&self.pool_v6),
        ]
    }
}

/// An entry of SNI_LEARNED.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct LearnedEntry {
    ip_set: String,
    /// `None` for clients without a server name.
    name: Option<String>,
    matched: String,
    /// `None` where the connection was refused.
    action: Option<String>,
    conditional: bool,
    /// Only the agent can take connections to the pool.
    agent: bool,
    /// The number of the configured name that decided, in hexadecimal digits; `None` where none did.
    route: Option<String>,
    generation: u32,
    pool_v4: Option<RoutePool>,
    pool_v6: Option<RoutePool>,
    hits: u64,
    first_seen_ms: u64,
    last_seen_ms: u64,
}

/// SNI_LEARNED, the names that are asked for most in front; times are so long ago.
pub(in crate::cli) fn learned(
    mut entries: Vec<(LearnedKey, Learned)>,
    names: &Names,
    now_ns: u64,
) -> Vec<LearnedEntry> {
    entries.sort_unstable_by_key(|(key, learned)| (std::cmp::Reverse(learned.hits), *key));
    let ago = |at_ns: u64| now_ns.saturating_sub(at_ns) / 1_000_000;
    let entry = |(key, learned): &(LearnedKey, Learned)| LearnedEntry {
        ip_set: names.ip_set(key.ip_set),
        name: (!key.name.is_empty()).then(|| key.name.to_string()),
        matched: Matched::try_from(learned.matched)
            .map_or_else(|e| e.to_string(), |matched| matched.to_string()),
        action: (learned.action != 0).then(|| action(learned.action)),
        conditional: learned.flags & ROUTE_CONDITIONAL != 0,
        agent: learned.flags & ROUTE_AGENT != 0,
        route: (learned.route != 0).then(|| format!("{:016x}", learned.route)),
        generation: learned.generation,
        pool_v4: pool(learned.pool_v4, learned.generation, names),
        pool_v6: pool(learned.pool_v6, learned.generation, names),
        hits: learned.hits,
        first_seen_ms: ago(learned.first_seen_ns),
        last_seen_ms: ago(learned.last_seen_ns),
    };
    entries.iter().map(entry).collect()
}

impl Row for LearnedEntry {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("IP SET"),
        Column::wrapping("NAME"),
        Column::left("MATCHED"),
        Column::left("ACTION"),
        Column::wrapping("IPV4 POOL"),
        Column::wrapping("IPV6 POOL"),
        Column::right("HITS"),
        Column::right("LAST"),
    ];

    fn cells(&self) -> Vec<String> {
        let ago = units::duration(std::time::Duration::from_millis(self.last_seen_ms));
        vec![
            self.ip_set.clone(),
            self.name.clone().unwrap_or_else(|| "(none)".into()),
            self.matched.clone(),
            self.action.clone().unwrap_or_else(|| "refuse".into()),
            pool_cell(&self.pool_v4),
            pool_cell(&self.pool_v6),
            units::count(self.hits),
            format!("{ago} ago"),
        ]
    }
}

/// An entry of LISTENERS.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct ListenerEntry {
    slot: u32,
    cookie: u64,
}

/// LISTENERS, from the cookie of its one socket.
pub(in crate::cli) fn listeners(slot: u32, cookie: Option<u64>) -> Vec<ListenerEntry> {
    cookie
        .map(|cookie| ListenerEntry { slot, cookie })
        .into_iter()
        .collect()
}

impl Row for ListenerEntry {
    const COLUMNS: &'static [Column] = &[
        Column::right("SLOT"),
        // As `ss -e` shows it.
        Column::left("SOCKET"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![self.slot.to_string(), format!("sk:{:x}", self.cookie)]
    }
}
