//! The state of the whole datapath.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use serde::Serialize;
use sni_common::contract::{
    Announced, Counter, DropReason, Edge, FLAG_LOG, Pool, Stats, TELL_FLOWS, TELL_HELLOS,
};

use crate::{
    cli::{
        read::Names,
        table::{Column, Row},
        units,
        view::edge::{Standing, TroubleLine},
    },
    control::{AgentStatus, BindingStatus, EdgeStatus},
    datapath::{Attached, MapKind},
};

/// What `status` shows.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct Status {
    pub(in crate::cli) pin_path: PathBuf,
    pub(in crate::cli) abi: u64,
    /// 0 before the first configuration.
    pub(in crate::cli) generation: u32,
    pub(in crate::cli) interfaces: Vec<InterfaceLine>,
    pub(in crate::cli) flags: Vec<&'static str>,
    /// The Edges of the active configuration's pools.
    pub(in crate::cli) edges: Vec<EdgeLine>,
    /// What SYN-ACKs of the datapath announce; `None` where it binds nothing.
    pub(in crate::cli) announced: Option<AnnouncedLine>,
    pub(in crate::cli) max_flows: u32,
    /// Established flows, those that are closing included.
    pub(in crate::cli) flows: usize,
    pub(in crate::cli) half_open: usize,
    pub(in crate::cli) maps: Vec<MapLine>,
    pub(in crate::cli) counters: BTreeMap<&'static str, u64>,
    pub(in crate::cli) drops: Vec<DropLine>,
    /// Whether there is a socket for connections to inspected addresses: the running agent's, or one that is kept for the next.
    pub(in crate::cli) listener: bool,
    /// What the running agent says of itself.
    pub(in crate::cli) agent: Option<AgentStatus>,
}

/// An interface that the datapath is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct InterfaceLine {
    #[serde(flatten)]
    pub(in crate::cli) attached: Attached,
    /// Why this hook, where the agent that chose it tells.
    pub(in crate::cli) reason: Option<String>,
}

impl fmt::Display for InterfaceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.attached.interface, self.attached.mode)?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// With what the agent says of them.
pub(in crate::cli) fn interfaces(
    attached: Vec<Attached>,
    agent: Option<&AgentStatus>,
) -> Vec<InterfaceLine> {
    let line = |attached: Attached| {
        let chosen = agent.and_then(|agent| {
            agent.interfaces.iter().find(|it| {
                (&*it.interface, &*it.hook) == (&*attached.interface, attached.mode.name())
            })
        });
        InterfaceLine {
            reason: chosen.map(|it| it.reason.clone()),
            attached,
        }
    };
    attached.into_iter().map(line).collect()
}

/// What SYN-ACKs of the datapath announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct AnnouncedLine {
    mss_v4: u16,
    mss_v6: u16,
    scale: u8,
}

impl From<Announced> for AnnouncedLine {
    fn from(announced: Announced) -> Self {
        let Announced {
            mss_v4,
            mss_v6,
            scale,
        } = announced;
        Self {
            mss_v4,
            mss_v6,
            scale,
        }
    }
}

impl fmt::Display for AnnouncedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mss_v4,
            mss_v6,
            scale,
        } = self;
        write!(
            f,
            "segments of {mss_v4} bytes over IPv4 and {mss_v6} over IPv6, window scale {scale}"
        )
    }
}

/// Whether the datapath binds connections, in the words of the running agent if there is one.
pub(in crate::cli) fn binding(
    announced: Option<AnnouncedLine>,
    agent: Option<&AgentStatus>,
) -> String {
    let ago = |ms| units::duration(Duration::from_millis(ms));
    match (announced, agent.and_then(|agent| agent.binding.as_ref())) {
        (_, Some(BindingStatus { off: Some(why), .. })) => format!("off: {why}"),
        (_, Some(on)) => {
            let stamped = on.stamped_ms.map_or_else(String::new, |ms| {
                format!("; the listener was stamped {} ago", ago(ms))
            });
            format!("on for {}{stamped}", ago(on.since_ms))
        }
        // Nobody stamps the listener meanwhile.
        (Some(_), None) => {
            "on: known names go to their Edges, others wait for the next agent".into()
        }
        (None, None) => "off".into(),
    }
}

/// An Edge, and whether it gets new connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct EdgeLine {
    name: String,
    #[serde(flatten)]
    standing: Standing,
}

/// The Edges of these pools, by slot, with what the agent knows of them.
pub(in crate::cli) fn edges(
    pools: &[(u32, Pool)],
    edges: &[(u16, Edge)],
    names: &Names,
    known: &[EdgeStatus],
) -> Vec<EdgeLine> {
    let members = pools
        .iter()
        .flat_map(|(_, pool)| pool.members.iter().take(pool.count as usize));
    let used: BTreeSet<_> = members.map(|member| member.edge).collect();
    let used = edges.iter().filter(|(slot, _)| used.contains(slot));
    used.map(|(slot, edge)| {
        let name = names.edge(*slot);
        EdgeLine {
            standing: Standing::new(&name, edge, known),
            name,
        }
    })
    .collect()
}

