//! Links, neighbours, routes and interfaces that go and come back, and an Edge that dies.

use anyhow::{Result, ensure};

use super::{Play, Scenario};
use crate::{
    Tags, Topology,
    addresses::{EDGE_A, GATEWAY_LAN_A, GATEWAY_WAN, PARTNER},
    chaos::{Ends, Way, load::PATIENCE, stage::Setting},
    deadline::Deadline,
};

/// How often neighbours are forgotten, and routes change.
const TIMES: u32 = 10;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "edge/killed",
            "an Edge's processes die, and come back: what is at the other one goes on, and takes what is new",
            edge_killed,
        )
        .with_setting(|_| {
            Ok(Setting {
                edge: "health = { interval = \"300ms\", fall = 2, rise = 1 }",
                ..Setting::default()
            })
        }),
        Scenario::new(
            "link/down",
            "the partner's link loses its carrier, then that of the first Edge, for some seconds",
            link_down,
        ),
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
        .with_setting(|lab| {
            let topology = Topology::default();
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
    ]
}

fn edge_killed(play: &mut Play<'_, '_>) -> Result<()> {
    let index = usize::from(play.rng.bool());
    play.load.pause()?;
    let flows = play.stage.flows()?;
    let at_it = |(_, edge): &(Way, usize)| *edge == index;
    let lost: Vec<_> = flows
        .iter()
        .filter(|(_, it)| at_it(it))
        .map(|(client, _)| *client)
        .collect();
    ensure!(
        !lost.is_empty() && lost.len() < flows.len(),
        "all are at one Edge: {flows:?}"
    );
    play.note(format!(
        "{} of {} connections were at the Edge that died",
        lost.len(),
        flows.len()
    ));
    play.stage.kill_edge(index);
    play.excuse("Edge died", Ends::Clients(lost));
    wait_for_edges(play, index, "down")?;
    play.load.resume();
    play.load.wait_for_new(|_| true)?;
    play.stage.start_edge(index)?;
    wait_for_edges(play, index, "up")
}

/// Until all of an Edge's services are in this state.
fn wait_for_edges(play: &Play<'_, '_>, index: usize, state: &str) -> Result<()> {
    let prefix = ["a-", "b-"][index];
    let reached = || {
        let edges = play.stage.gateway.borrow().json(&["edge", "ls"])?;
        let edges = edges.as_array().into_iter().flatten();
        let mut own = edges.filter(|it| {
            it["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(prefix))
        });
        Ok(own.all(|edge| edge["state"] == state).then_some(()))
    };
    Deadline::after(PATIENCE).poll(&format!("Edge {prefix} to be {state}"), reached)
}

fn link_down(play: &mut Play<'_, '_>) -> Result<()> {
    let lab = play.stage.lab;
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
    let gateway = &play.stage.lab.gateway;
    let (v4, v6) = (EDGE_A.v4, EDGE_A.v6);
    for _ in 0..TIMES {
        gateway.ip(&format!(
            "route replace {v4}/32 dev lan2
             -6 route replace {v6}/128 dev lan2"
        ))?;
        play.sleep(50..1500);
        gateway.ip(&format!(
            "route del {v4}/32 dev lan2
             -6 route del {v6}/128 dev lan2"
        ))?;
        play.sleep(50..1500);
    }
    Ok(())
}

fn interface_removed(play: &mut Play<'_, '_>) -> Result<()> {
    let lab = play.stage.lab;
    lab.gateway.ip("link del lan1")?;
    play.sleep(1000..3000);
    play.stage.topology.wire_edge_b(&lab.gateway, &lab.edge_b)?;
    play.load.wait_for_held(|_| true)
}

fn neighbours_lost(play: &mut Play<'_, '_>) -> Result<()> {
    for _ in 0..TIMES {
        for device in ["wan0", "lan0", "lan1"] {
            // Also those that the agent has the kernel keep.
            play.stage
                .lab
                .gateway
                .ip(&format!("neigh flush dev {device} nud all"))?;
        }
        play.sleep(50..500);
    }
    play.load.wait_for_new(|_| true)
}
