//! A flow's life: SYN, SYN-ACK, ACK, data, FIN.

use anyhow::ensure;
use sni_common::contract::{Counter, EventKind};
use sni_common::tcp::state;
use snigate_tests::packets::plan::{CLIENT_ISN, EDGE_ISN, Family, Path, configuration};
use snigate_tests::packets::{FlowState, Leg, Row, packet_table};

#[test]
fn a_flow_opens_carries_data_and_closes() {
    packet_table("a flow's life", Family::BOTH.map(life).into());
}

fn life(family: Family) -> Row {
    let path = Path::usual(family);
    let client_start = CLIENT_ISN.wrapping_add(1);
    let headers = if family == Family::V4 { 40 } else { 60 };
    let syn = path
        .up(&path.syn())
        .counts(Counter::Steered)
        .leaves(move |flows| {
            ensure!(flows.established.is_empty());
            ensure!(
                flows.half_open
                    == [flow(
                        path,
                        Leg {
                            packets: 1,
                            bytes: headers + 20,
                            state: 0,
                            next_seq: client_start,
                            last_ack: 0,
                        },
                        Leg {
                            last_ack: client_start,
                            ..Leg::default()
                        }
                    )]
            );
            Ok(())
        });
    let syn_ack = path.down(&path.syn_ack()).leaves(move |flows| {
        ensure!(flows.half_open.len() == 1);
        let leg = flows.half_open[0].to_client;
        ensure!(leg.state == state::SYN_ACKED && leg.next_seq == EDGE_ISN + 1);
        Ok(())
    });
    let ack = path
        .up(&path.handshake_ack())
        .counts(Counter::Opened)
        .tells(&[EventKind::FlowOpened])
        .leaves(move |flows| {
            ensure!(flows.half_open.is_empty());
            ensure!(
                flows.established
                    == [flow(
                        path,
                        Leg {
                            packets: 2,
                            bytes: 2 * headers + 20,
                            state: 0,
                            next_seq: client_start,
                            last_ack: EDGE_ISN + 1,
                        },
                        Leg {
                            packets: 1,
                            bytes: headers + 20,
                            state: state::SYN_ACKED,
                            next_seq: EDGE_ISN + 1,
                            last_ack: client_start,
                        }
                    )]
            );
            Ok(())
        });
    let data = path.up(&path.client_data(0, b"INVITE")).tells(&[]);
    let answer = path.down(&path.edge_data(0, 6, b"100")).tells(&[]);
    let fin = path
        .up(&path.client_fin(6))
        .tells(&[])
        .leaves(move |flows| {
            ensure!(flows.established[0].to_edge.state == state::FIN);
            ensure!(flows.established[0].to_client.state == state::SYN_ACKED);
            Ok(())
        });
    let fin_back = path
        .down(&path.edge_fin(3, 7))
        .tells(&[EventKind::FlowClosing])
        .leaves(move |flows| {
            ensure!(flows.established[0].to_client.state == state::SYN_ACKED | state::FIN);
            ensure!(flows.established[0].to_client.next_seq == EDGE_ISN + 1 + 3 + 1);
            ensure!(flows.established[0].to_edge.next_seq == client_start.wrapping_add(7));
            Ok(())
        });
    // The last ACK still goes through: the entry lives until the sweep.
    let last = path.up(&path
        .client_packet()
        .seq(client_start.wrapping_add(7))
        .ack(EDGE_ISN + 5));
    Row::new(
        format!("{} from SYN to the last ACK", family.name()),
        configuration(""),
    )
    .steps([syn, syn_ack, ack, data, answer, fin, fin_back, last])
}

fn flow(path: Path, to_edge: Leg, to_client: Leg) -> FlowState {
    FlowState {
        client: path.client,
        service: path.service,
        source: path.source,
        edge: path.edge,
        to_edge,
        to_client,
    }
}
