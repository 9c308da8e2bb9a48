//! The same flow in every wrapping: VLAN tags, options, extension headers, padding.

use sni_common::contract::{Counter, DropReason, Link as VlanLink, VlanTag};
use snigate_tests::packets::frame::{Tcp, extension, reset_of};
use snigate_tests::packets::plan::{Configuration, EDGE_ISN, Family, Path, configuration};
use snigate_tests::packets::{
    Fate, Port, Row, Scene, Step, UNKNOWN_PARTNER, VLAN_EDGE, packet_table,
};

use crate::checks::{counted, no_flows};

const ONE_TAG: &[(u16, u16)] = &[(0x8100, 0x2064)];
const TWO_TAGS: &[(u16, u16)] = &[(0x88a8, 0x0032), (0x8100, 0x6064)];
const NONE: &[(u16, u16)] = &[];

#[test]
fn vlan_tags() {
    let mut rows = Vec::new();
    for family in Family::BOTH {
        for (name, tags) in [("one tag", ONE_TAG), ("two tags", TWO_TAGS)] {
            let path = Path::usual(family);
            rows.extend(
                [
                    from_a_vlan(name, path, tags),
                    into_a_vlan(name, path, NONE, tags),
                    into_a_vlan(name, path, ONE_TAG, tags),
                    into_a_vlan(name, path, TWO_TAGS, tags),
                    back_by_the_last_hop(name, path, tags),
                    reset_in_a_vlan(name, path, tags),
                ]
                .map(|row| row.named_for(family)),
            );
        }
    }
    packet_table("VLAN tags", rows);
}

fn row(name: String) -> Row {
    Row::new(name, configuration(""))
}

/// The client's frames are tagged, and the host routes both ways without tags.
fn from_a_vlan(name: &str, path: Path, tags: &[(u16, u16)]) -> Row {
    let up = |packet: Tcp| {
        let out = path.at_edge(&packet);
        Step::forwarded(Port::Wan0, &packet.tags(tags), &out)
    };
    row(format!("from a VLAN, {name}"))
        .step(up(path.syn()).counts(Counter::Steered))
        .step(path.down(&path.syn_ack()))
        .step(up(path.handshake_ack()).counts(Counter::Opened))
        .step(up(path.client_data(0, b"data")))
        .step(path.down(&path.edge_data(0, 4, b"answer")))
}

/// The Edge is on a VLAN interface: what goes there gets its tags, whatever it came with.
fn into_a_vlan(name: &str, path: Path, before: &[(u16, u16)], tags: &'static [(u16, u16)]) -> Row {
    let path = path.to_edge(VLAN_EDGE, Port::Vlan0);
    let edges = Configuration {
        edges: &[("edge-v", VLAN_EDGE)],
        ..Configuration::default()
    };
    let up = |packet: Tcp| {
        let out = path.at_edge(&packet).tags(tags);
        Step::forwarded(Port::Wan0, &packet.tags(before), &out)
    };
    // Answers come in on the interface below.
    let down = |packet: Tcp| {
        let out = path.at_client(&packet);
        Step::forwarded(Port::Lan0, &packet.tags(tags), &out)
    };
    Row::new(
        format!("into a VLAN, {name}, from {}", before.len()),
        edges.render(""),
    )
    .setup(move |scene| link_vlan(scene, tags))
    .step(up(path.syn()).counts(Counter::Steered))
    .step(down(path.syn_ack()))
    .step(up(path.handshake_ack()).counts(Counter::Opened))
    .step(up(path.client_data(0, b"data")))
    .step(down(path.edge_data(0, 4, b"answer")))
}

pub(crate) fn link_vlan(scene: &mut Scene<'_>, tags: &[(u16, u16)]) -> anyhow::Result<()> {
    let mut link = VlanLink {
        ifindex: scene.rig().index(Port::Lan0),
        ..VlanLink::default()
    };
    for (tag, (protocol, control)) in link.tags.iter_mut().zip(tags) {
        *tag = VlanTag {
            protocol_be: protocol.to_be(),
            control_be: control.to_be(),
        };
    }
    let index = scene.rig().index(Port::Vlan0);
    scene.datapath().maps.links.insert(index, link, 0)?;
    Ok(())
}

