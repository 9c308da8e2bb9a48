//! Whose address and port the Edge sees: no two flows may share a tuple of the Edge leg.

use std::collections::HashSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{Counter, DropReason};
use snigate_tests::addresses::{GATEWAY_LAN_A, PARTNER, partner};
use snigate_tests::packets::frame::reset_of;
use snigate_tests::packets::plan::{Configuration, Family, Path, configuration};
use snigate_tests::packets::{OWNED_PORTS, Port, Rig, Scene, Step, packet_test};

use crate::checks::counted;

const GATEWAY: Configuration = Configuration {
    source: "gateway",
    edges: Configuration::DEFAULT_EDGES,
    second: Configuration::DEFAULT_EDGES,
};

fn gateway_scene<'a>(
    rig: &'a Rig,
    name: &str,
    family: Family,
    ports: (u16, u16),
) -> Result<Scene<'a>> {
    let mut scene = Scene::new(rig, &format!("{name}, {}", family.name()), 64)?;
    scene.configure_with_ports(&GATEWAY.render(""), ports)?;
    Ok(scene)
}

/// Opens half a flow and learns which source the datapath took; everything else in the packet must be as known.
pub(crate) fn open(scene: &mut Scene<'_>, path: Path) -> Result<Path> {
    let outcome = scene.send(Port::Wan0, &path.syn().frame())?;
    let flows = scene.flows()?;
    let flow = flows
        .half_open
        .iter()
        .find(|flow| flow.client == path.client && flow.service == path.service)
        .with_context(|| format!("no flow was made: {outcome:?}"))?;
    let path = path.seen_as(flow.source);
    ensure!(
        outcome.frame == path.at_edge(&path.syn()).frame(),
        "the SYN as {} is wrong: {outcome:?}",
        flow.source
    );
    Ok(path)
}

/// The rest of a flow's life after its SYN.
fn live(path: Path) -> [Step; 6] {
    [
        path.down(&path.syn_ack()),
        path.up(&path.handshake_ack()).counts(Counter::Opened),
        path.up(&path.client_data(0, b"hello")),
        path.down(&path.edge_data(0, 5, b"hello yourself")),
        path.up(&path.client_fin(5)),
        path.down(&path.edge_fin(14, 6)),
    ]
}

#[test]
fn the_gateways_own_address_and_port() {
    packet_test("source = gateway", |rig| {
        for family in Family::BOTH {
            let mut scene = gateway_scene(rig, "own address", family, OWNED_PORTS)?;
            let mut sources = HashSet::new();
            for n in 0..20 {
                // Every client uses the same port: the tuples differ by what the gateway takes.
                let client = match n % 3 {
                    0 => family.socket(PARTNER, 40_000 + n),
                    1 => family.socket(partner(1), 40_000 + n - 1),
                    _ => family.socket(partner(2), 40_000 + n - 2),
                };
                let path = open(&mut scene, Path::usual(family).from(client))?;
                ensure!(path.source.ip() == family.of(GATEWAY_LAN_A));
                ensure!(
                    (OWNED_PORTS.0..OWNED_PORTS.0 + OWNED_PORTS.1).contains(&path.source.port()),
                    "{} is not a port of the gateway's",
                    path.source
                );
                ensure!(sources.insert(path.source), "{} taken twice", path.source);
                // A repeated SYN finds the same.
                path.up(&path.syn()).run(&mut scene)?;
                for step in live(path) {
                    step.run(&mut scene)?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn few_ports_are_shared_by_nobody() {
    packet_test("two ports of the gateway", |rig| {
        for family in Family::BOTH {
            let mut scene = gateway_scene(rig, "two ports", family, (30_000, 2))?;
            let usual = Path::usual(family);
            let first = open(&mut scene, usual)?;
            let second = open(&mut scene, usual.from(family.socket(partner(1), 40_000)))?;
            ensure!(first.source != second.source, "one tuple, two clients");
            for step in live(first).into_iter().chain(live(second)) {
                step.run(&mut scene)?;
            }
            let third = usual.from(family.socket(partner(2), 40_000)).syn();
            let outcome = scene.send(Port::Wan0, &third.frame())?;
            ensure!(
                outcome.frame == reset_of(&third).frame()
                    && outcome.counts.get(DropReason::NoPort.name()) == Some(&1)
                    && outcome.counts.contains_key(Counter::PortCollisions.name()),
                "{outcome:?}"
            );
            // The first client is done (FIN both ways): its port goes round when it comes back itself.
            let again = first.syn().seq(9);
            first
                .up(&again)
                .counts(Counter::Steered)
                .leaves(counted(1, 1))
                .run(&mut scene)
                .context("the port of an ended flow, for the same client")?;
        }
        Ok(())
    });
}

/// One client, one port, two public addresses whose Edge is the same.
#[test]
fn the_same_client_port_to_two_services_of_one_edge() {
    packet_test("preserve with a collision", |rig| {
        for family in Family::BOTH {
            let name = format!("collision, {}", family.name());
            let mut scene = Scene::new(rig, &name, 64)?;
            scene.configure(&configuration(""))?;
            let first = open(&mut scene, Path::usual(family))?;
            ensure!(first.source == first.client);
            let second = open(&mut scene, Path::usual(family).to_second_service())?;
            ensure!(
                second.source.ip() == second.client.ip(),
                "preserve keeps the address: {}",
                second.source
            );
            ensure!(
                second.source.port() != first.source.port() && second.source.port() >= 1024,
                "{} twice toward one Edge",
                second.source
            );
            // The half-open flows come together to the Edge, which answers both.
            for (a, b) in live(first).into_iter().zip(live(second)) {
                a.run(&mut scene)?;
                b.run(&mut scene)?;
            }
            ensure!(scene.flows()?.established.len() == 2);
        }
        Ok(())
    });
}

/// The other client really has the port that the first one's flow would be given.
#[test]
fn a_replaced_port_that_is_taken_is_replaced_again() {
    packet_test("preserve with two collisions", |rig| {
        for family in Family::BOTH {
            let name = format!("two collisions, {}", family.name());
            let mut scene = Scene::new(rig, &name, 64)?;
            scene.configure(&configuration(""))?;
            open(&mut scene, Path::usual(family))?;
            let replaced = open(&mut scene, Path::usual(family).to_second_service())?.source;
            super::edges::forget_half_open(&mut scene)?;

            // Now the port that the datapath would take is the client's own other connection.
            let taken = open(&mut scene, Path::usual(family).from(replaced))?;
            ensure!(taken.source == replaced);
            open(&mut scene, Path::usual(family))?;
            let second = open(&mut scene, Path::usual(family).to_second_service())?;
            let sources: HashSet<SocketAddr> = scene
                .flows()?
                .half_open
                .iter()
                .map(|flow| flow.source)
                .collect();
            ensure!(sources.len() == 3 && second.source != replaced);
        }
        Ok(())
    });
}