/// The same, as the agent alone has it.
pub(in crate::cli) fn known_edges(known: &[EdgeStatus]) -> Vec<EdgeLine> {
    let line = |it: &EdgeStatus| EdgeLine {
        name: it.name.clone(),
        standing: it.into(),
    };
    known.iter().map(line).collect()
}

/// Those that get no new connections.
pub(in crate::cli) fn trouble(edges: &[EdgeLine]) -> Vec<TroubleLine> {
    let trouble = edges.iter().map(|it| it.standing.trouble(&it.name));
    trouble.flatten().collect()
}

/// How many there are in each state, such as `2 up, 1 down`.
pub(in crate::cli) fn states(edges: &[EdgeLine]) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for edge in edges {
        *counts.entry(edge.standing.state()).or_default() += 1;
    }
    if counts.is_empty() {
        return "none".into();
    }
    // The good news first.
    let counts = counts.iter().rev();
    let each: Vec<_> = counts
        .map(|(state, count)| format!("{} {state}", units::count(*count)))
        .collect();
    each.join(", ")
}

/// The names of the feature flags that are set.
pub(in crate::cli) fn flags(flags: u64) -> Vec<&'static str> {
    if flags & FLAG_LOG != 0 {
        vec!["log"]
    } else {
        Vec::new()
    }
}

/// The names of events that somebody wants.
pub(in crate::cli) fn told(wanted: u64) -> Vec<&'static str> {
    [(TELL_FLOWS, "flows"), (TELL_HELLOS, "hellos")]
        .into_iter()
        .filter(|(bit, _)| wanted & bit != 0)
        .map(|(_, name)| name)
        .collect()
}

/// A line of `map ls`.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct MapLine {
    #[serde(flatten)]
    pub(in crate::cli) kind: MapKind,
    /// Entries in use; `None` for arrays, whose entries are always there.
    pub(in crate::cli) entries: Option<usize>,
}

impl Row for MapLine {
    const COLUMNS: &'static [Column] = &[
        Column::left("MAP"),
        Column::left("TYPE"),
        Column::wrapping("HOLDS"),
        Column::right("ENTRIES"),
        Column::right("MAX"),
        Column::right("FULL").spare(1),
    ];

    fn cells(&self) -> Vec<String> {
        let of_entries = |cell: &dyn Fn(u64) -> String| {
            self.entries
                .map_or_else(|| "-".to_owned(), |entries| cell(entries as u64))
        };
        vec![
            self.kind.name.to_owned(),
            self.kind.kind.clone(),
            self.kind.holds.to_owned(),
            of_entries(&units::count),
            units::count(self.kind.max_entries.into()),
            of_entries(&|entries| units::share(entries, self.kind.max_entries.into())),
        ]
    }
}

/// How full a map is.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub(in crate::cli) struct FillLine<'a>(pub(in crate::cli) &'a MapLine);

impl Row for FillLine<'_> {
    const COLUMNS: &'static [Column] = &[
        Column::left("TABLE"),
        Column::right("ENTRIES"),
        Column::right("MAX"),
        Column::right("FULL"),
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.0.cells();
        // Type and purpose are for `map ls`.
        cells.drain(1..3);
        cells
    }
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct CounterLine {
    pub(in crate::cli) counter: &'static str,
    pub(in crate::cli) value: u64,
}

/// Every counter, in the contract's order.
pub(in crate::cli) fn counters(stats: &Stats) -> Vec<CounterLine> {
    let line = |counter: &Counter| CounterLine {
        counter: counter.name(),
        value: stats.counter(*counter),
    };
    Counter::ALL.iter().map(line).collect()
}

impl Row for CounterLine {
    const COLUMNS: &'static [Column] = &[Column::left("COUNTER"), Column::right("VALUE")];

    fn cells(&self) -> Vec<String> {
        let value = if self.counter == Counter::ForwardedBytes.name() {
            units::bytes(self.value)
        } else {
            units::count(self.value)
        };
        vec![self.counter.to_owned(), value]
    }
}

/// A counter of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct AgentCounterLine {
    counter: String,
    value: u64,
}

/// The counters of an agent by name, those that are zero only if asked for.
pub(in crate::cli) fn agent_counters(agent: &AgentStatus, all: bool) -> Vec<AgentCounterLine> {
    let counted = agent
        .counters
        .iter()
        .filter(|(_, value)| all || **value > 0);
    counted
        .map(|(counter, value)| AgentCounterLine {
            counter: counter.clone(),
            value: *value,
        })
        .collect()
}

