//! Packets that are cut off or make no sense: handed to the host or dropped, never sent on.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{Counter, DropReason};
use snigate_tests::packets::Icmp;
use snigate_tests::packets::frame::{ACK, FIN, RST, SYN, Tcp};
use snigate_tests::packets::plan::{Family, Path, configuration};
use snigate_tests::packets::{
    Action, Fate, Port, Program, Row, SHORTEST_FRAME, Scene, Step, packet_table, packet_test,
};

use crate::checks::{counted, no_flows};

#[test]
fn nothing_cut_off_is_sent_on() {
    packet_test("cut off at every length", |rig| {
        for (family, program) in Family::BOTH
            .into_iter()
            .flat_map(|family| Program::BOTH.map(|program| (family, program)))
        {
            let path = Path::usual(family);
            let data = path.client_data(0, b"a few octets of data");
            let answer = path.edge_data(0, 0, b"a few octets of data");
            let error = error_about(&path.at_edge(&data), path, 28);
            let mut scene = Scene::at(rig, &format!("cut off, {}", family.name()), 8, program)?;
            scene.configure(&configuration(""))?;
            // Before the flow, whose entries would claim the SYN's port.
            let other = path.from(family.socket(snigate_tests::addresses::PARTNER, 41_000));
            every_prefix(&mut scene, Port::Wan0, &other.syn().frame())
                .context("a SYN to a service")?;
            for step in path.handshake() {
                step.run(&mut scene)?;
            }
            let cases = [
                ("data of the client", Port::Wan0, data.frame()),
                ("data of the Edge", Port::Lan0, answer.frame()),
                (
                    "data behind two VLAN tags",
                    Port::Wan0,
                    data.clone().tags(&[(0x88a8, 1), (0x8100, 2)]).frame(),
                ),
                ("an ICMP error about the flow", Port::Lan0, error.frame()),
            ];
            for (name, port, frame) in cases {
                every_prefix(&mut scene, port, &frame)
                    .with_context(|| format!("{name}, {}, {program:?}", family.name()))?;
            }
        }
        Ok(())
    });
}

/// Sends every prefix of a frame, and at last the frame itself, which must be sent on.
fn every_prefix(scene: &mut Scene<'_>, port: Port, frame: &[u8]) -> Result<()> {
    let before = scene.flows()?;
    for length in SHORTEST_FRAME..frame.len() {
        let Some(outcome) = scene.send_short(port, &frame[..length])? else {
            continue;
        };
        let context = || format!("{length} of {} bytes: {outcome:?}", frame.len());
        match outcome.action {
            Action::Pass => {
                ensure!(outcome.frame == frame[..length], "{}: changed", context());
                let counter = if outcome.counts.contains_key(Counter::Passed.name()) {
                    Counter::Passed
                } else {
                    Counter::Unparsed
                };
                let expected = BTreeMap::from([(counter.name(), 1)]);
                ensure!(outcome.counts == expected, "{}: miscounted", context());
            }
            Action::Drop => {
                let reasons = [DropReason::Truncated, DropReason::BadIcmp];
                ensure!(
                    outcome.counts.len() == 2
                        && outcome.counts[Counter::Dropped.name()] == 1
                        && reasons
                            .iter()
                            .any(|reason| outcome.counts.get(reason.name()) == Some(&1)),
                    "{}: miscounted",
                    context()
                );
            }
            Action::Redirect => anyhow::bail!("{}: sent on", context()),
        }
        ensure!(scene.flows()? == before, "{}: a flow changed", context());
    }
    let whole = scene.send(port, frame)?;
    ensure!(
        whole.action == Action::Redirect,
        "the whole frame: {whole:?}"
    );
    Ok(())
}

/// A router's "host unreachable" about a packet to the Edge.
fn error_about(sent: &Tcp, path: Path, quoted: usize) -> Icmp {
    let v4 = path.edge.is_ipv4();
    Icmp {
        link: path.lan.arriving(),
        source: path.edge.ip(),
        destination: path.source.ip(),
        hops: 60,
        kind: if v4 { (3, 1) } else { (1, 3) },
        rest: [0; 4],
        body: sent.quote(quoted),
    }
}

