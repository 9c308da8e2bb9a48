//! Packets that the datapath answers itself: out of hops, and too big for the way on.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use sni_common::contract::{Counter, DropReason};
use snigate_tests::packets::Icmp;
use snigate_tests::packets::frame::{Tcp, extension};
use snigate_tests::packets::plan::{Configuration, Family, Path, configuration};
use snigate_tests::packets::{
    Action, Fate, NARROW_EDGE, NARROW_MTU, Port, Row, Scene, Step, packet_table, packet_test,
};

use crate::checks::counted;

#[test]
fn hops_and_sizes() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        let path = Path::usual(family);
        [
            out_of_hops(path, 1),
            out_of_hops(path, 0),
            edge_out_of_hops(path),
            syn_out_of_hops(path),
            out_of_hops_in_a_vlan(path),
            out_of_hops_with_options(path),
            too_big(path),
            too_big_in_two_buffers(path),
            too_big_in_a_vlan(path),
        ]
        .map(|row| row.named_for(family))
    });
    packet_table("answers", rows.collect());
}

fn row(name: impl Into<String>) -> Row {
    Row::new(name, configuration(""))
}

/// An ICMP error about a packet, from the address that it was sent to.
fn error(about: &Tcp, kind: (u8, u8), rest: [u8; 4]) -> Icmp {
    Icmp {
        link: about.link.reversed(),
        source: about.destination.ip(),
        destination: about.source.ip(),
        hops: 64,
        kind,
        rest,
        // The IP header, and the TCP header without its options.
        body: about.quote(20),
    }
}

fn time_exceeded(about: &Tcp) -> Vec<u8> {
    let kind = match about.source.ip() {
        IpAddr::V4(_) => (11, 0),
        IpAddr::V6(_) => (3, 0),
    };
    error(about, kind, [0; 4]).frame()
}

fn too_big_answer(about: &Tcp, mtu: usize) -> Vec<u8> {
    let [_, _, high, low] = (mtu as u32).to_be_bytes();
    let kind = match about.source.ip() {
        IpAddr::V4(_) => (3, 4),
        IpAddr::V6(_) => (2, 0),
    };
    error(about, kind, [0, 0, high, low]).frame()
}

fn expired(port: Port, packet: &Tcp) -> Step {
    Step::answered(port, packet, time_exceeded(packet), DropReason::TtlExpired)
}

fn out_of_hops(path: Path, hops: u8) -> Row {
    let data = path.client_data(0, b"data").hops(hops);
    row(format!("data with {hops} hops left"))
        .steps(path.handshake())
        .step(expired(Port::Wan0, &data).leaves(counted(1, 0)))
}

/// Traceroute from the Edge sees the client's address, never the gateway's; the datapath has no address of its own.
fn edge_out_of_hops(path: Path) -> Row {
    let data = path.edge_data(0, 0, b"data").hops(1);
    row("data of the Edge out of hops")
        .steps(path.handshake())
        .step(expired(Port::Lan0, &data))
}

fn syn_out_of_hops(path: Path) -> Row {
    row("a SYN out of hops")
        .step(expired(Port::Wan0, &path.syn().hops(1)))
        // The one behind it, which has a hop to spare, opens the flow.
        .step(path.up(&path.syn()).leaves(counted(0, 1)))
        .step(path.down(&path.syn_ack()))
        .step(path.up(&path.handshake_ack()).counts(Counter::Opened))
}

fn out_of_hops_in_a_vlan(path: Path) -> Row {
    let data = path
        .client_data(0, b"data")
        .hops(1)
        .tags(&[(0x8100, 0x0064)]);
    row("data out of hops in a VLAN")
        .steps(path.handshake())
        .step(expired(Port::Wan0, &data))
}