impl Row for AgentCounterLine {
    const COLUMNS: &'static [Column] = &[Column::left("AGENT"), Column::right("VALUE")];

    fn cells(&self) -> Vec<String> {
        vec![self.counter.clone(), units::count(self.value)]
    }
}

/// A drop reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct DropLine {
    pub(in crate::cli) reason: &'static str,
    pub(in crate::cli) number: u32,
    pub(in crate::cli) packets: u64,
    pub(in crate::cli) sentence: &'static str,
}

/// Every drop reason, by number.
pub(in crate::cli) fn drops(stats: &Stats) -> Vec<DropLine> {
    let line = |reason: &DropReason| DropLine {
        reason: reason.name(),
        number: *reason as u32,
        packets: stats.drops(*reason),
        sentence: reason.sentence(),
    };
    DropReason::ALL.iter().map(line).collect()
}

impl Row for DropLine {
    const COLUMNS: &'static [Column] = &[
        Column::left("DROPPED"),
        Column::right("PACKETS"),
        Column::wrapping("WHAT HAPPENED"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.reason.to_owned(),
            units::count(self.packets),
            self.sentence.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use sni_common::contract::{EdgeState, LabelKind};

    use super::*;
    use crate::cli::view::made_up;

    #[test]
    fn counters_and_reasons_go_by_name() {
        let mut stats = Stats::default();
        stats.0[Counter::Steered as usize] = 1_234;
        stats.0[Counter::ForwardedBytes as usize] = 5_000_000;
        stats.0[DropReason::NoEdge.index() as usize] = 3;
        let counters = counters(&stats);
        assert_eq!(counters.len(), Counter::ALL.len());
        let cells: Vec<_> = counters
            .iter()
            .filter(|line| line.value > 0)
            .map(Row::cells)
            .collect();
        assert_eq!(cells, [["forwarded-bytes", "5.0 MB"], ["steered", "1,234"]]);
        let drops = drops(&stats);
        let dropped: Vec<_> = drops.iter().filter(|line| line.packets > 0).collect();
        assert_eq!((dropped.len(), dropped[0].number), (1, 6));
        assert!(dropped[0].cells()[2].contains("No Edge"), "{dropped:?}");
    }

    #[test]
    fn edges_are_counted_and_those_that_are_not_up_explained() {
        let known = crate::control::fake::status().edges;
        let names = made_up::names(&[
            (LabelKind::Edge, 0, 3, "edge-a"),
            (LabelKind::Edge, 0, 4, "edge-b"),
            (LabelKind::Edge, 0, 5, "of no pool"),
        ]);
        let mut down = made_up::edge("203.0.113.10:5061");
        down.state = EdgeState::Down as u8;
        let up = || made_up::edge("203.0.113.11:5061");
        let mut pool = Pool {
            count: 2,
            family: 4,
            ..Pool::default()
        };
        pool.members[0].edge = 3;
        pool.members[1].edge = 4;
        let all = [(3, down), (4, up()), (5, up())];
        let lines = edges(&[(0, pool)], &all, &names, &known);
        assert_eq!(states(&lines), "1 up, 1 down");
        let trouble = trouble(&lines);
        assert_eq!(trouble.len(), 1);
        assert_eq!(trouble[0].cells()[..3], ["edge-a", "down", "12s"]);
        assert_eq!(states(&known_edges(&known)), "1 down");
        assert_eq!(states(&[]), "none");
    }

    #[test]
    fn flags_by_name() {
        assert_eq!(flags(0), Vec::<&str>::new());
        assert_eq!(flags(FLAG_LOG | 1 << 40), ["log"]);
    }

    #[test]
    fn binding_is_on_or_says_why_not() {
        let announced = AnnouncedLine {
            mss_v4: 1460,
            mss_v6: 1440,
            scale: 7,
        };
        let agent = |binding| AgentStatus {
            binding,
            ..crate::control::fake::status()
        };
        let told = |off: Option<&str>, stamped_ms| {
            let status = agent(Some(BindingStatus {
                off: off.map(str::to_owned),
                since_ms: 61_000,
                stamped_ms,
            }));
            binding(Some(announced), Some(&status))
        };
        assert_eq!(
            told(None, Some(12_000)),
            "on for 1m 1s; the listener was stamped 12s ago"
        );
        assert_eq!(told(None, None), "on for 1m 1s");
        assert_eq!(told(Some("lo is down"), None), "off: lo is down");
        assert!(binding(Some(announced), None).starts_with("on: known names"));
        assert_eq!(binding(None, Some(&agent(None))), "off");
        assert_eq!(
            announced.to_string(),
            "segments of 1460 bytes over IPv4 and 1440 over IPv6, window scale 7"
        );
    }
}
