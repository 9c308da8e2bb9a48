//! ICMP and ICMPv6 errors about a flow: whoever sent the packet must recognise it.

use std::net::IpAddr;

use sni_common::contract::{Counter, DropReason};
use snigate_tests::addresses::{EDGE_B, PARTNER};
use snigate_tests::packets::Icmp;
use snigate_tests::packets::frame::{Tcp, extension};
use snigate_tests::packets::plan::{Configuration, Family, Path, configuration};
use snigate_tests::packets::{
    Fate, NARROW_EDGE, Port, Row, Scene, Step, WAN_ROUTER, packet_table, packet_test,
};

use crate::checks::counted;
use crate::source::open;

/// A TCP header and more, as RFC 1812 and RFC 4443 ask for.
const WHOLE: usize = 40;
/// What RFC 792 promises.
const LEAST: usize = 8;

#[test]
fn errors_about_a_flow_are_translated() {
    let mut rows = Vec::new();
    for family in Family::BOTH {
        let path = Path::usual(family);
        let router = family.of(NARROW_EDGE);
        let wan_router = family.of(WAN_ROUTER);
        for (quoted, much) in [(WHOLE, "much"), (20, "a header"), (LEAST, "8 bytes")] {
            for kind in kinds(family) {
                let name = |who: &str| format!("{kind:?} from {who}, {much} quoted");
                rows.extend(
                    [
                        toward_client(
                            &name("a router before the Edge"),
                            path,
                            router,
                            kind,
                            quoted,
                        ),
                        toward_client(&name("the Edge"), path, path.edge.ip(), kind, quoted),
                        toward_edge(&name("the client's router"), path, wan_router, kind, quoted),
                        toward_edge(&name("the client"), path, path.client.ip(), kind, quoted),
                        about_half_open(&name("the Edge, half-open"), path, kind, quoted),
                    ]
                    .map(|row| row.named_for(family)),
                );
            }
        }
        rows.extend(
            [
                foreign(path),
                forged(path),
                other_protocol(path),
                out_of_hops(path),
                padded(path),
                tagged(path),
                wrapped(path),
                quoted_later_fragment(path),
            ]
            .map(|row| row.named_for(family)),
        );
    }
    packet_table("ICMP errors", rows);
}

/// Type, code, and the second word: unreachable, packet too big, time exceeded, parameter problem.
type Kind = (u8, u8, [u8; 4]);

fn kinds(family: Family) -> [Kind; 4] {
    match family {
        Family::V4 => [
            (3, 1, [0; 4]),
            (3, 4, [0, 0, 5, 0]),
            (11, 0, [0; 4]),
            (12, 0, [20, 0, 0, 0]),
        ],
        Family::V6 => [
            (1, 3, [0; 4]),
            (2, 0, [0, 0, 5, 0]),
            (3, 0, [0; 4]),
            (4, 0, [0, 0, 0, 6]),
        ],
    }
}

fn row(name: impl Into<String>) -> Row {
    Row::new(name, configuration(""))
}

/// An error about a packet as it was on its way, some routers later.
fn error(port: Port, source: IpAddr, about: &Tcp, kind: Kind, quoted: usize) -> Icmp {
    Icmp {
        link: port.arriving(),
        source,
        destination: about.source.ip(),
        hops: 61,
        kind: (kind.0, kind.1),
        rest: kind.2,
        body: about.clone().hops(1).quote(quoted),
    }
}

/// What the datapath must make of it: between these addresses, about this packet.
fn translated(
    error: &Icmp,
    port: Port,
    source: IpAddr,
    destination: IpAddr,
    about: &Tcp,
    quoted: usize,
) -> Icmp {
    let body = about.clone().hops(1).quote(quoted);
    error.forwarded(port.leaving(), source, destination, body)
}

fn sent_on(port: Port, error: &Icmp, out: &Icmp) -> Step {
    Step::new(port, error.frame(), Fate::Forwarded(out.frame())).counts(Counter::IcmpTranslated)
}

/// The client's packet, whose way ended before the Edge or at it.
fn toward_client(name: &str, path: Path, from: IpAddr, kind: Kind, quoted: usize) -> Row {
    row(format!("toward the client: {name}"))
        .steps(path.handshake())
        .step(error_to_client(path, from, kind, quoted).leaves(counted(1, 0)))
}