/// Rare, and beyond the verifier's means to sum.
fn out_of_hops_with_options(path: Path) -> Row {
    let data = path.client_data(0, b"data").hops(1);
    let data = if path.client.is_ipv4() {
        data.ip_options(&[1; 4])
    } else {
        data.extension(extension::DESTINATION, &[0, 1, 4, 0, 0, 0, 0])
    };
    row("data with options out of hops is dropped without an answer")
        .steps(path.handshake())
        .step(Step::dropped(Port::Wan0, &data, DropReason::TtlExpired))
}

/// A flow to the Edge with the narrow route.
fn narrow(name: &str, path: Path) -> (Path, Row) {
    let path = path.to_edge(NARROW_EDGE, Port::Lan0);
    let edges = Configuration {
        edges: &[("edge-n", NARROW_EDGE)],
        ..Configuration::default()
    };
    let row = Row::new(name, edges.render("")).steps(path.handshake());
    (path, row)
}

fn fitting(path: Path, over: usize) -> Tcp {
    let headers = path.handshake_ack().network().len();
    path.client_data(0, &vec![0x33; NARROW_MTU - headers + over])
}

fn too_big(path: Path) -> Row {
    let (path, row) = narrow("a packet for the narrow route", path);
    let big = fitting(path, 1);
    row.step(path.up(&fitting(path, 0))).step(
        Step::answered(
            Port::Wan0,
            &big,
            too_big_answer(&big, NARROW_MTU),
            DropReason::TooBig,
        )
        .leaves(counted(1, 0)),
    )
}

fn too_big_in_two_buffers(path: Path) -> Row {
    let (path, row) = narrow("a packet in two buffers for the narrow route", path);
    let big = fitting(path, 100);
    let answer = too_big_answer(&big, NARROW_MTU);
    row.step(
        Step::new(
            Port::Wan0,
            big.frame(),
            Fate::Answered(answer, DropReason::TooBig),
        )
        .split_at(256),
    )
}

fn too_big_in_a_vlan(path: Path) -> Row {
    let (path, row) = narrow("a packet in a VLAN for the narrow route", path);
    let big = fitting(path, 1).tags(&[(0x88a8, 1), (0x8100, 2)]);
    // Tags are no part of the IP packet.
    let exact = fitting(path, 0);
    let out = path.at_edge(&exact);
    row.step(Step::forwarded(
        Port::Wan0,
        &exact.tags(&[(0x88a8, 1), (0x8100, 2)]),
        &out,
    ))
    .step(Step::answered(
        Port::Wan0,
        &big,
        too_big_answer(&big, NARROW_MTU),
        DropReason::TooBig,
    ))
}

/// RFC 1812, 4.3.2.8; RFC 4443, 2.4.
#[test]
fn icmp_errors_are_limited_in_rate() {
    packet_test("the rate of ICMP errors", |rig| {
        for family in Family::BOTH {
            let mut scene = Scene::new(rig, &format!("ICMP rate, {}", family.name()), 8)?;
            scene.configure(&configuration(""))?;
            // What the scene before has used up of the datapath's rate has come back.
            thread::sleep(Duration::from_secs(1));
            let path = Path::usual(family);
            for step in path.handshake() {
                step.run(&mut scene)?;
            }
            let frame = path.client_data(0, b"data").hops(1).frame();
            let (mut answered, mut dropped) = (0, 0);
            let start = Instant::now();
            for _ in 0..5_000 {
                let outcome = scene.send(Port::Wan0, &frame)?;
                ensure!(outcome.counts[DropReason::TtlExpired.name()] == 1);
                match outcome.action {
                    Action::Redirect => answered += 1,
                    Action::Drop => dropped += 1,
                    Action::Pass => bail!("passed: {outcome:?}"),
                }
            }
            // A thousand at once on each CPU that the test has been on, and what time has added: all, on a machine that is slow enough.
            let slow = start.elapsed() > Duration::from_secs(1);
            ensure!(
                answered >= 1_000 && (slow || dropped >= 1_000),
                "{answered} answered"
            );
        }
        Ok(())
    });
}
