//! Random packets, most of them valid ones gone wrong: whatever arrives, nothing goes where it must not.
//!
//! The seed is fixed; `SNIGATE_PACKETS_SEED` tries another, `SNIGATE_PACKETS_CASES` more of them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use fastrand::Rng;
use sni_common::contract::{Counter, EdgeState};
use snigate_tests::addresses::{EDGE_A, EDGE_B, Host, PARTNER, VIP_1, VIP_2, partner};
use snigate_tests::packets::Icmp;
use snigate_tests::packets::frame::{Tcp, extension};
use snigate_tests::packets::plan::{Configuration, Family, Path};
use snigate_tests::packets::{Action, Outcome, Port, Program, Scene, packet_test};

const SEED: u64 = 5061;
const CASES: u32 = 20_000;
/// Few, so that the table is full at times.
const MAX_FLOWS: u32 = 40;
/// Reading the tables after every packet would take most of the time.
const CHECK_FLOWS_EVERY: u32 = 500;

/// One service, one Edge each: what goes to the other's is a leak.
const TWO_CUSTOMERS: Configuration = Configuration {
    source: "preserve",
    edges: &[("edge-a", EDGE_A)],
    second: &[("edge-b", EDGE_B)],
};

#[test]
fn nothing_goes_where_it_must_not() {
    packet_test("random packets", |rig| {
        for (source, program) in [
            ("preserve", Program::Xdp),
            ("gateway", Program::Xdp),
            ("preserve", Program::Tc),
        ] {
            let configuration = Configuration {
                source,
                ..TWO_CUSTOMERS
            };
            let mut scene = Scene::at(rig, &format!("random, {source}"), MAX_FLOWS, program)?;
            scene.configure(&configuration.render("[limits]\nsyn_per_source = \"100000/s\"\n"))?;
            run(&mut scene)?;
        }
        Ok(())
    });
}

