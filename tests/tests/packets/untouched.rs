//! Whatever is not the business of a service or flow reaches the host as it came.

use etherparse::{EtherType, IpNumber};
use sni_common::contract::Counter;
use snigate_tests::addresses::{EDGE_A, PARTNER, VIP_1};
use snigate_tests::packets::Icmp;
use snigate_tests::packets::frame::{Link, SYN, Tcp, ether_type, extension, ipv4, ipv6};
use snigate_tests::packets::plan::{Family, Path, configuration};
use snigate_tests::packets::{Port, Row, Step, packet_table};

use crate::checks::no_flows;

#[test]
fn foreign_packets_are_untouched() {
    let mut rows = vec![arp(), ethernet_alone(), three_tags(), to_everybody()];
    for family in Family::BOTH {
        let path = Path::usual(family);
        rows.extend(
            [
                other_address(path),
                other_port(path),
                from_an_edges_port(path),
                udp(family),
                echo(family),
                before_configuration(path),
            ]
            .map(|row| row.named_for(family)),
        );
    }
    rows.extend([fragments_v4(), fragments_v6(), mapped_addresses()]);
    packet_table("untouched", rows);
}

fn row(name: &str) -> Row {
    Row::new(name, configuration(""))
}

fn passed(frame: Vec<u8>) -> Step {
    counted(frame, Counter::Passed)
}

fn counted(frame: Vec<u8>, counter: Counter) -> Step {
    Step::untouched(Port::Wan0, frame, counter)
        .tells(&[])
        .leaves(no_flows)
}

fn arp() -> Row {
    let link = Link {
        destination: [0xff; 6],
        ..Port::Wan0.arriving()
    };
    let request = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &link.source,
        &PARTNER.v4.octets(),
        &[0; 6],
        &VIP_1.v4.octets(),
    ]
    .concat();
    row("ARP").steps([
        passed(link.frame(EtherType::ARP, &request)),
        passed(
            Link {
                tags: vec![(0x8100, 100)],
                ..link
            }
            .frame(EtherType::ARP, &request),
        ),
    ])
}

fn ethernet_alone() -> Row {
    let link = Port::Wan0.arriving();
    row("frames that end with their Ethernet header").steps([
        counted(link.frame(EtherType::IPV4, &[]), Counter::Unparsed),
        counted(link.frame(EtherType::IPV6, &[]), Counter::Unparsed),
        passed(link.frame(EtherType(0x88cc), &[])),
    ])
}

fn three_tags() -> Row {
    let path = Path::usual(Family::V4);
    let syn = path.syn().tags(&[(0x88a8, 1), (0x8100, 2), (0x8100, 3)]);
    row("three VLAN tags").step(passed(syn.frame()))
}

/// Nobody sends TCP to everybody.
fn to_everybody() -> Row {
    let to = |destination| {
        let link = Link {
            destination,
            ..Port::Wan0.arriving()
        };
        passed(Path::usual(Family::V4).syn().on(link).frame())
    };
    row("broadcast and multicast frames").steps([
        to([0xff; 6]),
        to([0x01, 0x00, 0x5e, 0x33, 0x64, 0x0a]),
        to([0x33, 0x33, 0, 0, 0, 1]),
    ])
}

fn other_address(path: Path) -> Row {
    let edge = path.edge.ip();
    let tcp = |destination| {
        Tcp::new(Port::Wan0.arriving(), path.client, destination)
            .flags(SYN)
            .frame()
    };
    let mut direct = path.service;
    direct.set_ip(edge);
    row("the service's port on an address that is none of ours").step(passed(tcp(direct)))
}

fn other_port(path: Path) -> Row {
    let mut rest = Vec::new();
    for port in [443, 22, 5060, 5062] {
        let mut destination = path.service;
        destination.set_port(port);
        let packet = Tcp::new(Port::Wan0.arriving(), path.client, destination);
        rest.push(passed(packet.clone().flags(SYN).frame()));
        rest.push(passed(packet.ack(7).data(b"hello").frame()));
    }
    row("other ports of a VIP").steps(rest)
}

/// The Edge's own connections, and answers of its port to somebody who asked it directly.
fn from_an_edges_port(path: Path) -> Row {
    let answer = path.edge_packet().flags(SYN).ack(1).frame();
    row("packets from an Edge's port that belong to no flow")
        .step(Step::untouched(Port::Lan0, answer, Counter::Passed).leaves(no_flows))
}

