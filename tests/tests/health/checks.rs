//! Edges that die, are silent, flap, or can't be connected to.

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab, Topology,
    addresses::{EDGE_A, at, partner},
    deadline::Deadline,
    faults::{self, Syns},
    gateway::Gateway,
    lab_test,
    peers::EchoEdge,
};

use crate::{
    OFTEN, TIMEOUT, WELL, Way, all_become, all_live, all_reach, becomes, client::Client, edge,
    one_of_each, quiet, start, state, to_edge,
};

/// edge-a takes no new connections for a while: new ones of every way go to edge-b, and come back, and no open one notices anything.
fn fails_and_recovers(name: &str, syns: Syns, expected: &str) {
    lab_test(name, &quiet(), |lab| {
        let _edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let gateway = start(lab, OFTEN, "")?;
        let mut open = one_of_each(lab)?;
        faults::take_no_more(&lab.edge_a, syns)?;
        all_become(&gateway, "a", "down", expected)?;
        all_reach(lab, "b")?;
        all_live(&mut open)?;
        is_shown(&gateway)?;

        faults::stop_losing(&lab.edge_a)?;
        all_become(&gateway, "a", "up", WELL)?;
        for client in &open {
            let address = client.way().addresses()[0];
            to_edge(lab, client.way(), address, "a")?;
        }
        all_live(&mut open)
    });
}

/// What `edge ls`, `service ls` and `status` have to say, on a terminal of 80 columns too.
fn is_shown(gateway: &Gateway<'_>) -> Result<()> {
    ensure!(state(gateway, "a-v4")? == "down" && state(gateway, "b-v4")? == "up");
    let services = gateway.output(&["service", "ls"])?;
    ensure!(services.contains("a-v4 (down)"), "{services}");
    let status = gateway.json(&["status"])?;
    let edges = status["edges"].as_array().context("Edges")?;
    let line = edges.iter().find(|line| line["name"] == "a-v4");
    let line = line.with_context(|| status.to_string())?;
    ensure!(
        line["state"] == "down" && line["since_ms"].is_u64() && line["why"].is_string(),
        "{line}"
    );
    for (command, summary) in [
        ("status", "edges        2 up, 2 down"),
        ("edge ls", "NOT UP"),
    ] {
        let arguments: Vec<_> = command.split(' ').collect();
        let mut command = gateway.prepared(&arguments)?;
        let output = command.env("COLUMNS", "80").output()?;
        let text = String::from_utf8(output.stdout)?;
        let explained = text
            .lines()
            .any(|line| line.starts_with("a-v4") && line.contains("down"));
        ensure!(text.contains(summary) && explained, "{text}");
        let long = text
            .lines()
            .find(|line| line.chars().count() > 80 && line.contains("-v4"));
        ensure!(long.is_none(), "{long:?} in {text}");
    }
    Ok(())
}

#[test]
fn an_edge_that_dies_is_left_and_found_again() {
    fails_and_recovers("health-dies", Syns::Refused, "can't be connected to");
}

#[test]
fn an_edge_that_is_silent_is_left_and_found_again() {
    fails_and_recovers(
        "health-silent",
        Syns::Lost,
        "the TCP handshake was not done within 1 s",
    );
}

/// How many checks of an Edge the agent has made, by its log.
fn checks(gateway: &Gateway<'_>, name: &str) -> Result<usize> {
    let name = format!("edge={name}");
    let is_one = |line: &&str| line.contains("checked") && line.contains(&name);
    Ok(gateway.log()?.lines().filter(is_one).count())
}

/// One pool of one Edge: who shares it would share what it refuses.
fn alone(limits: &str) -> String {
    format!(
        "[[edge]]\nname = \"a-v4\"\naddress = \"{}\"\nhealth = {{ interval = \"100ms\", {limits} }}\n\
         [[pool]]\nname = \"one\"\nedges = [\"a-v4\"]\n\
         [[ip_set]]\nname = \"steered\"\naddresses = [\"198.51.100.10\"]\nsteer = \"one\"\n",
        at(EDGE_A.v4.into())
    )
}

#[test]
fn an_edge_that_flaps_stays_what_it_is() {
    lab_test("health-flaps", &quiet(), |lab| {
        let _edge = EchoEdge::start(&lab.edge_a, "a")?;
        let mut gateway = Gateway::start(lab, &alone("fall = 2, rise = 2"))?;
        becomes(&gateway, "a-v4", "up", WELL)?;
        // Nobody else connects, so one check of two fails.
        faults::take_no_more(&lab.edge_a, Syns::RefusedInTurns)?;
        let many_checks = |gateway: &Gateway<'_>| {
            let before = checks(gateway, "a-v4")?;
            let enough = || Ok((checks(gateway, "a-v4")? > before + 10).then_some(()));
            Deadline::after(TIMEOUT).poll("ten checks", enough)
        };
        many_checks(&gateway)?;
        let log = gateway.log()?;
        ensure!(log.contains("result=Err"), "no check has failed: {log}");
        ensure!(!log.contains("the Edge is down"), "{log}");

        // It goes down at once, and is not well often enough to come back.
        gateway.configure("", &alone("fall = 1, rise = 2"))?;
        gateway.output(&["reload"])?;
        becomes(&gateway, "a-v4", "down", "can't be connected to")?;
        many_checks(&gateway)?;
        let log = gateway.log()?;
        ensure!(!log.contains("the Edge is up"), "{log}");
        faults::stop_losing(&lab.edge_a)?;
        becomes(&gateway, "a-v4", "up", WELL)?;
        Ok(())
    });
}

#[test]
fn connects_that_fail_for_several_clients_are_reason_enough() {
    let topology = Topology {
        partner_addresses: 8,
        ..quiet()
    };
    lab_test("health-passive", &topology, |lab: &Lab| {
        let _edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        // The first check comes some time within the interval: hardly in this test.
        let health = "interval = \"1h\", fall = 3, rise = 1";
        let gateway = Gateway::start(lab, &crate::tables(health, ""))?;
        faults::take_no_more(&lab.edge_a, Syns::Refused)?;
        let address = Way::Relayed.addresses()[0];
        let mut clients = (0..8).cycle();
        let ejected = || {
            // Another one each time, and edge-a is some clients' first Edge. Nobody notices.
            let from = clients.next().map(|n| (partner(n).v4, 0).into());
            let client = Client::open(lab, Way::Relayed, address, from)?;
            ensure!(client.edge() == "b", "edge-{}", client.edge());
            Ok((edge(&gateway, "a-v4")?["state"] == "down").then_some(()))
        };
        Deadline::after(TIMEOUT).poll("edge-a to be taken for down", ejected)?;
        let why = edge(&gateway, "a-v4")?["why"].to_string();
        ensure!(why.contains("3 clients in a row"), "{why}");
        ensure!(state(&gateway, "a-v4")? == "down");
        // Steered ones, too, although the datapath itself has not tried.
        for _ in 0..12 {
            let client = Client::open(lab, Way::Steered, Way::Steered.addresses()[0], None)?;
            ensure!(client.edge() == "b", "edge-{}", client.edge());
        }
        Ok(())
    });
}
