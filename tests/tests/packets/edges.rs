//! Which Edge: down, draining, and another configuration.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use sni_common::contract::{Counter, DropReason, EdgeState};
use snigate_tests::addresses::{EDGE_A, EDGE_B, PARTNER, VIP_1, at};
use snigate_tests::packets::frame::reset_of;
use snigate_tests::packets::plan::{Configuration, Family, Path, configuration};
use snigate_tests::packets::{Action, Port, Rig, Scene, Step, packet_test};

use crate::checks::{counted, no_flows};

const BOTH: Configuration = Configuration {
    source: "preserve",
    edges: &[("edge-a", EDGE_A), ("edge-b", EDGE_B)],
    second: &[("edge-a", EDGE_A)],
};

/// The name of an Edge as the configuration has it for a family.
fn named(name: &str, family: Family) -> String {
    match family {
        Family::V4 => name.to_owned(),
        Family::V6 => format!("{name}6"),
    }
}

fn scene<'a>(rig: &'a Rig, name: &str, family: Family) -> Result<Scene<'a>> {
    let mut scene = Scene::new(rig, &format!("{name}, {}", family.name()), 64)?;
    scene.configure(&BOTH.render(""))?;
    Ok(scene)
}

/// Opens half a flow and tells which of both Edges it goes to.
pub(crate) fn choice(scene: &mut Scene<'_>, path: Path) -> Result<Path> {
    let outcome = scene.send(Port::Wan0, &path.syn().frame())?;
    ensure!(outcome.action == Action::Redirect, "{outcome:?}");
    for path in [path, path.to_edge_b()] {
        if outcome.frame == path.at_edge(&path.syn()).frame() {
            return Ok(path);
        }
    }
    anyhow::bail!("to neither Edge: {outcome:?}")
}

/// A client port for each of both Edges, as an unspoilt pool chooses them.
pub(crate) fn one_for_each(scene: &mut Scene<'_>, family: Family) -> Result<(Path, Path)> {
    let (mut to_a, mut to_b) = (None, None);
    for port in 50_000..50_064 {
        let path = choice(
            scene,
            Path::usual(family).from(family.socket(PARTNER, port)),
        )?;
        match path.lan {
            Port::Lan0 => to_a = Some(path),
            _ => to_b = Some(path),
        }
        forget_half_open(scene)?;
        if let (Some(to_a), Some(to_b)) = (to_a, to_b) {
            return Ok((to_a, to_b));
        }
    }
    anyhow::bail!("64 clients, and all to one Edge of two")
}

pub(crate) fn forget_half_open(scene: &mut Scene<'_>) -> Result<()> {
    let maps = &mut scene.datapath().maps;
    for (key, _) in maps.all_half_open()? {
        maps.half_open.remove(&key)?;
    }
    Ok(())
}

#[test]
fn down_and_draining_edges_get_no_new_flows() {
    packet_test("Edge states", |rig| {
        for family in Family::BOTH {
            for state in [EdgeState::Down, EdgeState::Draining] {
                let mut scene = scene(rig, state.name(), family)?;
                let (to_a, _) = one_for_each(&mut scene, family)?;
                for step in to_a.handshake() {
                    step.run(&mut scene)?;
                }
                let next = to_a.from(family.socket(PARTNER, to_a.client.port() + 1000));
                scene.set_edge(&named("edge-a", family), state)?;
                let moved = choice(&mut scene, next)?;
                ensure!(
                    moved.lan == Port::Lan1,
                    "a new flow went to the Edge that is {state}"
                );
                // What was there before goes on.
                to_a.up(&to_a.client_data(0, b"on")).run(&mut scene)?;
                to_a.down(&to_a.edge_data(0, 2, b"and on"))
                    .run(&mut scene)?;

                forget_half_open(&mut scene)?;
                scene.set_edge(&named("edge-b", family), state)?;
                let syn = next.syn();
                Step::answered(Port::Wan0, &syn, reset_of(&syn).frame(), DropReason::NoEdge)
                    .leaves(counted(1, 0))
                    .run(&mut scene)?;

                scene.set_edge(&named("edge-a", family), EdgeState::Up)?;
                let back = choice(&mut scene, next)?;
                ensure!(back.lan == Port::Lan0);
            }
        }
        Ok(())
    });
}