fn udp(family: Family) -> Row {
    // 5061 to 5061, eight bytes of header, no checksum: nobody looks at it.
    let datagram = [0x13, 0xc5, 0x13, 0xc5, 0, 12, 0, 0, 1, 2, 3, 4];
    let frame = network(family, IpNumber::UDP, &datagram);
    row("UDP to the service's port").step(passed(frame))
}

fn echo(family: Family) -> Row {
    let kind = if family == Family::V4 {
        (8, 0)
    } else {
        (128, 0)
    };
    let request = Icmp {
        link: Port::Wan0.arriving(),
        source: family.of(PARTNER),
        destination: family.of(VIP_1),
        hops: 64,
        kind,
        rest: [0, 7, 0, 1],
        body: b"ping".to_vec(),
    };
    row("an echo request").step(passed(request.frame()))
}

fn before_configuration(path: Path) -> Row {
    let syn = path.syn();
    row("everything, while no configuration is active")
        .step(passed(syn.frame()).after_change(|scene| scene.deactivate()))
}

fn network(family: Family, protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
    let link = Port::Wan0.arriving();
    let header = match family {
        Family::V4 => ipv4(
            PARTNER.v4.octets(),
            VIP_1.v4.octets(),
            protocol,
            64,
            &[],
            payload.len(),
        )
        .to_bytes()
        .to_vec(),
        Family::V6 => ipv6(
            PARTNER.v6.octets(),
            VIP_1.v6.octets(),
            protocol,
            64,
            payload.len(),
        )
        .to_bytes()
        .to_vec(),
    };
    link.frame(
        ether_type(&family.of(PARTNER)),
        &[header, payload.to_vec()].concat(),
    )
}

/// Flags and offset of an IPv4 header; its checksum is left as it is, the datapath does not look at it.
fn fragment(mut frame: Vec<u8>, flags_and_offset: u16) -> Vec<u8> {
    frame[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
    frame
}

fn fragments_v4() -> Row {
    let path = Path::usual(Family::V4);
    let data = path.client_data(0, b"part of a segment");
    let elsewhere = Tcp {
        destination: Family::V4.socket(EDGE_A, 5061),
        ..data.clone()
    };
    let of_vip = |bits| {
        Step::untouched(Port::Wan0, fragment(data.frame(), bits), Counter::Fragments)
            .leaves(crate::checks::counted(1, 0))
    };
    row("IPv4 fragments, first, middle and last, also of a known flow")
        .steps(path.handshake())
        .steps([of_vip(0x2000), of_vip(0x2010), of_vip(0x0020)])
        .step(Step::untouched(
            Port::Wan0,
            fragment(elsewhere.frame(), 0x2000),
            Counter::Passed,
        ))
}

fn fragments_v6() -> Row {
    let path = Path::usual(Family::V6);
    let data = path.client_data(0, b"part of a segment");
    let with = |offset: u16| {
        let [high, low] = offset.to_be_bytes();
        let rest = [0, high, low, 0, 0, 0, 1];
        data.clone().extension(extension::FRAGMENT, &rest)
    };
    let behind_options = data
        .clone()
        .extension(extension::HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0])
        .extension(extension::FRAGMENT, &[0, 0, 1, 0, 0, 0, 1]);
    let elsewhere = Tcp {
        destination: Family::V6.socket(EDGE_A, 5061),
        ..with(1)
    };
    let of_vip = |packet: &Tcp| {
        Step::untouched(Port::Wan0, packet.frame(), Counter::Fragments)
            .leaves(crate::checks::counted(1, 0))
    };
    row("IPv6 fragments, first, last and atomic, also of a known flow")
        .steps(path.handshake())
        .steps([with(1), with(0x80), with(0), behind_options].map(|packet| of_vip(&packet)))
        .step(Step::untouched(
            Port::Wan0,
            elsewhere.frame(),
            Counter::Passed,
        ))
}

/// On the wire they would be mistaken for IPv4 (RFC 4942, 2.2).
fn mapped_addresses() -> Row {
    let path = Path::usual(Family::V6);
    let mapped = |address: std::net::Ipv4Addr, port| (address.to_ipv6_mapped(), port).into();
    let source = Tcp {
        source: mapped(PARTNER.v4, 40_000),
        ..path.syn()
    };
    let destination = Tcp {
        destination: mapped(VIP_1.v4, 5061),
        ..path.syn()
    };
    let both = Tcp {
        source: source.source,
        ..destination.clone()
    };
    row("IPv4-mapped addresses in IPv6")
        .steps([source, destination, both].map(|packet| counted(packet.frame(), Counter::Unparsed)))
}
