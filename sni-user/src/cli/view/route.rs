//! Server names: where each goes, and how often it was asked for.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use serde::Serialize;
use sni_common::contract::{
    AccountKey, Learned, LearnedKey, Matched, NO_POOL, ROUTE_AGENT, ROUTE_CONDITIONAL, RouteAction,
    SniName, SniRoute, SniRouteKey, candidates,
};

use crate::cli::{
    read::Names,
    table::{Column, Row},
    units,
    view::total::{Total, Totals},
};

/// Which names are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Which {
    /// Those of the configuration, then what else clients asked for.
    All,
    /// Those of the configuration.
    Configured,
    /// Those that clients asked for.
    Learned,
}

/// A line of `route ls`.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct RouteLine {
    /// `None` for clients that send none.
    name: Option<String>,
    configured: bool,
    /// The IP set whose clients asked for it; `None` for names of the configuration, which all inspected IP sets share.
    ip_set: Option<String>,
    #[serde(flatten)]
    destination: Destination,
    matched: String,
    hits: u64,
    /// So long ago; `None` if never.
    last_seen_ms: Option<u64>,
    /// What the name has decided about; `None` for names that are not configured: another one has decided, or the IP set's default.
    total: Option<Total>,
}

/// Where connections to a name go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Destination {
    /// `None` where they are refused.
    action: Option<String>,
    /// Of connections over IPv4 and over IPv6.
    pool_v4: Option<String>,
    pool_v6: Option<String>,
    /// The name alone does not decide: ALPN does, too.
    conditional: bool,
    /// Only the agent can take connections to the pool.
    agent: bool,
}

impl Destination {
    pub(in crate::cli) fn of_route(route: &SniRoute, generation: u32, names: &Names) -> Self {
        let pools = [route.pool_v4, route.pool_v6];
        Self::new(route.action, pools, route.flags, generation, names)
    }

    pub(in crate::cli) fn of_learned(learned: &Learned, names: &Names) -> Self {
        let pools = [learned.pool_v4, learned.pool_v6];
        Self::new(
            learned.action,
            pools,
            learned.flags,
            learned.generation,
            names,
        )
    }

    fn new(action: u8, pools: [u32; 2], flags: u8, generation: u32, names: &Names) -> Self {
        let named = |number: u32| (number != NO_POOL).then(|| names.pool_of(generation, number));
        let [pool_v4, pool_v6] = pools.map(named);
        Self {
            action: (action != 0).then(|| {
                RouteAction::try_from(action)
                    .map_or_else(|e| e.to_string(), |action| action.to_string())
            }),
            pool_v4,
            pool_v6,
            conditional: flags & ROUTE_CONDITIONAL != 0,
            agent: flags & ROUTE_AGENT != 0,
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(action) = &self.action else {
            return formatter.write_str("refused");
        };
        if action != RouteAction::Pass.name() {
            write!(formatter, "{action}, ")?;
        }
        match (&self.pool_v4, &self.pool_v6) {
            (Some(v4), Some(v6)) if v4 != v6 => write!(formatter, "{v4} (IPv4), {v6} (IPv6)")?,
            (Some(pool), _) | (None, Some(pool)) => formatter.write_str(pool)?,
            (None, None) => formatter.write_str("no pool")?,
        }
        if self.conditional {
            formatter.write_str(" (ALPN decides, too)")?;
        }
        if self.agent {
            formatter.write_str(" (by the agent)")?;
        }
        Ok(())
    }
}

impl RouteLine {
    pub(in crate::cli) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// How often a configured name was what a client's name was found by, and when last.
#[derive(Clone, Copy, Default)]
struct Use {
    hits: u64,
    last_seen_ns: Option<u64>,
}

/// The names of the configuration in order, then the others by hits.
pub(in crate::cli) fn lines(
    routes: &[(SniRouteKey, SniRoute)],
    learned: &[(LearnedKey, Learned)],
    totals: &Totals,
    which: Which,
    names: &Names,
    now_ns: u64,
) -> Vec<RouteLine> {
    let ago = |at_ns: u64| now_ns.saturating_sub(at_ns) / 1_000_000;
    let mut active: Vec<_> = routes
        .iter()
        .filter(|(key, _)| key.generation == names.generation)
        .collect();
    active.sort_by_cached_key(|(key, _)| reading_order(&key.name));
    let mut uses: HashMap<SniName, Use> = active
        .iter()
        .map(|(key, _)| (key.name, Use::default()))
        .collect();
    let mut others = Vec::new();
    for entry @ (key, seen) in learned {
        let by_name = [Matched::Exact as u8, Matched::Wildcard as u8].contains(&seen.matched);
        let found = by_name
            .then(|| found_by(&key.name, seen.matched, &uses))
            .flatten();
        if let Some(used) = found.and_then(|name| uses.get_mut(&name)) {
            used.hits += seen.hits;
            used.last_seen_ns = used.last_seen_ns.max(Some(seen.last_seen_ns));
        }
        let told = which == Which::All && uses.contains_key(&key.name);
        if which != Which::Configured && !told {
            others.push(entry);
        }
    }
    others.sort_unstable_by_key(|(key, seen)| (Reverse(seen.hits), *key));

    let configured = |(key, route): &(SniRouteKey, SniRoute)| {
        let used = uses.get(&key.name).copied().unwrap_or_default();
        let kind = if key.name.is_wildcard() {
            Matched::Wildcard
        } else {
            Matched::Exact
        };
        RouteLine {
            name: Some(key.name.to_string()),
            configured: true,
            ip_set: None,
            destination: Destination::of_route(route, key.generation, names),
            matched: kind.name().to_owned(),
            hits: used.hits,
            last_seen_ms: used.last_seen_ns.map(ago),
            total: Some(totals.of(&AccountKey::route(key.name.number(), 0))),
        }
    };
    let asked_for = |(key, seen): &(LearnedKey, Learned)| RouteLine {
        name: (!key.name.is_empty()).then(|| key.name.to_string()),
        configured: false,
        ip_set: Some(names.ip_set(key.ip_set)),
        destination: Destination::of_learned(seen, names),
        matched: Matched::try_from(seen.matched)
            .map_or_else(|e| e.to_string(), |matched| matched.to_string()),
        hits: seen.hits,
        last_seen_ms: Some(ago(seen.last_seen_ns)),
        total: None,
    };
    let mut lines = Vec::with_capacity(active.len() + others.len());
    if which != Which::Learned {
        lines.extend(active.into_iter().map(configured));
    }
    lines.extend(others.into_iter().map(asked_for));
    lines
}

/// The configured name that a client's name was found by: of that kind, the first that the configuration still has.
fn found_by(name: &SniName, matched: u8, configured: &HashMap<SniName, Use>) -> Option<SniName> {
    candidates(name.as_str())
        .filter(|(kind, _)| *kind as u8 == matched)
        .map(|(_, candidate)| candidate)
        .find(|candidate| configured.contains_key(candidate))
}

/// A domain's names together: from the top label down, and a wildcard before what it stands for.
fn reading_order(name: &SniName) -> Vec<String> {
    name.as_str().rsplit('.').map(str::to_owned).collect()
}

impl Row for RouteLine {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("NAME"),
        Column::wrapping("GOES TO"),
        Column::left("MATCHED"),
        Column::wrapping("IP SET").spare(4),
        Column::right("HITS"),
        Column::right("LAST SEEN"),
        Column::right("TOTAL").spare(1),
        Column::right("TO EDGE").spare(2),
        Column::right("TO CLIENT").spare(3),
    ];

