//! Frames from made-up samples.

use std::collections::{BTreeMap, HashMap};

use sni_common::contract::{Counter, DropReason};

use super::{
    sample::{EdgeSample, FlowSample, RouteSample},
    *,
};
use crate::cli::view::total::Total;

const SECOND: u64 = 1_000_000_000;

fn total(connections: u64, to_edge: u64, to_client: u64) -> Total {
    Total {
        connections,
        to_edge,
        to_client,
    }
}

fn edge(name: &str, address: &str, state: &str, flows: usize, total: Total) -> EdgeSample {
    EdgeSample {
        name: name.into(),
        address: address.parse().expect("an address"),
        state: state.into(),
        flows,
        total,
    }
}

fn route(total: Total) -> RouteSample {
    RouteSample {
        destination: "edges".into(),
        total,
    }
}

fn flow(opened_ns: u64, to_edge: u64) -> FlowSample {
    FlowSample {
        edge: "edge-a".into(),
        way: "bound",
        route: Some("sip.contoso.example".into()),
        opened_ns,
        to_edge,
        to_client: 0,
    }
}

/// Two seconds apart.
fn samples() -> [Sample; 2] {
    let client = |port: u16| {
        (
            std::net::SocketAddr::from(([198, 51, 100, 1], port)),
            std::net::SocketAddr::from(([198, 51, 100, 20], 5061)),
        )
    };
    let before = Sample {
        at_ns: 10 * SECOND,
        generation: 7,
        max_flows: 1_000,
        edges: BTreeMap::from([
            (
                0,
                edge("edge-a", "203.0.113.10:5061", "up", 1, total(10, 1_000, 0)),
            ),
            (
                1,
                edge("edge-b", "203.0.113.140:5061", "down", 0, total(0, 0, 0)),
            ),
        ]),
        pools: BTreeMap::from([("edges".to_owned(), vec![0, 1])]),
        routes: BTreeMap::from([
            ("sip.contoso.example".to_owned(), route(total(10, 1_000, 0))),
            ("sip.fabrikam.example".to_owned(), route(total(0, 0, 0))),
        ]),
        single: Some(HashMap::from([
            (client(1), flow(0, 1_000)),
            (client(2), flow(0, 500)),
        ])),
        ..Sample::default()
    };
    let mut now = before.clone();
    now.at_ns = 12 * SECOND;
    now.flows = 250;
    now.half_open = 3;
    now.stats.0[Counter::Forwarded as usize] = 24_690;
    now.stats.0[Counter::ForwardedBytes as usize] = 2_000_000;
    now.stats.0[DropReason::SynBudget.index() as usize] = 5;
    now.edges.insert(
        0,
        edge(
            "edge-a",
            "203.0.113.10:5061",
            "up",
            250,
            total(50, 9_001_000, 2_000),
        ),
    );
    now.routes.insert(
        "sip.contoso.example".into(),
        route(total(50, 9_001_000, 2_000)),
    );
    // The first one has sent something, the second port is another connection's now.
    now.single = Some(HashMap::from([
        (client(1), flow(0, 5_000)),
        (client(2), flow(11 * SECOND, 400)),
    ]));
    [before, now]
}

fn frame(view: View, width: u16) -> String {
    let [before, now] = samples();
    let rates = Rates::between(&before, &now);
    let screen = Screen {
        rates: &rates,
        view,
        first_line: 0,
        keys: "keys",
    };
    text(&screen, Rect::new(0, 0, width, HEIGHT))
}

#[test]
fn a_frame_fits_the_smallest_terminal() {
    for view in View::ALL {
        let frame = frame(view, WIDTH);
        assert_eq!(frame.lines().count(), usize::from(HEIGHT));
        assert!(
            frame
                .lines()
                .all(|line| line.chars().count() <= usize::from(WIDTH)),
            "{frame}"
        );
        assert!(
            frame.contains("flows 250 of 1,000 (25.0%), half-open 3; new 20/s"),
            "{frame}"
        );
        assert!(
            frame.contains("forwarded 12,345 packets/s, 1.0 MB/s; dropped 2.5/s"),
            "{frame}"
        );
        assert!(frame.ends_with("keys\n"), "{frame}");
    }
}

#[test]
fn every_list_shows_rates() {
    let has = |view, expected: &[&str]| {
        let frame = frame(view, 120);
        let found = frame.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words == expected
        });
        assert!(found, "{expected:?}\n{frame}");
    };
    has(
        View::Edges,
        &[
            "edge-a",
            "203.0.113.10:5061",
            "up",
            "250",
            "20",
            "4.5",
            "MB",
            "1.0",
            "kB",
        ],
    );
    has(
        View::Edges,
        &[
            "edge-b",
            "203.0.113.140:5061",
            "down",
            "0",
            "0",
            "0",
            "B",
            "0",
            "B",
        ],
    );
    has(
        View::Pools,
        &[
            "edges", "1", "of", "2", "250", "20", "4.5", "MB", "1.0", "kB",
        ],
    );
    has(
        View::Routes,
        &[
            "sip.contoso.example",
            "edges",
            "50",
            "20",
            "4.5",
            "MB",
            "1.0",
            "kB",
        ],
    );
    has(
        View::Flows,
        &[
            "198.51.100.1:1",
            "sip.contoso.example",
            "edge-a",
            "bound",
            "12s",
            "2.0",
            "kB",
            "0",
            "B",
        ],
    );
    // Not less than nothing.
    has(
        View::Flows,
        &[
            "198.51.100.1:2",
            "sip.contoso.example",
            "edge-a",
            "bound",
            "1s",
            "200",
            "B",
            "0",
            "B",
        ],
    );
    let drops = frame(View::Drops, 120);
    assert!(
        drops.contains("syn-budget") && drops.contains("2.5"),
        "{drops}"
    );
    assert!(
        !frame(View::Routes, 120).contains("fabrikam"),
        "never asked for"
    );
}

#[test]
fn a_list_scrolls_below_its_header() {
    let [before, now] = samples();
    let rates = Rates::between(&before, &now);
    let screen = Screen {
        rates: &rates,
        view: View::Edges,
        first_line: 1,
        keys: "",
    };
    let frame = text(&screen, Rect::new(0, 0, WIDTH, HEIGHT));
    assert!(
        frame.contains("EDGE") && !frame.contains("edge-a"),
        "{frame}"
    );
    assert!(frame.contains("edge-b"), "{frame}");
}

#[test]
fn too_many_flows_are_said() {
    let [before, mut now] = samples();
    now.single = None;
    let rates = Rates::between(&before, &now);
    let screen = Screen {
        rates: &rates,
        view: View::Flows,
        first_line: 0,
        keys: "",
    };
    assert!(text(&screen, Rect::new(0, 0, 120, HEIGHT)).contains("more than 50,000 flows"));
}

#[test]
fn intervals_are_a_tenth_of_a_second_at_least() {
    assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
    assert!(interval("10ms").is_err() && interval("soon").is_err());
}
