//! A handed-off flow's life: while the agent still has its sockets, its resets, and its end.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::TcpRepair};
use sni_common::contract::{Account, AccountKey, Counter, EventKind, SynSeen};
use sni_common::tcp::state;
use snigate_tests::packets::frame::{ACK, FIN, PSH, RST, SYN, Tcp};
use snigate_tests::packets::plan::{Family, SYN_OPTIONS};
use snigate_tests::packets::{Port, Row, Scene, Step, key, packet_table, packet_test};
use socket2::{Domain, Socket, Type};

use crate::checks::{counted, no_flows, states};
use crate::inspect::inspected;
use crate::spliced::{ROUTE, Side, Spliced, client_timestamps};

const BOTH: u8 = state::HANDING_OFF;

#[test]
fn handed_off_flows_live_and_end() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        let flow = Spliced::new(family);
        [
            acknowledged(flow.handing_off()),
            not_yet(flow.handing_off()),
            no_socket(flow.handing_off()),
            given_up(flow.handing_off()),
            reset(flow),
            reset_after_data(flow),
            blind_reset(flow),
            reset_by_edge(flow),
            closed(flow),
            forged_fin(flow),
            syn_ack(flow),
        ]
    });
    packet_table("handed-off flows", rows.collect());
}

fn plain(tcp: Tcp, _: Side) -> Tcp {
    tcp
}

fn reset_flags(mut tcp: Tcp, _: Side) -> Tcp {
    (tcp.flags, tcp.ack) = (RST, 0);
    tcp
}

fn acknowledged(flow: Spliced) -> Row {
    flow.row("the Edge has all that the socket has sent")
        .step(
            flow.down(0, 30, plain)
                .after_change(move |scene| {
                    flow.wait(scene, true, 30)?;
                    flow.wait(scene, false, 0)
                })
                .tells(&[EventKind::SocketAcked])
                .leaves(states(BOTH, BOTH)),
        )
        // Further on, and with data.
        .step(
            flow.down(0, 31, |tcp, _| tcp.data(b"200"))
                .tells(&[EventKind::SocketAcked]),
        )
        // The other direction has a need of its own, across the wrap of its numbers.
        .step(flow.up(31, 0, plain).tells(&[EventKind::SocketAcked]))
        .step(
            flow.up(31, 12, |tcp, side| {
                tcp.options(&[vec![1, 1], client_timestamps(side, 1, 2)].concat())
            })
            .tells(&[EventKind::SocketAcked]),
        )
}

/// What carries more than an acknowledgement goes on, however little it acknowledges.
fn not_yet(flow: Spliced) -> Row {
    let wait = move |scene: &mut Scene<'_>| flow.wait(scene, true, 30);
    flow.row("data before the acknowledgement")
        .step(
            flow.down(0, 29, |tcp, _| tcp.flags(PSH | ACK).data(b"100"))
                .after_change(wait)
                .tells(&[])
                // No entry for the client's direction: its first packet says so.
                .leaves(states(BOTH, BOTH)),
        )
        .step(
            flow.down(3, 29, |tcp, _| tcp.flags(FIN | ACK))
                .tells(&[])
                .leaves(states(BOTH, BOTH | state::FIN)),
        )
}

fn no_socket(flow: Spliced) -> Row {
    let wait = move |scene: &mut Scene<'_>| flow.wait(scene, true, 30);
    flow.row("the agent has died with its sockets").step(
        flow.down(0, 29, plain)
            .after_change(wait)
            .tells(&[])
            .leaves(states(BOTH, BOTH)),
    )
}

fn given_up(flow: Spliced) -> Row {
    flow.row("the agent has given its sockets up")
        .step(flow.down(0, 0, plain).tells(&[]).leaves(states(BOTH, 0)))
        .step(flow.up(0, 0, plain).tells(&[]).leaves(states(0, 0)))
}

fn reset(flow: Spliced) -> Row {
    flow.row("the client resets")
        .step(
            flow.up(0, 0, reset_flags)
                .tells(&[EventKind::FlowClosing])
                .leaves(states(state::RST, 0)),
        )
        // Again, and nobody is told twice.
        .step(flow.up(0, 0, reset_flags).tells(&[]))
        // Its port is used again at once: the host's.
        .step(again(flow).leaves(no_flows))
}