fn error_to_client(path: Path, from: IpAddr, kind: Kind, quoted: usize) -> Step {
    let sent = path.client_data(0, &[7; 60]);
    let error = error(path.lan, from, &path.at_edge(&sent), kind, quoted);
    let source = if from == path.edge.ip() {
        path.service.ip()
    } else {
        from
    };
    let out = translated(&error, Port::Wan0, source, path.client.ip(), &sent, quoted);
    sent_on(path.lan, &error, &out)
}

fn toward_edge(name: &str, path: Path, from: IpAddr, kind: Kind, quoted: usize) -> Row {
    row(format!("toward the Edge: {name}"))
        .steps(path.handshake())
        .step(error_to_edge(path, from, kind, quoted).leaves(counted(1, 0)))
}

fn error_to_edge(path: Path, from: IpAddr, kind: Kind, quoted: usize) -> Step {
    let sent = path.edge_data(0, 0, &[7; 60]);
    let error = error(Port::Wan0, from, &path.at_client(&sent), kind, quoted);
    let source = if from == path.client.ip() {
        path.source.ip()
    } else {
        from
    };
    let out = translated(&error, path.lan, source, path.edge.ip(), &sent, quoted);
    sent_on(Port::Wan0, &error, &out)
}

fn about_half_open(name: &str, path: Path, kind: Kind, quoted: usize) -> Row {
    let sent = path.syn();
    let error = error(path.lan, path.edge.ip(), &path.at_edge(&sent), kind, quoted);
    let out = translated(
        &error,
        Port::Wan0,
        path.service.ip(),
        path.client.ip(),
        &sent,
        quoted,
    );
    row(format!("toward the client: {name}"))
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(sent_on(path.lan, &error, &out).leaves(counted(0, 1)))
}

fn untouched(port: Port, error: &Icmp) -> Step {
    Step::untouched(port, error.frame(), Counter::Passed)
}

fn foreign(path: Path) -> Row {
    let kind = kinds(family(path))[0];
    let mut other = path.at_edge(&path.client_data(0, b""));
    other.source.set_port(1234);
    row("an error about nobody's packet")
        .steps(path.handshake())
        .step(untouched(
            path.lan,
            &error(path.lan, path.edge.ip(), &other, kind, WHOLE),
        ))
}

/// An error goes to the sender of what it quotes.
fn forged(path: Path) -> Row {
    let kind = kinds(family(path))[0];
    let sent = path.at_edge(&path.client_data(0, b""));
    let mut error = error(path.lan, path.edge.ip(), &sent, kind, WHOLE);
    error.destination = family(path).of(EDGE_B);
    row("an error to somebody who did not send the packet")
        .steps(path.handshake())
        .step(untouched(path.lan, &error))
}

fn other_protocol(path: Path) -> Row {
    let kind = kinds(family(path))[0];
    let sent = path.at_edge(&path.client_data(0, b""));
    let mut error = error(path.lan, path.edge.ip(), &sent, kind, WHOLE);
    // UDP between the same ports.
    error.body[if path.edge.is_ipv4() { 9 } else { 6 }] = 17;
    row("an error about UDP")
        .steps(path.handshake())
        .step(untouched(path.lan, &error))
}

/// No error about an error (RFC 1122, 3.2.2; RFC 4443, 2.4).
fn out_of_hops(path: Path) -> Row {
    let kind = kinds(family(path))[0];
    let sent = path.at_edge(&path.client_data(0, b""));
    let mut error = error(path.lan, path.edge.ip(), &sent, kind, WHOLE);
    error.hops = 1;
    row("an error that has run out of hops")
        .steps(path.handshake())
        .step(Step::new(
            path.lan,
            error.frame(),
            Fate::Dropped(DropReason::TtlExpired),
        ))
}

/// What is behind the IP packet is not the quoted packet's.
fn padded(path: Path) -> Row {
    let kind = kinds(family(path))[0];
    let sent = path.client_data(0, b"");
    let error = error(path.lan, path.edge.ip(), &path.at_edge(&sent), kind, LEAST);
    let out = translated(
        &error,
        Port::Wan0,
        path.service.ip(),
        path.client.ip(),
        &sent,
        LEAST,
    );
    let padding = [0xa5; 20];
    row("a padded error").steps(path.handshake()).step(
        Step::new(
            path.lan,
            [&error.frame()[..], &padding].concat(),
            Fate::Forwarded([&out.frame()[..], &padding].concat()),
        )
        .counts(Counter::IcmpTranslated),
    )
}