/// A client that the neighbour table does not know is answered the way its frames came, tags included.
fn back_by_the_last_hop(name: &str, path: Path, tags: &[(u16, u16)]) -> Row {
    let family = if path.client.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let path = path.from(family.socket(UNKNOWN_PARTNER, 40_000));
    let syn = path.syn();
    let out = path.at_edge(&syn);
    let answer = path.syn_ack();
    let back = path.at_client(&answer).tags(tags);
    row(format!("back into a VLAN by the last hop, {name}"))
        .step(Step::forwarded(Port::Wan0, &syn.tags(tags), &out).counts(Counter::Steered))
        .step(Step::forwarded(Port::Lan0, &answer, &back).counts(Counter::StaleNextHops))
}

fn reset_in_a_vlan(name: &str, path: Path, tags: &[(u16, u16)]) -> Row {
    let edges = Configuration {
        source: "gateway",
        ..Configuration::default()
    };
    let packet = path.client_data(0, b"of a flow long gone").tags(tags);
    let answer = reset_of(&packet);
    Row::new(format!("reset in a VLAN, {name}"), edges.render("")).step(
        Step::answered(
            Port::Wan0,
            &packet,
            answer.frame(),
            DropReason::Unrecoverable,
        )
        .leaves(no_flows),
    )
}

#[test]
fn options_and_extension_headers() {
    let mut rows = vec![
        wrapped(
            "4 bytes of IPv4 options",
            |p| p.ip_options(&[1, 1, 1, 0]),
            Family::V4,
        ),
        wrapped(
            "40 bytes of IPv4 options",
            |p| p.ip_options(&[1; 40]),
            Family::V4,
        ),
    ];
    let v6 = |name, wrap: fn(Tcp) -> Tcp| wrapped(name, wrap, Family::V6);
    rows.extend([
        v6("hop-by-hop options", |p| {
            p.extension(extension::HOP_BY_HOP, &PADDING)
        }),
        v6("destination options", |p| {
            p.extension(extension::DESTINATION, &PADDING)
        }),
        v6("a routing header with nothing left", |p| {
            p.extension(extension::ROUTING, &routing(0))
        }),
        v6("four extension headers", |p| {
            p.extension(extension::HOP_BY_HOP, &PADDING)
                .extension(extension::DESTINATION, &PADDING)
                .extension(extension::ROUTING, &routing(0))
                .extension(extension::DESTINATION, &PADDING)
        }),
        v6("a long extension header", |p| {
            p.extension(extension::DESTINATION, &padding(440))
        }),
        wrapped("TCP options", |p| p.options(&[1; 40]), Family::V4),
        wrapped("TCP options", |p| p.options(&[1; 40]), Family::V6),
    ]);
    let beyond = |name: &str, wrap: fn(Tcp) -> Tcp| {
        let packet = wrap(Path::usual(Family::V6).syn());
        row(format!("IPv6, {name}"))
            .step(Step::untouched(Port::Wan0, packet.frame(), Counter::Unparsed).leaves(no_flows))
    };
    rows.extend([
        beyond("a routing header with a segment left", |p| {
            p.extension(extension::ROUTING, &routing(1))
        }),
        beyond("five extension headers", |p| {
            (0..5).fold(p, |p, _| p.extension(extension::DESTINATION, &PADDING))
        }),
        beyond("an extension header that is too long", |p| {
            p.extension(extension::DESTINATION, &padding(464))
        }),
    ]);
    packet_table("options", rows);
}

/// An extension header of eight bytes without its first: length 0, PadN of four.
const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

/// An extension header of `length` bytes, but for the first: only padding.
fn padding(length: usize) -> Vec<u8> {
    let mut rest = vec![0; length - 1];
    rest[0] = (length / 8 - 1) as u8;
    // PadN takes 257 bytes at most; Pad1 is a single zero, as many as one likes.
    rest
}

/// A routing header without its first byte.
fn routing(segments_left: u8) -> [u8; 7] {
    [0, 4, segments_left, 0, 0, 0, 0]
}

