//! Links, neighbours, routes and interfaces that go and come back, and an Edge that dies.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Play, Scenario};
use crate::{
    Namespace, Tags,
    addresses::{EDGE_A, GATEWAY_LAN_A, GATEWAY_WAN, PARTNER},
    chaos::{
        Ends, Way,
        load::PATIENCE,
        stage::{OF_MACHINE, Setting},
    },
    deadline::Deadline,
    faults,
};

/// How often neighbours are forgotten, and routes change.
const TIMES: u32 = 10;
/// More packets than those that do not come from the gateway: an Edge's neighbours ask for it.
const SOME: u64 = 20;
/// Soon, and on a busy machine not too soon.
const HEALTH: &str = "health = { interval = \"1s\", fall = 2, rise = 1 }";

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "edge/killed",
            "an Edge's processes die, and come back: what is at the other one goes on, and takes what is new",
            edge_killed,
        )
        .with_setting(|_, _| {
            Ok(Setting {
                edge: HEALTH,
                ..Setting::default()
            })
        })
        .may_refuse(&Way::ALL),
        Scenario::new(
            "edge/silent",
            "an Edge hears nothing any more, and hears again: what is at it goes on, and what is new goes to the other one meanwhile",
            edge_silent,
        )
        .with_setting(|_, _| {
            Ok(Setting {
                edge: HEALTH,
                ..Setting::default()
            })
        })
        .may_refuse(&Way::ALL),
        Scenario::new(
            "link/down",
            "the partner's link loses its carrier, then that of the first Edge, for some seconds",
            link_down,
        )
        .may_refuse(&Way::ALL),
        Scenario::new(
            "neighbour/lost",
            "the gateway forgets its neighbours, again and again",
            neighbours_lost,
        ),
        Scenario::new(
            "route/changed",
            "the way to the first Edge changes to another link and back, again and again",
            routes_changed,
        )
        .with_setting(|lab, topology| {
            let (gateway, edge) = (&lab.gateway, &lab.edge_a);
            topology.link((gateway, "lan2"), (edge, "eth1"), 1500, Tags::None)?;
            // Neighbour discovery answers only for the interface that has the address.
            edge.ip(&format!("addr add {}/128 dev eth1 nodad", EDGE_A.v6))?;
            Ok(Setting {
                interfaces: &["lan2"],
                ..Setting::default()
            })
        }),
        Scenario::new(
            "interface/removed",
            "the interface toward the second Edge is removed, and made anew after some seconds",
            interface_removed,
        ),
        Scenario::new(
            "interface/public",
            "the interface toward the partner is removed, with the public addresses, and made anew after some seconds",
            public_interface_removed,
        )
        .may_refuse(&Way::ALL),
    ]
}

fn edge_killed(play: &mut Play<'_, '_>) -> Result<()> {
    let index = usize::from(play.rng.bool());
    let paused = play.load.pause();
    let lost = clients_at(play, index)?;
    let from = Instant::now();
    play.stage.kill_edge(index);
    play.excuse("Edge died", from..=Instant::now(), Ends::Clients(lost));
    wait_for_edges(play, index, "down")?;
    drop(paused);
    play.load.wait_for_new(|_| true)?;
    play.stage.start_edge(index)?;
    wait_for_edges(play, index, "up")
}

fn edge_silent(play: &mut Play<'_, '_>) -> Result<()> {
    let index = usize::from(play.rng.bool());
    // Who is at it stays there, and would not come again.
    let paused = play.load.pause();
    clients_at(play, index)?;
    let edge = play.stage.edge(index);
    faults::lose_incoming(edge, 100)?;
    wait_for_edges(play, index, "down")?;
    drop(paused);
    play.load.wait_for_new(|_| true).context("in the silence")?;
    faults::stop_losing(edge)?;
    wait_for_edges(play, index, "up")
}

/// Who stays, and is at this Edge: some are, and some are at the other one.
fn clients_at(play: &mut Play<'_, '_>, index: usize) -> Result<Vec<SocketAddr>> {
    let held = play.load.clients_held();
    let mut flows = play.stage.flows()?;
    flows.retain(|client, _| held.contains_key(client));
    let at_it = flows.iter().filter(|(_, (_, edge))| *edge == index);
    let clients: Vec<_> = at_it.map(|(client, _)| *client).collect();
    ensure!(
        !clients.is_empty() && clients.len() < flows.len(),
        "all are at one Edge: {flows:?}"
    );
    let (there, all) = (clients.len(), flows.len());
    play.note(format!(
        "{there} of {all} connections that stay were at the Edge"
    ));
    Ok(clients)
}

