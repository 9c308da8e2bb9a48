//! RST, and a client's port used again.

use sni_common::contract::{Counter, DropReason, EventKind};
use sni_common::tcp::state;
use snigate_tests::packets::frame::{ACK, RST, SYN};
use snigate_tests::packets::plan::{CLIENT_ISN, EDGE_ISN, Family, Path, configuration};
use snigate_tests::packets::{Port, Row, Step, packet_table};

use crate::checks::{counted, no_flows, states};

const CLIENT_NEXT: u32 = CLIENT_ISN.wrapping_add(1);
const EDGE_NEXT: u32 = EDGE_ISN + 1;

#[test]
fn resets_and_ports_used_again() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        let path = Path::usual(family);
        [
            reset_by_client(path),
            reset_by_edge(path),
            blind_reset(path),
            reset_with_data_in_flight(path),
            refused(path),
            given_up(path),
            reset_without_flow(path),
            again_after_fin(path),
            again_after_reset(path),
            again_in_mid_flow(path),
            repeated_syn(path),
            restarted_syn(path),
            fin_with_the_last_handshake_ack(path),
            repeated_syn_ack(path),
            traffic_clears_the_mark(path),
            forged_data_helps_no_reset(path),
            forged_fin(path),
            forged_syn_ack(path),
            stray_reset_of_a_half_open_flow(path),
        ]
        .map(|row| row.named_for(family))
    });
    packet_table("resets", rows.collect());
}

fn row(name: &str) -> Row {
    Row::new(name, configuration(""))
}

fn reset_by_client(path: Path) -> Row {
    let rst = path.client_packet().flags(RST).seq(CLIENT_NEXT);
    row("the client resets").steps(path.handshake()).step(
        path.up(&rst)
            .tells(&[EventKind::FlowClosing])
            .leaves(states(state::RST, state::SYN_ACKED)),
    )
}

fn reset_by_edge(path: Path) -> Row {
    let rst = path
        .edge_packet()
        .flags(RST)
        .seq(EDGE_NEXT)
        .ack(CLIENT_NEXT);
    row("the Edge resets").steps(path.handshake()).step(
        path.down(&rst)
            .tells(&[EventKind::FlowClosing])
            .leaves(states(0, state::SYN_ACKED | state::RST)),
    )
}

fn blind_reset(path: Path) -> Row {
    let client = path
        .client_packet()
        .flags(RST)
        .seq(CLIENT_NEXT.wrapping_add(1000));
    let edge = path.edge_packet().flags(RST).seq(EDGE_NEXT - 1);
    let again = path.syn().seq(5);
    row("a reset that its receiver would not take marks nothing")
        .steps(path.handshake())
        .step(
            path.up(&client)
                .counts(Counter::StrayResets)
                .tells(&[])
                .leaves(states(0, state::SYN_ACKED)),
        )
        .step(
            path.down(&edge)
                .counts(Counter::StrayResets)
                .tells(&[])
                .leaves(states(0, state::SYN_ACKED)),
        )
        // So a forged reset and a forged SYN do not end a flow.
        .step(path.up(&again).leaves(counted(1, 0)))
}

fn reset_with_data_in_flight(path: Path) -> Row {
    let data = path.client_data(0, b"never acknowledged");
    let rst = path.client_packet().flags(RST).seq(CLIENT_NEXT);
    row("a reset at what its receiver has acknowledged is taken")
        .steps(path.handshake())
        .step(path.up(&data))
        .step(path.up(&rst).leaves(states(state::RST, state::SYN_ACKED)))
}

fn refused(path: Path) -> Row {
    let rst = path.edge_packet().flags(RST).ack(CLIENT_NEXT);
    row("the Edge refuses the connection")
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(path.down(&rst).leaves(no_flows))
}

fn given_up(path: Path) -> Row {
    let rst = path.client_packet().flags(RST).seq(CLIENT_NEXT);
    row("the client gives up before the handshake is complete")
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(path.down(&path.syn_ack()))
        .step(path.up(&rst).leaves(no_flows))
}

/// Data far beyond what was acknowledged says nothing about where the sender is.
fn forged_data_helps_no_reset(path: Path) -> Row {
    let far = 0x4000_0000;
    let data = path.client_data(far, b"forged");
    let rst = path
        .client_packet()
        .flags(RST)
        .seq(CLIENT_NEXT.wrapping_add(far + 6));
    row("a forged reset behind forged data")
        .steps(path.handshake())
        .step(path.up(&data))
        .step(
            path.up(&rst)
                .counts(Counter::StrayResets)
                .leaves(states(0, state::SYN_ACKED)),
        )
}

fn forged_fin(path: Path) -> Row {
    let far = 0x4000_0000;
    let edge_fin = path.edge_fin(0, 0).seq(EDGE_NEXT.wrapping_add(far));
    let syn = path.syn().seq(77);
    row("forged FINs both ways end nothing")
        .steps(path.handshake())
        .step(path.up(&path.client_fin(far)).tells(&[]))
        .step(
            path.down(&edge_fin)
                .tells(&[])
                .leaves(states(0, state::SYN_ACKED)),
        )
        .step(path.up(&syn).leaves(counted(1, 0)))
}