fn tagged(path: Path) -> Row {
    let kind = kinds(family(path))[1];
    let sent = path.client_data(0, b"");
    let mut error = error(path.lan, path.edge.ip(), &path.at_edge(&sent), kind, WHOLE);
    let out = translated(
        &error,
        Port::Wan0,
        path.service.ip(),
        path.client.ip(),
        &sent,
        WHOLE,
    );
    error.link.tags = vec![(0x88a8, 7), (0x8100, 8)];
    row("an error behind two VLAN tags")
        .steps(path.handshake())
        .step(sent_on(path.lan, &error, &out))
}

/// The quoted packet has options or extension headers.
fn wrapped(path: Path) -> Row {
    let kind = kinds(family(path))[1];
    let plain = path.client_data(0, &[7; 60]);
    let sent = if path.client.is_ipv4() {
        plain.ip_options(&[1; 12])
    } else {
        plain.extension(extension::DESTINATION, &[0, 1, 4, 0, 0, 0, 0])
    };
    let error = error(path.lan, path.edge.ip(), &path.at_edge(&sent), kind, WHOLE);
    let out = translated(
        &error,
        Port::Wan0,
        path.service.ip(),
        path.client.ip(),
        &sent,
        WHOLE,
    );
    row("an error about a packet with options")
        .steps(path.handshake())
        .step(sent_on(path.lan, &error, &out))
}

/// A later fragment has no ports.
fn quoted_later_fragment(path: Path) -> Row {
    let kind = kinds(family(path))[0];
    let sent = path.at_edge(&path.client_data(0, &[7; 60]));
    let mut error = error(path.lan, path.edge.ip(), &sent, kind, WHOLE);
    if path.client.is_ipv4() {
        error.body[6..8].copy_from_slice(&[0, 8]);
    } else {
        error.body[6] = extension::FRAGMENT;
    }
    row("an error about a later fragment")
        .steps(path.handshake())
        .step(untouched(path.lan, &error))
}

fn family(path: Path) -> Family {
    if path.client.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// With an address and port of the gateway's own toward the Edge, the client's are to be put back into the quote.
#[test]
fn errors_about_a_flow_of_the_gateways_own_address() {
    packet_test("ICMP errors, source = gateway", |rig| {
        for family in Family::BOTH {
            let name = format!("ICMP, gateway, {}", family.name());
            let mut scene = Scene::new(rig, &name, 8)?;
            let gateway = Configuration {
                source: "gateway",
                ..Configuration::default()
            };
            scene.configure(&gateway.render(""))?;
            let path = open(&mut scene, Path::usual(family))?;
            path.down(&path.syn_ack()).run(&mut scene)?;
            path.up(&path.handshake_ack())
                .counts(Counter::Opened)
                .run(&mut scene)?;
            for kind in kinds(family) {
                for quoted in [WHOLE, LEAST] {
                    let router = family.of(NARROW_EDGE);
                    for from in [path.edge.ip(), router] {
                        error_to_client(path, from, kind, quoted).run(&mut scene)?;
                    }
                    for from in [path.client.ip(), family.of(WAN_ROUTER)] {
                        error_to_edge(path, from, kind, quoted).run(&mut scene)?;
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn errors_do_not_leak_between_address_sets() {
    // Two services whose Edge is the same: the error's flow decides which VIP the client sees.
    let rows = Family::BOTH.into_iter().map(|family| {
        let first = Path::usual(family).from(family.socket(PARTNER, 40_001));
        let second = Path::usual(family)
            .from(family.socket(PARTNER, 40_002))
            .to_second_service();
        let kind = kinds(family)[1];
        Row::new(
            "two services, one Edge",
            Configuration::default().render(""),
        )
        .named_for(family)
        .steps(first.handshake())
        .steps(second.handshake())
        .steps([first, second].map(|path| error_to_client(path, path.edge.ip(), kind, WHOLE)))
        .steps([first, second].map(|path| error_to_edge(path, path.client.ip(), kind, LEAST)))
    });
    packet_table("ICMP errors and services", rows.collect());
}