#[test]
fn nonsense_is_dropped() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        let path = Path::usual(family);
        [
            bad_offsets(path),
            bad_flags(path),
            flags_in_a_flow(path),
            wrong_lengths(path),
        ]
        .map(|row| row.named_for(family))
    });
    let mut rows: Vec<_> = rows.collect();
    rows.push(bad_ipv4_headers());
    packet_table("nonsense", rows);
}

fn row(name: &str) -> Row {
    Row::new(name, configuration(""))
}

/// The packet's frame with another byte at an offset from its TCP header.
fn patched(packet: &Tcp, at: usize, value: u8) -> Vec<u8> {
    let mut frame = packet.frame();
    frame[SHORTEST_FRAME + packet.transport_offset() + at] = value;
    frame
}

fn bad_offsets(path: Path) -> Row {
    let drop = |packet: &Tcp, words: u8| {
        Step::new(
            Port::Wan0,
            patched(packet, 12, words << 4),
            Fate::Dropped(DropReason::BadDataOffset),
        )
    };
    let syn = path.syn().options(&[]);
    let data = path.client_data(0, b"12345678");
    row("data offsets below the header or beyond the packet")
        .steps((0..5).map(|words| drop(&syn, words).leaves(no_flows)))
        .steps((6..16).map(|words| drop(&syn, words).leaves(no_flows)))
        .steps(path.handshake())
        .steps((0..5).chain(8..16).map(|words| drop(&data, words)))
        .step(path.up(&data).leaves(counted(1, 0)))
}

fn bad_flags(path: Path) -> Row {
    let nonsense = [
        0,
        SYN | FIN,
        SYN | RST,
        SYN | ACK,
        SYN | FIN | RST | ACK,
        FIN,
        // PSH and URG alone: neither opens nor continues anything.
        0x28,
    ];
    row("flags that open no connection").steps(nonsense.map(|flags| {
        let packet = path.client_packet().seq(1).flags(flags);
        Step::dropped(Port::Wan0, &packet, DropReason::BadFlags).leaves(no_flows)
    }))
}

/// Inside a flow the endpoints judge: they know more.
fn flags_in_a_flow(path: Path) -> Row {
    let odd = |flags| path.up(&path.client_data(0, b"").flags(flags));
    row("odd flags inside a flow are for its endpoint to refuse")
        .steps(path.handshake())
        .steps([odd(0), odd(0x29), odd(SYN | FIN)])
        .step(
            path.up(&path.client_data(0, b"and on"))
                .leaves(counted(1, 0)),
        )
}

/// The IP header's length is less than the headers, or more than there is.
fn wrong_lengths(path: Path) -> Row {
    let v4 = path.client.is_ipv4();
    let with_length = |packet: &Tcp, length: usize| {
        let mut frame = packet.frame();
        let (at, length) = if v4 {
            (16, length)
        } else {
            (18, length.saturating_sub(40))
        };
        frame[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        frame
    };
    let data = path.client_data(0, b"12345678");
    let headers = data.transport_offset() + 20;
    let drop = |length, reason| {
        Step::new(
            Port::Wan0,
            with_length(&data, length),
            Fate::Dropped(reason),
        )
    };
    let smallest = if v4 { 0 } else { 40 };
    row("lengths that can't be")
        .steps(path.handshake())
        .step(drop(smallest, DropReason::BadDataOffset))
        .step(drop(headers - 1, DropReason::BadDataOffset))
        .step(drop(headers + 9, DropReason::Truncated))
        .step(drop(65_535, DropReason::Truncated))
}

fn bad_ipv4_headers() -> Row {
    let path = Path::usual(Family::V4);
    let with_first = |byte| {
        let mut frame = path.syn().frame();
        frame[SHORTEST_FRAME] = byte;
        Step::untouched(Port::Wan0, frame, Counter::Unparsed).leaves(no_flows)
    };
    row("IPv4 headers that are too short or of another version")
        .steps([0x40, 0x44, 0x55, 0x65, 0x05].map(with_first))
}
