//! The way out: routes, neighbours, forwarding.

use anyhow::ensure;
use sni_common::contract::{Counter, DropReason, EventKind};
use snigate_tests::packets::frame::Link;
use snigate_tests::packets::plan::{Configuration, Family, Path, configuration};
use snigate_tests::packets::{
    FAR_PARTNER, Port, Row, Step, UNKNOWN_EDGE, UNKNOWN_PARTNER, UNREACHABLE_EDGE, packet_table,
};

use crate::checks::counted;

#[test]
fn ways_out() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        [
            behind_a_router(family),
            no_route(family),
            no_neighbour(family),
            last_hop(family),
            forwarding_off(family),
            forwarding_off_in_mid_flow(family),
        ]
        .map(|row| row.named_for(family))
    });
    packet_table("ways out", rows.collect());
}

fn behind_a_router(family: Family) -> Row {
    let path = Path::usual(family).from(family.socket(FAR_PARTNER, 40_000));
    Row::new("a client behind a router", configuration(""))
        .steps(path.handshake())
        .step(path.down(&path.edge_data(0, 0, b"far away")))
}

fn no_route(family: Family) -> Row {
    let path = Path::usual(family);
    let edges = Configuration {
        edges: &[("edge-u", UNREACHABLE_EDGE)],
        ..Configuration::default()
    };
    Row::new("no route to the Edge", edges.render("")).step(
        Step::dropped(Port::Wan0, &path.syn(), DropReason::NoRoute).tells(&[EventKind::Dropped]),
    )
}

fn no_neighbour(family: Family) -> Row {
    let path = Path::usual(family);
    let edges = Configuration {
        edges: &[("edge-u", UNKNOWN_EDGE)],
        ..Configuration::default()
    };
    let dropped = || Step::dropped(Port::Wan0, &path.syn(), DropReason::NoNeighbour);
    Row::new("the Edge's MAC address is not known", edges.render(""))
        .step(dropped().tells(&[EventKind::NeighbourWanted, EventKind::Dropped]))
        .step(dropped().tells(&[EventKind::NeighbourWanted, EventKind::Dropped]))
}

/// The way that the client's packets came is good enough for the answers.
fn last_hop(family: Family) -> Row {
    let path = Path::usual(family).from(family.socket(UNKNOWN_PARTNER, 40_000));
    let link = Link {
        source: [2, 9, 9, 9, 9, 9],
        ..Port::Wan0.arriving()
    };
    let syn = path.syn().on(link.clone());
    let answer = path.syn_ack();
    let back = path.at_client(&answer).on(link.reversed());
    Row::new(
        "the client's MAC address is known from its frames only",
        configuration(""),
    )
    .step(Step::forwarded(Port::Wan0, &syn, &path.at_edge(&syn)).counts(Counter::Steered))
    .step(
        Step::forwarded(Port::Lan0, &answer, &back)
            .counts(Counter::StaleNextHops)
            .tells(&[EventKind::NeighbourWanted]),
    )
    // For a while nobody is asked again.
    .step(Step::forwarded(Port::Lan0, &answer, &back).tells(&[]))
}

fn forwarding_off(family: Family) -> Row {
    let path = Path::usual(family);
    let syn = path.syn().on(Port::Wan1.arriving());
    Row::new(
        "forwarding is off where the packet arrives",
        configuration(""),
    )
    .step(Step::dropped(Port::Wan1, &syn, DropReason::ForwardingOff).tells(&[EventKind::Dropped]))
}

/// A next hop is trusted for a second; the account goes on meanwhile.
fn forwarding_off_in_mid_flow(family: Family) -> Row {
    let path = Path::usual(family);
    Row::new("a known next hop is not looked up again", configuration(""))
        .steps(path.handshake())
        .step(
            Step::forwarded(
                Port::Wan1,
                &path.client_data(0, b"data").on(Port::Wan1.arriving()),
                &path.at_edge(&path.client_data(0, b"data")),
            )
            .leaves(counted(1, 0)),
        )
        .step(path.down(&path.edge_data(0, 4, b"answer")).leaves(|flows| {
            ensure!(flows.established[0].to_edge.packets == 3);
            ensure!(flows.established[0].to_client.packets == 2);
            Ok(())
        }))
}