    fn cells(&self) -> Vec<String> {
        let total =
            |cell: fn(&Total) -> String| self.total.as_ref().map_or_else(|| "-".into(), cell);
        vec![
            self.name.clone().unwrap_or_else(|| "(none)".into()),
            self.destination.to_string(),
            self.matched.clone(),
            self.ip_set.clone().unwrap_or_else(|| "-".into()),
            units::count(self.hits),
            match self.last_seen_ms {
                Some(ms) => format!("{} ago", units::duration(Duration::from_millis(ms))),
                None => "never".into(),
            },
            total(|total| units::count(total.connections)),
            total(|total| units::bytes(total.to_edge)),
            total(|total| units::bytes(total.to_client)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::made_up;
    use sni_common::contract::{Account, Flow, FlowKey, LabelKind};

    const SECOND: u64 = 1_000_000_000;

    fn names() -> Names {
        made_up::names(&[
            (LabelKind::Pool, 7, 0, "edges-a"),
            (LabelKind::Pool, 7, 1, "edges-a"),
            (LabelKind::Pool, 7, 2, "edges-b"),
            (LabelKind::IpSet, 0, 1, "shared"),
            (LabelKind::IpSet, 0, 2, "other"),
        ])
    }

    fn route(
        generation: u32,
        name: &str,
        action: RouteAction,
        pools: [u32; 2],
    ) -> (SniRouteKey, SniRoute) {
        let key = SniRouteKey {
            generation,
            name: SniName::new(name).unwrap(),
        };
        let route = SniRoute {
            pool_v4: pools[0],
            pool_v6: pools[1],
            action: action as u8,
            ..SniRoute::default()
        };
        (key, route)
    }

    fn seen(ip_set: u32, name: &str, matched: Matched, hits: u64) -> (LearnedKey, Learned) {
        let key = LearnedKey {
            ip_set,
            name: SniName::new(name).unwrap(),
        };
        let refused = matched == Matched::Nothing;
        let learned = Learned {
            generation: 7,
            action: if refused { 0 } else { RouteAction::Pass as u8 },
            matched: matched as u8,
            pool_v4: if refused { NO_POOL } else { 2 },
            pool_v6: NO_POOL,
            hits,
            last_seen_ns: 100 * SECOND + hits * SECOND,
            ..Learned::default()
        };
        (key, learned)
    }

    type Entries<K, V> = Vec<(K, V)>;

    fn tables() -> (Entries<SniRouteKey, SniRoute>, Entries<LearnedKey, Learned>) {
        let mut conditional = route(7, "a.example", RouteAction::Pass, [0, 2]);
        conditional.1.flags = ROUTE_CONDITIONAL;
        let mut counting = route(7, "*.z.example", RouteAction::Pass, [2, NO_POOL]);
        counting.1.flags = ROUTE_AGENT;
        let routes = vec![
            route(7, "sip.z.example", RouteAction::Terminate, [0, 1]),
            counting,
            route(7, "*.example", RouteAction::Pass, [2, NO_POOL]),
            conditional,
            route(6, "old.example", RouteAction::Pass, [0, 1]),
        ];
        let learned = vec![
            seen(1, "sip.z.example", Matched::Exact, 5),
            seen(2, "sip.z.example", Matched::Exact, 3),
            seen(1, "b.z.example", Matched::Wildcard, 2),
            seen(1, "nobody.test", Matched::Nothing, 9),
            seen(1, "", Matched::Default, 4),
        ];
        (routes, learned)
    }

    fn cells(which: Which) -> Vec<Vec<String>> {
        let (routes, learned) = tables();
        let lines = lines(&routes, &learned, &totals(), which, &names(), 110 * SECOND);
        // The totals have a test of their own.
        let rows = lines.iter().map(|line| line.cells()[..6].to_vec());
        rows.collect()
    }

    fn totals() -> Totals {
        let key = AccountKey::route(SniName::new("*.z.example").unwrap().number(), 1);
        let ended = Account {
            connections: 7,
            to_edge: 100,
            to_client: 2000,
        };
        let flow = Flow {
            route: key.number,
            bytes: 50,
            ..Flow::default()
        };
        Totals::new(&[(key, ended)].into(), &[(FlowKey::default(), flow)])
    }

    #[test]
    fn totals_are_those_of_the_name_that_has_decided() {
        let (routes, learned) = tables();
        let lines = lines(&routes, &learned, &totals(), Which::All, &names(), 0);
        let total = |name: &str| {
            let line = lines.iter().find(|line| line.name() == Some(name));
            line.unwrap().cells()[6..].join(" ")
        };
        assert_eq!(total("*.z.example"), "8 150 B 2.0 kB");
        assert_eq!(total("sip.z.example"), "0 0 B 0 B");
        assert_eq!(total("b.z.example"), "- - -");
    }

    #[test]
    fn configured_names_with_what_came_of_them_then_the_others() {
        assert_eq!(
            cells(Which::All),
            [
                ["*.example", "edges-b", "wildcard", "-", "0", "never"],
                [
                    "a.example",
                    "edges-a (IPv4), edges-b (IPv6) (ALPN decides, too)",
                    "exact",
                    "-",
                    "0",
                    "never"
                ],
                [
                    "*.z.example",
                    "edges-b (by the agent)",
                    "wildcard",
                    "-",
                    "2",
                    "8s ago"
                ],
                [
                    "sip.z.example",
                    "terminate, edges-a",
                    "exact",
                    "-",
                    "8",
                    "5s ago"
                ],
                ["nobody.test", "refused", "nothing", "shared", "9", "1s ago"],
                ["(none)", "edges-b", "default", "shared", "4", "6s ago"],
                [
                    "b.z.example",
                    "edges-b",
                    "wildcard",
                    "shared",
                    "2",
                    "8s ago"
                ],
            ]
        );
    }

    #[test]
    fn either_part_alone() {
        let configured = cells(Which::Configured);
        assert_eq!(configured.len(), 4);
        assert_eq!(configured[3][4], "8", "hits are counted all the same");
        let learned = cells(Which::Learned);
        let names: Vec<_> = learned
            .iter()
            .map(|cells| (&*cells[0], &*cells[3]))
            .collect();
        assert_eq!(
            names,
            [
                ("nobody.test", "shared"),
                ("sip.z.example", "shared"),
                ("(none)", "shared"),
                ("sip.z.example", "other"),
                ("b.z.example", "shared"),
            ]
        );
    }

    #[test]
    fn a_hundred_thousand_names() {
        let routes: Vec<_> = (0..100_000)
            .map(|n| route(7, &format!("sip.n{n}.example"), RouteAction::Pass, [0, 1]))
            .collect();
        let learned: Vec<_> = (0..50_000)
            .map(|n| seen(1, &format!("sip.n{n}.example"), Matched::Exact, 1))
            .collect();
        let lines = lines(
            &routes,
            &learned,
            &totals(),
            Which::All,
            &names(),
            110 * SECOND,
        );
        assert_eq!(lines.len(), 100_000);
        assert_eq!(lines.iter().map(|line| line.hits).sum::<u64>(), 50_000);
    }
}
