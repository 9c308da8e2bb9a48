//! Bound connections after the hello: each side sees the other's segments as if they came from its own peer.

use anyhow::{Result, ensure};
use sni_common::contract::Counter;
use snigate_tests::packets::frame::{PSH, RST, Tcp};
use snigate_tests::packets::plan::EDGE_ISN;
use snigate_tests::packets::{Port, Step};

use super::talk::{ANNOUNCED, FIRST, Offers, Talk, stamps};
use super::{hello, table};
use crate::checks::counted;

#[test]
fn bind_translates() {
    table(
        "segments of bound connections",
        &[
            ("all options", all),
            ("an Edge without timestamps and SACK", no_timestamps),
            ("an Edge without a scale", no_scale),
            ("a client without options", nothing),
            ("what is kept is freed", freed),
            ("a reset of the client's", reset),
        ],
    );
}

/// A segment of the client's, and as the Edge gets it.
fn up(talk: &mut Talk<'_, '_>, at: u32, data: &[u8]) -> Result<()> {
    let mut sent = talk.segment(at, data);
    let mut got = talk.path.at_edge(&sent).tags(&[]);
    got.ack = EDGE_ISN + 1;
    if let Some(value) = talk.client.timestamps {
        sent.options = [vec![1, 1], stamps(value + 5, talk.stamp + 3)].concat();
        got.options = match talk.edge.timestamps {
            Some(edge) => [vec![1, 1], stamps(value + 5, edge + 3)].concat(),
            None => vec![1; 12],
        };
    }
    if talk.edge.scale.is_none() && talk.client.timestamps.is_some() {
        got.window = (u32::from(sent.window) << 7).min(65535) as u16;
    }
    talk.step(Step::forwarded(Port::Wan0, &sent, &got).counts(Counter::BoundForwarded))
}

/// A segment of the Edge's, and as the client gets it.
fn down(talk: &mut Talk<'_, '_>, at: u32, data: &[u8]) -> Result<()> {
    let mut sent = talk
        .path
        .edge_packet()
        .seq(EDGE_ISN + 1 + at)
        .ack(FIRST.wrapping_add(hello::usual().len() as u32))
        .data(data);
    sent.flags |= PSH;
    sent.window = 1000;
    let mut got: Tcp = talk.path.at_client(&sent);
    got.seq = talk.cookie.wrapping_add(1).wrapping_add(at);
    if let (Some(client), Some(edge)) = (talk.client.timestamps, talk.edge.timestamps) {
        sent.options = [vec![1, 1], stamps(edge + 40, client)].concat();
        got.options = [vec![1, 1], stamps(talk.stamp + 40, client)].concat();
    }
    if talk.client.timestamps.is_some() {
        let scale = talk.edge.scale.unwrap_or(0);
        got.window = ((1000u32 << scale) >> ANNOUNCED.scale) as u16;
    }
    talk.step(Step::forwarded(talk.path.lan, &sent, &got).counts(Counter::BoundForwarded))
}

fn both_ways(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    talk.deliver(&hello::usual())?;
    let sent = hello::usual().len() as u32;
    // The client's acknowledgement comes first, or the Edge's data does.
    up(talk, sent, b"")?;
    down(talk, 0, b"a certificate")?;
    up(talk, sent, b"finished")?;
    down(talk, 13, b"")
}

fn all(talk: &mut Talk<'_, '_>) -> Result<()> {
    both_ways(talk)
}

fn no_timestamps(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.edge = Offers {
        timestamps: None,
        sack: false,
        ..Offers::EDGE
    };
    both_ways(talk)
}

fn no_scale(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.edge.scale = None;
    both_ways(talk)
}

fn nothing(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.client.timestamps = None;
    both_ways(talk)
}

fn freed(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    talk.deliver(&hello::usual())?;
    up(talk, 0, &hello::usual())?;
    ensure!(talk.has_hello() && talk.pending().is_some());
    down(talk, 0, b"")?;
    ensure!(!talk.has_hello() && talk.pending().is_none());
    counted(1, 0)(&talk.scene.flows()?)
}

fn reset(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    talk.deliver(&hello::usual())?;
    let mut sent = talk.client_reset(hello::usual().len() as u32).flags(RST);
    sent.options.clear();
    sent.ack = 0;
    let got = talk.path.at_edge(&sent).tags(&[]);
    talk.step(Step::forwarded(Port::Wan0, &sent, &got).counts(Counter::BoundForwarded))
}