/// Its state alone: the table is not written yet.
fn just_went_down(scene: &mut Scene<'_>, name: &str) -> Result<()> {
    let slot = scene.edge_slot(name)?;
    let edges = &mut scene.datapath().maps.edges;
    let mut edge = edges.get(&slot, 0)?;
    edge.state = EdgeState::Down as u8;
    Ok(edges.set(slot, edge, 0)?)
}

/// Until the table is rewritten nobody should be refused either while an Edge is up.
#[test]
fn one_edge_down_refuses_nobody() {
    packet_test("one Edge of two down", |rig| {
        for family in Family::BOTH {
            let mut scene = scene(rig, "one down", family)?;
            scene.configure(&BOTH.render("[limits]\nsyn_per_source = \"100000/s\"\n"))?;
            just_went_down(&mut scene, &named("edge-a", family))?;
            let mut refused = 0;
            let clients = 2048;
            for port in 0..clients {
                let path = Path::usual(family).from(family.socket(PARTNER, 10_000 + port));
                let outcome = scene.send(Port::Wan0, &path.syn().frame())?;
                if outcome.counts.contains_key(DropReason::NoEdge.name()) {
                    refused += 1;
                } else {
                    let path = path.to_edge_b();
                    ensure!(outcome.frame == path.at_edge(&path.syn()).frame());
                }
                if port % 512 == 0 {
                    forget_half_open(&mut scene)?;
                }
            }
            // As many tries as make it one in four thousand million.
            ensure!(refused == 0, "{refused} of {clients} clients refused");
        }
        Ok(())
    });
}

/// As many Edges of each family as a pool may have, of which edge-a alone can be reached.
fn crowd() -> String {
    let mut edges = vec![
        ("edge-a".to_owned(), at(EDGE_A.v4.into())),
        ("edge-a6".to_owned(), at(EDGE_A.v6.into())),
    ];
    for n in 1..32 {
        let v4 = Ipv4Addr::new(192, 0, 2, n);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, n.into());
        edges.push((format!("f{n}-far"), at(v4.into())));
        edges.push((format!("f{n}-far6"), at(v6.into())));
    }
    let tables = edges
        .iter()
        .map(|(name, address)| format!("[[edge]]\nname = \"{name}\"\naddress = \"{address}\"\n"));
    let names: Vec<_> = edges.iter().map(|(name, _)| name.as_str()).collect();
    format!(
        "[gateway]\ninterfaces = [\"wan0\", \"lan0\", \"lan1\"]\n{}\
         [[pool]]\nname = \"crowd\"\nedges = {names:?}\n\
         [[ip_set]]\nname = \"set\"\naddresses = [\"{}\", \"{}\"]\nsteer = \"crowd\"\n\
         [limits]\nsyn_per_source = \"100000/s\"\n",
        tables.collect::<String>(),
        VIP_1.v4,
        VIP_1.v6,
    )
}

#[test]
fn the_one_edge_of_many_that_is_up_gets_everybody() {
    packet_test("one Edge of many", |rig| {
        for family in Family::BOTH {
            let mut scene = scene(rig, "one of many", family)?;
            scene.configure(&crowd())?;
            for n in 1..32 {
                scene.set_edge(&named(&format!("f{n}-far"), family), EdgeState::Down)?;
            }
            for port in 0..128 {
                let path = Path::usual(family).from(family.socket(PARTNER, 10_000 + port));
                path.up(&path.syn())
                    .counts(Counter::Steered)
                    .run(&mut scene)?;
            }
        }
        Ok(())
    });
}