fn reset_after_data(flow: Spliced) -> Row {
    flow.row("a reset behind data, of which the Edge has acknowledged a part")
        .step(flow.up(0, 0, |tcp, _| tcp.data(&[7; 100])))
        .step(flow.down(0, 60, plain))
        .step(
            flow.up(50, 0, reset_flags)
                .counts(Counter::StrayResets)
                .leaves(states(0, 0)),
        )
        .step(flow.up(60, 0, reset_flags).leaves(states(state::RST, 0)))
        .step(flow.up(100, 0, plain).leaves(states(0, 0)))
        .step(flow.up(100, 0, reset_flags).leaves(states(state::RST, 0)))
}

fn blind_reset(flow: Spliced) -> Row {
    flow.row("resets that their receiver would not take")
        .step(
            flow.up(1, 0, reset_flags)
                .counts(Counter::StrayResets)
                .tells(&[])
                .leaves(states(0, 0)),
        )
        .step(
            flow.down(-1, 0, reset_flags)
                .counts(Counter::StrayResets)
                .tells(&[])
                .leaves(states(0, 0)),
        )
        // In the numbers of the other leg, which no flow but a handed-off one has.
        .step(stray(flow))
        .step(mid_flow_syn(flow).leaves(counted(1, 0)))
}

/// The client's reset with the number that the Edge's leg has come to.
fn stray(flow: Spliced) -> Step {
    let there = flow.up.seq as i32;
    flow.up(there, 0, reset_flags)
        .counts(Counter::StrayResets)
        .leaves(states(0, 0))
}

fn mid_flow_syn(flow: Spliced) -> Step {
    flow.up(99, 0, |mut tcp, _| {
        (tcp.flags, tcp.ack) = (SYN, 0);
        tcp
    })
}

fn reset_by_edge(flow: Spliced) -> Row {
    let with_ack = |tcp: Tcp, _| tcp.flags(RST | ACK);
    flow.row("the Edge resets").step(
        flow.down(0, 0, with_ack)
            .tells(&[EventKind::FlowClosing])
            .leaves(states(0, state::RST)),
    )
}

/// The client's port again.
fn again(flow: Spliced) -> Step {
    let syn = flow.path.syn().seq(4711).frame();
    Step::untouched(Port::Wan0, syn, Counter::Inspected)
}

fn closed(flow: Spliced) -> Row {
    let fin = |tcp: Tcp, _| tcp.flags(FIN | ACK);
    let headers = if flow.family == Family::V4 { 40 } else { 60 };
    flow.row("FIN both ways, and the client's port again")
        .step(flow.up(0, 0, fin).tells(&[]).leaves(states(state::FIN, 0)))
        // Half-closed, the Edge goes on.
        .step(flow.down(0, 1, |tcp, _| tcp.data(b"the rest")))
        .step(mid_flow_syn(flow).leaves(counted(1, 0)))
        .step(
            flow.down(8, 1, fin)
                .tells(&[EventKind::FlowClosing])
                .leaves(states(state::FIN, state::FIN)),
        )
        .step(flow.up(1, 9, plain).leaves(states(state::FIN, state::FIN)))
        .step(again(flow).leaves(no_flows).and_then(move |scene| {
            let carried = Account {
                connections: 1,
                to_edge: 1000 + 3 * headers,
                to_client: 2000 + 2 * headers + 8,
            };
            let name = if flow.family == Family::V4 {
                "edge-a"
            } else {
                "edge-a6"
            };
            let edge = AccountKey::edge(scene.edge_slot(name)? as u16);
            for key in [edge, AccountKey::route(ROUTE, 0)] {
                let account = scene.datapath().maps.accounts.get(&key, 0)?;
                ensure!(account == carried, "{key:?} has {account:?}");
            }
            Ok(())
        }))
}