fn run(scene: &mut Scene<'_>) -> Result<()> {
    let seed = variable("SNIGATE_PACKETS_SEED").unwrap_or(SEED);
    let cases = variable("SNIGATE_PACKETS_CASES").unwrap_or(CASES.into()) as u32;
    let mut random = Rng::with_seed(seed);
    let mut redirected = 0;
    // Whoever a packet to a service came from; an address gone wrong is a client's like any other.
    let mut clients = HashSet::new();
    for case in 0..cases {
        let (port, valid) = valid_packet(scene, &mut random, case)?;
        let frame = if random.u8(..) < 64 {
            valid
        } else {
            gone_wrong(valid, &mut random)
        };
        let Some(outcome) = scene.send_short(port, &frame)? else {
            continue;
        };
        redirected += u32::from(outcome.action == Action::Redirect);
        check(&frame, &outcome, &mut clients).with_context(|| {
            format!(
                "seed {seed}, packet {case} on {}:\n in  {}\n out {}\n{:?} {:?}",
                port.name(),
                hex(&frame),
                hex(&outcome.frame),
                outcome.action,
                outcome.counts
            )
        })?;
        if case % CHECK_FLOWS_EVERY == 0 {
            scene
                .flows()
                .with_context(|| format!("seed {seed}, packet {case}"))?;
            let state = EdgeState::ALL[random.usize(..EdgeState::ALL.len())];
            let edge = ["edge-a", "edge-a6", "edge-b", "edge-b6"][random.usize(..4)];
            scene.set_edge(edge, state)?;
        }
    }
    // A test whose packets are all dropped would prove nothing.
    ensure!(redirected > cases / 20, "only {redirected} were sent on");
    Ok(())
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A packet that makes sense: of a client or an Edge, of a flow that exists or of none, or an error about one.
fn valid_packet(scene: &Scene<'_>, random: &mut Rng, case: u32) -> Result<(Port, Vec<u8>)> {
    let family = Family::BOTH[random.usize(..2)];
    let client = family.socket(partner(random.u8(..3)), 40_000 + random.u16(..8));
    let mut path = Path::usual(family).from(client);
    if random.bool() {
        path = path.to_second_service().to_edge_b();
    }
    // What the Edge sees is known from the tables only; they are read now and then.
    if case.is_multiple_of(16) {
        let flows = scene.flows()?;
        let all = [flows.half_open, flows.established].concat();
        if !all.is_empty() {
            let flow = &all[random.usize(..all.len())];
            path = Path {
                client: flow.client,
                service: flow.service,
                source: flow.source,
                edge: flow.edge,
                lan: if flow.edge.ip() == EDGE_A.v4 || flow.edge.ip() == EDGE_A.v6 {
                    Port::Lan0
                } else {
                    Port::Lan1
                },
            };
        }
    }
    let packet = match random.u8(..10) {
        0..3 => path.syn(),
        3 => path.handshake_ack(),
        4 => path.client_data(0, &vec![1; random.usize(..64)]),
        5 => path.syn_ack(),
        6 => path.edge_data(0, 0, &vec![2; random.usize(..64)]),
        7 => path.client_fin(0),
        8 => path.edge_fin(0, 0),
        _ => path
            .client_packet()
            .flags(random.u8(..0x40))
            .seq(random.u32(..)),
    };
    let port = if packet.source == path.edge {
        path.lan
    } else {
        Port::Wan0
    };
    if random.u8(..8) == 0 {
        return Ok(error_about(&path, random));
    }
    Ok((port, dressed(packet, random).frame()))
}

/// Tags, options, extension headers, few hops.
fn dressed(mut packet: Tcp, random: &mut Rng) -> Tcp {
    let tags: &[&[(u16, u16)]] = &[&[], &[], &[(0x8100, 7)], &[(0x88a8, 7), (0x8100, 8)]];
    packet.link.tags = tags[random.usize(..4)].to_vec();
    match (random.u8(..8), packet.source.is_ipv4()) {
        (0, true) => packet.ip_options(&[1; 8]),
        (0, false) => packet.extension(extension::DESTINATION, &[0, 1, 4, 0, 0, 0, 0]),
        (1, false) => packet.extension(extension::FRAGMENT, &[0, 0, 1, 0, 0, 0, 9]),
        (2, _) => packet.hops(random.u8(..3)),
        _ => packet,
    }
}

fn error_about(path: &Path, random: &mut Rng) -> (Port, Vec<u8>) {
    let quoted = [4, 8, 20, 40][random.usize(..4)];
    let (port, about, from) = if random.bool() {
        (
            path.lan,
            path.at_edge(&path.client_data(0, &[7; 40])),
            path.edge,
        )
    } else {
        (
            Port::Wan0,
            path.at_client(&path.edge_data(0, 0, &[7; 40])),
            path.client,
        )
    };
    let kinds: &[(u8, u8)] = if path.client.is_ipv4() {
        &[(3, 1), (3, 4), (11, 0), (12, 0), (0, 0), (5, 1)]
    } else {
        &[(1, 3), (2, 0), (3, 0), (4, 0), (129, 0), (137, 0)]
    };
    let icmp = Icmp {
        link: port.arriving(),
        source: from.ip(),
        destination: about.source.ip(),
        hops: 64,
        kind: kinds[random.usize(..kinds.len())],
        rest: [0; 4],
        body: about.quote(quoted),
    };
    (port, icmp.frame())
}

/// Damages a frame, in one to four ways.
fn gone_wrong(mut frame: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    for _ in 0..random.u8(1..5) {
        let at = random.usize(..frame.len());
        match random.u8(..7) {
            0 => frame[at] ^= 1 << random.u8(..8),
            1 => frame[at] = random.u8(..),
            2 => frame[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
            3 => frame.truncate(at.max(14)),
            4 => frame.extend(vec![random.u8(..); random.usize(..40)]),
            5 => {
                let bytes = address(random);
                let end = frame.len().min(at + bytes.len());
                frame[at..end].copy_from_slice(&bytes[..end - at]);
            }
            // The fields of the IP and TCP headers rather than anything.
            _ => {
                let at = random.usize(12..frame.len().clamp(13, 60));
                frame[at] = random.u8(..);
            }
        }
    }
    frame
}

/// An address that means something to the datapath; not an Edge's, or it would become a client, to whom packets may go.
fn address(random: &mut Rng) -> Vec<u8> {
    let hosts = [PARTNER, partner(1), partner(2), VIP_1, VIP_2];
    let Host { v4, v6 } = hosts[random.usize(..hosts.len())];
    if random.bool() {
        v4.octets().to_vec()
    } else {
        v6.octets().to_vec()
    }
}

/// The rules.
fn check(frame: &[u8], outcome: &Outcome, clients: &mut HashSet<IpAddr>) -> Result<()> {
    // A packet to a service may make a flow even if it is answered, or dropped for want of a way.
    if let Some((source, destination)) = addresses(frame)
        && (is(destination, VIP_1) || is(destination, VIP_2))
    {
        clients.insert(source);
    }
    match outcome.action {
        Action::Drop => return Ok(()),
        Action::Pass => {
            ensure!(outcome.frame == frame, "passed, and changed");
            return Ok(());
        }
        Action::Redirect => {}
    }
    let (source, destination) = addresses(frame).context("sent on, and no IP packet")?;
    let (out_source, out_destination) = addresses(&outcome.frame).context("sent as no IP")?;
    if outcome.counts.contains_key(Counter::Answered.name()) {
        ensure!(
            out_destination == source && out_source == destination,
            "an answer to somebody else"
        );
    } else if is(out_destination, EDGE_A) || is(out_destination, EDGE_B) {
        let vip = if is(out_destination, EDGE_A) {
            VIP_1
        } else {
            VIP_2
        };
        ensure!(is(destination, vip), "to another customer's Edge");
    } else {
        ensure!(
            clients.contains(&out_destination),
            "to {out_destination}, who is nobody's client"
        );
        // An ICMP error comes from any router, and an Edge may be one.
        let error = outcome.counts.contains_key(Counter::IcmpTranslated.name());
        let expected = match () {
            () if is(source, EDGE_A) => Some(VIP_1),
            () if is(source, EDGE_B) => Some(VIP_2),
            () => None,
        };
        ensure!(
            expected.is_some_and(|vip| is(out_source, vip)) || (error && out_source == source),
            "from {out_source}, who is not its service"
        );
    }
    if sums(frame) == Some(true) {
        ensure!(sums(&outcome.frame) == Some(true), "a wrong checksum");
    }
    Ok(())
}

fn is(address: IpAddr, host: Host) -> bool {
    address == host.v4 || address == host.v6
}

/// The addresses of the outermost IP header, behind at most two tags.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) && at < 20 {
        at += 4;
    }
    let ip = frame.get(at + 2..)?;
    Some(match frame.get(at..at + 2)? {
        [0x08, 0x00] => {
            let address = |at: usize| {
                let octets: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(Ipv4Addr::from(octets)))
            };
            (address(12)?, address(16)?)
        }
        [0x86, 0xdd] => {
            let address = |at: usize| {
                let octets: [u8; 16] = ip.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::from(Ipv6Addr::from(octets)))
            };
            (address(8)?, address(24)?)
        }
        _ => return None,
    })
}

/// Whether all checksums are right; `None` for what can't be parsed.
fn sums(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let net = packet.net?;
    let header = match &net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            header.header_checksum == header.calc_header_checksum()
        }
        _ => true,
    };
    let transport = match (&packet.transport?, &net) {
        (TransportSlice::Tcp(tcp), NetSlice::Ipv4(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            let sum = tcp
                .to_header()
                .calc_checksum_ipv4_raw(from, to, tcp.payload());
            sum.ok()? == tcp.checksum()
        }
        (TransportSlice::Tcp(tcp), NetSlice::Ipv6(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            let sum = tcp
                .to_header()
                .calc_checksum_ipv6_raw(from, to, tcp.payload());
            sum.ok()? == tcp.checksum()
        }
        (TransportSlice::Icmpv4(icmp), _) => {
            let mut header = icmp.header();
            header.update_checksum(icmp.payload());
            header.checksum == icmp.checksum()
        }
        (TransportSlice::Icmpv6(icmp), NetSlice::Ipv6(ip)) => {
            icmp.is_checksum_valid(ip.header().source(), ip.header().destination())
        }
        _ => return None,
    };
    Some(header && transport)
}