/// What a configuration that comes later finds in EDGES holds for its tables as well.
#[test]
fn states_outlive_a_configuration_but_not_their_edge() {
    packet_test("states and configurations", |rig| {
        let family = Family::V4;
        let mut scene = scene(rig, "states and configurations", family)?;
        let (to_a, _) = one_for_each(&mut scene, family)?;
        scene.set_edge("edge-a", EdgeState::Draining)?;
        scene.configure(&BOTH.render("[limits]\nsyn_per_source = \"1000/s\"\n"))?;
        ensure!(choice(&mut scene, to_a)?.lan == Port::Lan1);
        forget_half_open(&mut scene)?;
        let slot = scene.edge_slot("edge-a")?;
        let without = Configuration {
            edges: &[("edge-b", EDGE_B)],
            second: &[("edge-b", EDGE_B)],
            ..BOTH
        };
        scene.configure(&without.render(""))?;
        scene.configure(&BOTH.render(""))?;
        ensure!(scene.edge_slot("edge-a")? == slot, "it has another slot");
        ensure!(choice(&mut scene, to_a)?.lan == Port::Lan0);
        Ok(())
    });
}

/// The Edge of a half-open flow goes down before it has answered.
#[test]
fn a_repeated_syn_leaves_an_edge_that_went_down() {
    packet_test("Edge down in the handshake", |rig| {
        for family in Family::BOTH {
            let mut scene = scene(rig, "down in the handshake", family)?;
            let (to_a, _) = one_for_each(&mut scene, family)?;
            to_a.up(&to_a.syn())
                .counts(Counter::Steered)
                .run(&mut scene)?;
            scene.set_edge(&named("edge-a", family), EdgeState::Down)?;
            let to_b = to_a.to_edge_b();
            let steps = [
                to_b.up(&to_b.syn())
                    .counts(Counter::Steered)
                    .leaves(counted(0, 1)),
                to_b.down(&to_b.syn_ack()),
                // Once it has answered it may finish, whatever health says.
                to_b.up(&to_b.syn()).after_change({
                    let edge = named("edge-b", family);
                    move |scene| scene.set_edge(&edge, EdgeState::Down)
                }),
                to_b.up(&to_b.handshake_ack())
                    .counts(Counter::Opened)
                    .leaves(counted(1, 0)),
            ];
            for step in steps {
                step.run(&mut scene)?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_new_configuration_moves_new_flows_only() {
    packet_test("generations", |rig| {
        for family in Family::BOTH {
            let name = format!("generations, {}", family.name());
            let mut scene = Scene::new(rig, &name, 64)?;
            scene.configure(&configuration(""))?;
            let old = Path::usual(family);
            for step in old.handshake() {
                step.run(&mut scene)?;
            }
            // A handshake in the middle of which the configuration changes.
            let between = old.from(family.socket(PARTNER, 40_001));
            between
                .up(&between.syn())
                .counts(Counter::Steered)
                .run(&mut scene)?;

            let moved = Configuration {
                edges: &[("edge-b", EDGE_B)],
                ..Configuration::default()
            };
            scene.configure(&moved.render(""))?;
            let new = old.from(family.socket(PARTNER, 40_002)).to_edge_b();
            let steps = [
                old.up(&old.client_data(0, b"as before")),
                old.down(&old.edge_data(0, 9, b"as ever")),
                between.down(&between.syn_ack()),
                between
                    .up(&between.handshake_ack())
                    .counts(Counter::Opened)
                    .leaves(counted(2, 0)),
            ];
            for step in steps.into_iter().chain(new.handshake()) {
                step.run(&mut scene)?;
            }

            // And a configuration without the service: what is new is the host's.
            let gone = moved
                .render("")
                .replace(&VIP_1.v4.to_string(), "198.51.100.30")
                .replace(&format!("\"{}\"", VIP_1.v6), "\"2001:db8:1::30\"");
            scene.configure(&gone)?;
            let late = new.from(family.socket(PARTNER, 40_003));
            let steps = [
                Step::untouched(Port::Wan0, late.syn().frame(), Counter::Passed)
                    .leaves(counted(3, 0)),
                old.up(&old.client_data(9, b"still here")),
                new.up(&new.client_data(0, b"and here")),
            ];
            for step in steps {
                step.run(&mut scene)?;
            }
        }
        Ok(())
    });
}

#[test]
fn an_empty_start_refuses_nobody() {
    packet_test("no configuration", |rig| {
        let mut scene = Scene::new(rig, "no configuration", 8)?;
        for family in Family::BOTH {
            let syn = Path::usual(family).syn();
            Step::untouched(Port::Wan0, syn.frame(), Counter::Passed)
                .leaves(no_flows)
                .run(&mut scene)?;
        }
        Ok(())
    });
}