/// Somebody beside the client, who can send in the Edge's name, could make flows that no Edge knows.
fn forged_syn_ack(path: Path) -> Row {
    let forged = path.syn_ack().on(Port::Wan0.arriving());
    row("a SYN-ACK from the client's side")
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(Step::dropped(Port::Wan0, &forged, DropReason::WrongSide).leaves(counted(0, 1)))
        .step(path.up(&path.handshake_ack()).leaves(counted(0, 1)))
}

fn stray_reset_of_a_half_open_flow(path: Path) -> Row {
    let client = path.client_packet().flags(RST).seq(12);
    let edge = path.edge_packet().flags(RST).seq(34).ack(56);
    row("a reset that nobody would take leaves a half-open flow alone")
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(path.up(&client).counts(Counter::StrayResets))
        .step(
            path.down(&edge)
                .counts(Counter::StrayResets)
                .leaves(counted(0, 1)),
        )
        .step(path.down(&path.syn_ack()))
        .step(path.up(&path.handshake_ack()).counts(Counter::Opened))
}

fn reset_without_flow(path: Path) -> Row {
    let drop = |flags| {
        let packet = path.client_packet().flags(flags).seq(9);
        Step::dropped(Port::Wan0, &packet, DropReason::NoFlow).leaves(no_flows)
    };
    row("a reset of no flow").steps([drop(RST), drop(RST | ACK)])
}

fn again_after_fin(path: Path) -> Row {
    let syn = path.syn().seq(77);
    row("a port is used again after FIN both ways")
        .steps(path.handshake())
        .step(path.up(&path.client_fin(0)))
        .step(path.down(&path.edge_fin(0, 1)))
        .step(path.up(&syn).counts(Counter::Steered).leaves(counted(0, 1)))
        .step(path.down(&path.syn_ack().ack(78)).leaves(counted(0, 1)))
        .step(
            path.up(&path.handshake_ack().seq(78))
                .counts(Counter::Opened)
                .leaves(states(0, state::SYN_ACKED)),
        )
}

fn again_after_reset(path: Path) -> Row {
    let rst = path.client_packet().flags(RST).seq(CLIENT_NEXT);
    let syn = path.syn().seq(77);
    row("a port is used again after a reset")
        .steps(path.handshake())
        .step(path.up(&rst))
        .step(path.up(&syn).counts(Counter::Steered).leaves(counted(0, 1)))
}

fn again_in_mid_flow(path: Path) -> Row {
    let syn = path.syn().seq(77);
    let challenge = path.edge_packet().seq(EDGE_NEXT).ack(CLIENT_NEXT);
    let rst = path.client_packet().flags(RST).seq(CLIENT_NEXT);
    row("a SYN in the middle of a flow is the Edge's to challenge (RFC 5961, 4)")
        .steps(path.handshake())
        .step(path.up(&syn).leaves(states(0, state::SYN_ACKED)))
        .step(path.down(&challenge))
        .step(path.up(&rst).leaves(states(state::RST, state::SYN_ACKED)))
        .step(path.up(&syn).counts(Counter::Steered).leaves(counted(0, 1)))
}

fn repeated_syn(path: Path) -> Row {
    row("a repeated SYN goes the same way")
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(path.up(&path.syn()).leaves(counted(0, 1)))
        .step(path.down(&path.syn_ack()))
        .step(path.up(&path.handshake_ack()).counts(Counter::Opened))
}

fn restarted_syn(path: Path) -> Row {
    row("a SYN with another number before the handshake is complete")
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(path.up(&path.syn().seq(500)).leaves(counted(0, 1)))
        .step(path.down(&path.syn_ack().ack(501)))
        .step(
            path.up(&path.handshake_ack().seq(501))
                .counts(Counter::Opened),
        )
}

fn fin_with_the_last_handshake_ack(path: Path) -> Row {
    row("the pure ACK of the handshake is lost and a FIN completes it")
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(path.down(&path.syn_ack()))
        .step(
            path.up(&path.client_fin(0))
                .counts(Counter::Opened)
                .leaves(states(state::FIN, state::SYN_ACKED)),
        )
}

fn repeated_syn_ack(path: Path) -> Row {
    let ack = path.handshake_ack();
    let mut wrong = ack.clone();
    wrong.ack += 1;
    row("only the ACK of the Edge's number completes the handshake")
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(path.up(&ack).leaves(counted(0, 1)))
        .step(path.down(&path.syn_ack()))
        .step(path.up(&wrong).leaves(counted(0, 1)))
        .step(path.down(&path.syn_ack()).leaves(counted(0, 1)))
        .step(path.up(&ack).counts(Counter::Opened).leaves(counted(1, 0)))
        .step(
            path.down(&path.syn_ack())
                .leaves(states(0, state::SYN_ACKED)),
        )
}

fn traffic_clears_the_mark(path: Path) -> Row {
    let rst = path.client_packet().flags(RST).seq(CLIENT_NEXT);
    let syn = path.client_packet().flags(SYN).seq(3);
    row("a client that goes on after a reset in its name has not sent it")
        .steps(path.handshake())
        .step(path.up(&rst).leaves(states(state::RST, state::SYN_ACKED)))
        .step(
            path.up(&path.client_data(0, b"still here"))
                .leaves(states(0, state::SYN_ACKED)),
        )
        .step(path.up(&syn).leaves(counted(1, 0)))
}