fn forged_fin(flow: Spliced) -> Row {
    let fin = |tcp: Tcp, _| tcp.flags(FIN | ACK);
    flow.row("forged FINs end nothing")
        .step(flow.up(0x4000_0000, 0, fin).tells(&[]))
        .step(flow.down(0x4000_0000, 0, fin).tells(&[]))
        .step(stray_fin(flow))
        .step(mid_flow_syn(flow).leaves(counted(1, 0)))
}

fn stray_fin(flow: Spliced) -> Step {
    let there = flow.up.seq as i32;
    flow.up(there, 0, |tcp, _| tcp.flags(FIN | ACK))
        .leaves(states(0, 0))
}

/// The answer to a socket of the agent's: the host's, and how it began is remembered.
fn syn_ack(flow: Spliced) -> Row {
    let path = flow.path;
    let to = SocketAddr::new(path.source.ip(), 20_001);
    let from = |options: &[u8], flags| {
        let mut packet = path.edge_packet().options(options).flags(flags);
        (packet.destination, packet.seq, packet.ack) = (to, 1, 2);
        Step::untouched(path.lan, packet.frame(), Counter::Passed)
    };
    let known = move |expected: Option<(u32, u32)>| {
        move |scene: &mut Scene<'_>| {
            let map = &scene.datapath().maps.edge_syn_acks;
            let found = map.get(&key(path.edge, to), 0).ok();
            let found = found.map(|seen| (seen.ts_value, seen.flags));
            ensure!(found == expected, "{found:?} instead of {expected:?}");
            Ok(())
        }
    };
    let later = [1, 8, 10, 0xf0, 0, 0, 1, 0, 0, 0, 9, 1];
    Row::new("an Edge's answer to the agent", inspected(""))
        .named_for(flow.family)
        .step(from(&SYN_OPTIONS, ACK).and_then(known(None)))
        .step(from(&[], SYN | ACK).and_then(known(Some((0, 0)))))
        .step(
            from(&SYN_OPTIONS, SYN | ACK)
                .and_then(known(Some((9, SynSeen::TIMESTAMPS | SynSeen::LINUX)))),
        )
        .step(from(&[2, 4, 5, 180], SYN | ACK).and_then(known(Some((0, 0)))))
        .step(from(&[2, 0, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0], SYN | ACK).and_then(known(Some((0, 0)))))
        // The tuple is used again.
        .step(from(&later, SYN | ACK).and_then(known(Some((0xf000_0001, SynSeen::TIMESTAMPS)))))
}

/// Pure acknowledgements of what the agent's socket has sent are the socket's, while it is there.
#[test]
fn the_agents_socket_gets_its_acknowledgements() {
    packet_test("acknowledgements for the agent's socket", |rig| {
        for family in Family::BOTH {
            let flow = Spliced::new(family).handing_off();
            let mut scene = Scene::new(rig, &format!("socket acks, {}", family.name()), 8)?;
            scene.configure(&inspected(""))?;
            flow.install(&mut scene)?;
            flow.wait(&mut scene, true, 30)?;
            let socket = connected(flow.path.source, flow.path.edge)?;
            let ack = flow.edge(0, 29);
            let mut options = ack.clone();
            options.options = vec![1; 12];
            for packet in [ack, options] {
                Step::untouched(flow.path.lan, packet.frame(), Counter::SocketAcks)
                    .tells(&[])
                    .leaves(states(BOTH, BOTH))
                    .run(&mut scene)?;
            }
            flow.down(0, 29, |tcp, _| tcp.data(b"100"))
                .tells(&[])
                .run(&mut scene)?;
            flow.down(3, 30, plain)
                .tells(&[EventKind::SocketAcked])
                .run(&mut scene)?;
            drop(socket);
            flow.down(3, 29, plain).tells(&[]).run(&mut scene)?;
        }
        Ok(())
    });
}

/// A connection that was never made: in repair mode a socket takes what it is told, says nothing, and goes without a word.
fn connected(from: SocketAddr, to: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if to.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_ip_transparent_v6(true)?;
    }
    setsockopt(&socket, TcpRepair, &1).context("TCP_REPAIR")?;
    socket
        .bind(&from.into())
        .context("binding in the client's name")?;
    socket
        .connect(&to.into())
        .context("connecting in repair mode")?;
    Ok(socket)
}