/// Until all of an Edge's services are in this state.
fn wait_for_edges(play: &Play<'_, '_>, index: usize, state: &str) -> Result<()> {
    let prefix = ["a-", "b-"][index];
    let reached = || {
        let listed = play.stage.gateway.borrow().json(&["edge", "ls"])?;
        let edges = listed.as_array().into_iter().flatten();
        let own = edges.filter(|it| {
            it["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(prefix))
        });
        let states: Vec<_> = own.map(|edge| &edge["state"]).collect();
        ensure!(states.len() == OF_MACHINE, "{states:?} of {listed}");
        Ok(states.iter().all(|it| *it == state).then_some(()))
    };
    Deadline::after(PATIENCE).poll(&format!("Edge {prefix} to be {state}"), reached)
}

fn link_down(play: &mut Play<'_, '_>) -> Result<()> {
    let lab = play.stage.lab;
    clients_at(play, 0)?;
    for (machine, own, gateway) in [
        (&lab.partner, PARTNER, GATEWAY_WAN),
        (&lab.edge_a, EDGE_A, GATEWAY_LAN_A),
    ] {
        machine.ip("link set eth0 down")?;
        play.sleep(1000..3000);
        // What a network manager brings back: an interface that is down has no IPv6 addresses, and no routes.
        machine.ip("link set eth0 up")?;
        machine.ip(&format!(
            "addr replace {}/64 dev eth0 nodad
             route replace default via {}
             -6 route replace default via {}",
            own.v6, gateway.v4, gateway.v6
        ))?;
        play.load.wait_for_held(|_| true)?;
    }
    Ok(())
}

fn routes_changed(play: &mut Play<'_, '_>) -> Result<()> {
    let lab = play.stage.lab;
    let (gateway, edge) = (&lab.gateway, &lab.edge_a);
    let (v4, v6) = (EDGE_A.v4, EDGE_A.v6);
    clients_at(play, 0)?;
    for _ in 0..TIMES {
        for (command, device) in [("replace", "eth1"), ("del", "eth0")] {
            gateway.ip(&format!(
                "route {command} {v4}/32 dev lan2
                 -6 route {command} {v6}/128 dev lan2"
            ))?;
            let before = received(edge, device)?;
            play.sleep(50..1500);
            Deadline::after(PATIENCE).poll(&format!("packets at {device}"), || {
                Ok((received(edge, device)? > before + SOME).then_some(()))
            })?;
        }
    }
    Ok(())
}

/// How many packets have come in by an interface.
fn received(machine: &Namespace, device: &str) -> Result<u64> {
    let output = machine.output("ip", &["-s", "-j", "link", "show", "dev", device])?;
    let shown: serde_json::Value = serde_json::from_str(&output)?;
    let packets = shown[0]["stats64"]["rx"]["packets"].as_u64();
    packets.with_context(|| format!("{device} shows {output}"))
}

fn interface_removed(play: &mut Play<'_, '_>) -> Result<()> {
    let lab = play.stage.lab;
    clients_at(play, 1)?;
    lab.gateway.ip("link del lan1")?;
    play.sleep(1000..3000);
    play.stage.topology.wire_edge_b(&lab.gateway, &lab.edge_b)?;
    play.load.wait_for_held(|_| true)
}

fn public_interface_removed(play: &mut Play<'_, '_>) -> Result<()> {
    let lab = play.stage.lab;
    lab.gateway.ip("link del wan0")?;
    play.sleep(1000..3000);
    let stand_ins = play
        .stage
        .topology
        .wire_partner(&lab.gateway, &lab.partner)?;
    ensure!(stand_ins.is_empty(), "the lab has VLANs: {stand_ins:?}");
    play.load.wait_for_held(|_| true)
}

fn neighbours_lost(play: &mut Play<'_, '_>) -> Result<()> {
    let gateway = &play.stage.lab.gateway;
    let before = play.stage.counts()?;
    for _ in 0..TIMES {
        for device in ["wan0", "lan0", "lan1"] {
            let known = || gateway.output("ip", &["neigh", "show", "dev", device]);
            Deadline::after(PATIENCE).poll(&format!("neighbours at {device}"), || {
                Ok((!known()?.is_empty()).then_some(()))
            })?;
            // Also those that the agent has the kernel keep.
            gateway.ip(&format!("neigh flush dev {device} nud all"))?;
        }
        play.sleep(50..500);
    }
    play.load.wait_for_new(|_| true)?;
    let after = play.stage.counts()?;
    let missed = ["stale-next-hops", "no-neighbour"].map(|name| after[name] - before[name]);
    play.note(format!("packets without a neighbour: {missed:?}"));
    ensure!(missed.iter().sum::<u64>() > 0, "no packet has missed them");
    Ok(())
}
