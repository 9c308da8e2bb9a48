//! Services where the ClientHello decides: the host's packets, but what opens a connection is admitted like a steered one.

use sni_common::contract::{Counter, DropReason};
use snigate_tests::addresses::{PARTNER, VIP_1};
use snigate_tests::packets::frame::{ACK, FIN, RST, SYN, Tcp};
use snigate_tests::packets::plan::{Configuration, Family, Path};
use snigate_tests::packets::{FAR_PARTNER, Port, Row, Step, packet_table};

use crate::checks::no_flows;

/// The usual configuration, with the first VIP inspected.
pub(crate) fn inspected(more: &str) -> String {
    let text = Configuration::default().render(more);
    text.replace("steer = \"pool-1\"", "inspect = true")
}

fn handed_over(packet: &Tcp) -> Step {
    Step::untouched(Port::Wan0, packet.frame(), Counter::Inspected).leaves(no_flows)
}

fn refused(packet: &Tcp, reason: DropReason) -> Step {
    Step::dropped(Port::Wan0, packet, reason).leaves(no_flows)
}

#[test]
fn inspected_connections_are_admitted() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        [
            everything(family),
            denied(family),
            budget(family),
            exempt(family),
            beside_steering(family),
        ]
        .map(|row| row.named_for(family))
    });
    packet_table("inspected services", rows.collect());
}

fn everything(family: Family) -> Row {
    let path = Path::usual(family);
    let mut malformed = path.syn().frame();
    let offset = malformed.len() - 40 + 12;
    // A data offset beyond the packet.
    malformed[offset] = 0xf0;
    let with = |flags| path.client_packet().flags(flags);
    Row::new("handed to the host whatever it is", inspected(""))
        .steps(
            [
                path.syn(),
                path.handshake_ack(),
                path.client_data(0, b"hello"),
                path.client_fin(5),
                with(RST),
                // Not ours to judge: no Edge sees it.
                with(SYN | FIN),
                with(SYN | ACK),
            ]
            .map(|packet| handed_over(&packet)),
        )
        .step(Step::untouched(Port::Wan0, malformed, Counter::Inspected))
        .step(Step::untouched(
            Port::Wan0,
            cut_after_ports(&path.syn()),
            Counter::Inspected,
        ))
}

/// A frame that ends with the TCP ports.
fn cut_after_ports(packet: &Tcp) -> Vec<u8> {
    let mut frame = packet.frame();
    // 20 bytes of options, 20 of header.
    frame.truncate(frame.len() - 40 + 4);
    frame
}

fn denied(family: Family) -> Row {
    let path = Path::usual(family);
    let deny = "[limits]\ndeny = [\"198.51.100.0/24\", \"2001:db8:1::/64\"]\n";
    let other = path.from(family.socket(FAR_PARTNER, 40_000));
    Row::new("a denied prefix opens nothing", inspected(deny))
        .step(refused(&path.syn(), DropReason::Denied))
        // What the host has accepted before goes on.
        .step(handed_over(&path.client_data(0, b"hello")))
        .step(handed_over(&other.syn()))
}

fn budget(family: Family) -> Row {
    let from = |host, port| Path::usual(family).from(family.socket(host, port));
    let rate = "[limits]\nsyn_per_source = \"2/s\"\n";
    Row::new("SYNs have a budget, and nothing else", inspected(rate))
        .step(handed_over(&from(PARTNER, 40_000).syn()))
        .step(handed_over(&from(PARTNER, 40_001).syn()))
        .step(refused(&from(PARTNER, 40_002).syn(), DropReason::SynBudget))
        .step(handed_over(&from(PARTNER, 40_000).handshake_ack()))
        .step(handed_over(&from(PARTNER, 40_000).client_data(0, b"x")))
        .step(handed_over(&from(FAR_PARTNER, 40_000).syn()))
}

fn exempt(family: Family) -> Row {
    let path = |port| Path::usual(family).from(family.socket(PARTNER, port));
    let limits = "[limits]\nsyn_per_source = \"2/s\"\n\
                  deny = [\"0.0.0.0/0\", \"::/0\"]\nallow = [\"198.51.100.0/24\", \"2001:db8:1::/64\"]\n";
    Row::new("an allowed prefix has no budget", inspected(limits))
        .steps((40_000..40_008).map(|port| handed_over(&path(port).syn())))
}

/// One budget for both: it is the source's.
fn beside_steering(family: Family) -> Row {
    let path = Path::usual(family);
    let steered = path.to_second_service();
    let mut other_port = path.syn();
    other_port.destination = family.socket(VIP_1, 443);
    Row::new(
        "steering beside it goes on, at one budget",
        inspected("[limits]\nsyn_per_source = \"2/s\"\n"),
    )
    .step(handed_over(&path.syn()))
    .step(steered.up(&steered.syn()).counts(Counter::Steered))
    .step(Step::dropped(
        Port::Wan0,
        &path.syn(),
        DropReason::SynBudget,
    ))
    .step(steered.down(&steered.syn_ack()))
    .step(steered.up(&steered.handshake_ack()).counts(Counter::Opened))
    .step(Step::untouched(
        Port::Wan0,
        other_port.frame(),
        Counter::Passed,
    ))
}