/// A flow whose packets are all wrapped the same way.
fn wrapped(name: &str, wrap: fn(Tcp) -> Tcp, family: Family) -> Row {
    let path = Path::usual(family);
    let up = |packet: Tcp| path.up(&wrap(packet));
    let down = |packet: Tcp| path.down(&wrap(packet));
    row(format!("{}, {name}", family.name()))
        .step(up(path.syn()).counts(Counter::Steered))
        .step(down(path.syn_ack()))
        .step(up(path.handshake_ack()).counts(Counter::Opened))
        .step(up(path.client_data(0, b"odd")))
        .step(down(path.edge_data(0, 3, b"even")).leaves(counted(1, 0)))
}

#[test]
fn padding_checksums_and_sizes() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        let path = Path::usual(family);
        [
            padded(path),
            padded_reset(path),
            corrupted(path),
            data_in_the_syn(path),
            two_buffers(path),
            wrapped("hops 255", |p| p.hops(255), family),
            wrapped("hops 2", |p| p.hops(2), family),
        ]
        .map(|row| row.named_for(family))
    });
    packet_table("padding", rows.collect());
}

fn with_padding(packet: &Tcp) -> Vec<u8> {
    [packet.frame(), vec![0xa5; 6]].concat()
}

/// An ACK is shorter than an Ethernet frame may be; what is behind it is not its own.
fn padded(path: Path) -> Row {
    let data = path.client_data(0, b"x");
    row("a padded frame".into())
        .steps(path.handshake())
        .step(Step::new(
            Port::Wan0,
            with_padding(&data),
            Fate::Forwarded(with_padding(&path.at_edge(&data))),
        ))
        .step(path.down(&path.edge_data(0, 1, b"y")).leaves(|flows| {
            let next = snigate_tests::packets::plan::CLIENT_ISN.wrapping_add(2);
            anyhow::ensure!(flows.established[0].to_edge.next_seq == next);
            Ok(())
        }))
}

fn padded_reset(path: Path) -> Row {
    let edges = Configuration {
        source: "gateway",
        ..Configuration::default()
    };
    let packet = path.client_packet().seq(1).ack(2);
    Row::new("a reset for a padded frame", edges.render("")).step(Step::new(
        Port::Wan0,
        with_padding(&packet),
        Fate::Answered(reset_of(&packet).frame(), DropReason::Unrecoverable),
    ))
}

/// Damage that happened before the gateway must not look like a good packet behind it.
fn corrupted(path: Path) -> Row {
    let errors = [1, 0x1234, 0x8000, 0xfffe];
    row("a wrong checksum leaves equally wrong".into())
        .steps(path.handshake())
        .steps(errors.map(|error| path.up(&path.client_data(0, b"damaged").checksum_error(error))))
        .steps(
            errors.map(|error| path.down(&path.edge_data(0, 0, b"damaged").checksum_error(error))),
        )
}

/// TCP Fast Open (RFC 7413).
fn data_in_the_syn(path: Path) -> Row {
    let syn = path.syn().data(b"early");
    let acked = path.syn_ack().ack(syn.seq.wrapping_add(6));
    let ack = path
        .client_packet()
        .seq(syn.seq.wrapping_add(6))
        .ack(EDGE_ISN + 1);
    row("data in the SYN".into())
        .step(path.up(&syn).counts(Counter::Steered))
        .step(path.down(&acked))
        .step(path.up(&ack).counts(Counter::Opened))
}

/// The driver may hand a packet over in several buffers; only headers are looked at, and those must be in the first.
fn two_buffers(path: Path) -> Row {
    let data = path.client_data(0, &[0x5a; 600]);
    let headers = data.frame().len() - 600;
    row("a packet in two buffers".into())
        .steps(path.handshake())
        .step(path.up(&data).split_at(headers))
        .step(path.up(&data).split_at(headers + 100))
        .step(Step::dropped(Port::Wan0, &data, DropReason::Segmented).split_at(headers - 1))
        .step(Step::untouched(Port::Wan0, data.frame(), Counter::Unparsed).split_at(headers - 20))
}
