//! What an Edge answers to the SYN of a bound connection.

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{Counter, DropReason, Stage};
use snigate_tests::addresses::{EDGE_A, EDGE_B};
use snigate_tests::packets::frame::{PSH, RST, SYN, Tcp, reset_of};
use snigate_tests::packets::plan::{CLIENT_ISN, Configuration};
use snigate_tests::packets::{Action, Fate, Port, Program, Step, VLAN_EDGE, same_frame};

use super::talk::{FIRST, Offers, Talk};
use super::{hello, table};
use crate::checks::counted;
use crate::formats::link_vlan;

const TWO_EDGES: Configuration = Configuration {
    source: "preserve",
    edges: &[("edge-a", EDGE_A), ("edge-b", EDGE_B)],
    second: Configuration::DEFAULT_EDGES,
};

#[test]
fn bind_edges_answer() {
    table(
        "answers of Edges",
        &[
            ("a SYN-ACK", syn_ack),
            ("a hello of two segments", two_segments),
            ("an Edge of small segments", small_segments),
            ("an Edge in a VLAN", in_a_vlan),
            ("an Edge in two VLANs", in_two_vlans),
            ("a SYN-ACK again", syn_ack_again),
            ("a SYN-ACK too late", too_late),
            ("a refusal", refused),
            ("a refusal of one of two", refused_by_one),
            ("resets that are none", strange_resets),
            ("damaged answers", damaged),
            ("a challenge", challenge),
            ("another number", other_number),
            ("no timestamps, not Linux", no_timestamps),
            ("silence", silence),
            ("the wrong side", wrong_side),
            ("the client gives up", client_resets),
        ],
    );
}

fn syn_ack(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    talk.deliver(&hello::usual())?;
    talk.stage(Some(Stage::Delivered))?;
    counted(1, 0)(&talk.scene.flows()?)
}

/// Runs a SYN-ACK behind, and compares all the segments that come of it.
fn delivers(talk: &mut Talk<'_, '_>, hello: &[u8], segment: usize) -> Result<()> {
    // What comes by a VLAN interface comes by the one below.
    let lan = match talk.path.lan {
        Port::Vlan0 => Port::Lan0,
        lan => lan,
    };
    let tagged = talk.syn_ack().tags(talk.edge_tags);
    talk.step(Step::untouched(lan, tagged.frame(), Counter::EdgeAnswers))?;
    // The kernel takes the outer tag out of the frame.
    let answer = tagged.tags(talk.edge_tags.get(1..).unwrap_or_default());
    let (outcome, mut sent) = talk
        .scene
        .sent_by(lan, |scene| scene.send_behind(lan, &answer.frame()))?;
    ensure!(outcome.action == Action::Redirect, "{outcome:?}");
    sent.push(outcome.frame);
    ensure!(
        sent.len() == hello.len().div_ceil(segment),
        "{} segments",
        sent.len()
    );
    for (n, (found, data)) in sent.iter().zip(hello.chunks(segment)).enumerate() {
        let mut expected = talk.delivered((n * segment) as u32, data);
        if n + 1 == sent.len() {
            expected.flags |= PSH;
        }
        same_frame(Program::Tc, &expected.frame(), found).with_context(|| format!("{n}"))?;
    }
    Ok(())
}

fn two_segments(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1801);
    talk.greet()?;
    talk.kept(&talk.segment(0, &hello[..1400]), Counter::HelloParts)?;
    talk.binds(&talk.segment(1400, &hello[1400..]), Counter::Bound)?;
    // Less the timestamps; and IPv6 leaves 20 bytes less of the link.
    let segment = if talk.path.client.is_ipv4() {
        1448
    } else {
        1428
    };
    delivers(talk, &hello, segment)
}

fn small_segments(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1399);
    talk.edge.mss = Some(536);
    talk.bind(&hello)?;
    delivers(talk, &hello, 524)
}

fn in_a_vlan(talk: &mut Talk<'_, '_>) -> Result<()> {
    tagged_edge(talk, &[(0x8100, 0x2064)])
}

fn in_two_vlans(talk: &mut Talk<'_, '_>) -> Result<()> {
    tagged_edge(talk, &[(0x88a8, 0x0032), (0x8100, 0x6064)])
}

fn tagged_edge(talk: &mut Talk<'_, '_>, tags: &'static [(u16, u16)]) -> Result<()> {
    let configuration = Configuration {
        edges: &[("edge-v", VLAN_EDGE)],
        ..Configuration::default()
    };
    talk.configure(configuration, "")?;
    link_vlan(talk.scene, tags)?;
    talk.path = talk.path.to_edge(VLAN_EDGE, Port::Vlan0);
    talk.edge_tags = tags;
    let hello = hello::long(1399);
    talk.bind(&hello)?;
    talk.edge.mss = Some(900);
    delivers(talk, &hello, 888)?;
    delivers(talk, &hello, 888)
}

fn syn_ack_again(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    talk.deliver(&hello::usual())?;
    talk.deliver(&hello::usual())?;
    counted(1, 0)(&talk.scene.flows()?)
}

fn too_late(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    talk.deliver(&hello::usual())?;
    let key = talk.key();
    talk.scene.datapath().maps.hellos.remove(&key)?;
    let late = Fate::Dropped(DropReason::LateAnswer);
    talk.behind(&talk.syn_ack(), late.clone())?;
    talk.scene.datapath().maps.pending.remove(&key)?;
    talk.behind(&talk.syn_ack(), late)
}

/// The Edge's refusal.
fn refusal(talk: &Talk<'_, '_>) -> Tcp {
    talk.path.edge_packet().flags(RST).ack(FIRST)
}

fn refused(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::usual();
    talk.bind(&hello)?;
    let mut told = Tcp::new(Port::Wan0.leaving(), talk.path.service, talk.path.client)
        .tags(talk.tags)
        .flags(RST)
        .seq(talk.cookie.wrapping_add(1))
        .ack(FIRST.wrapping_add(hello.len() as u32));
    told.window = 0;
    let answer = refusal(talk);
    talk.goes_behind(&answer)?;
    let outcome = talk.scene.send_behind(talk.path.lan, &answer.frame())?;
    ensure!(outcome.action == Action::Redirect, "{outcome:?}");
    same_frame(Program::Tc, &told.frame(), &outcome.frame)?;
    talk.nothing_kept()
}

fn refused_by_one(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.configure(TWO_EDGES, "")?;
    talk.greet()?;
    let segment = talk.segment(0, &hello::usual());
    talk.scene.send(Port::Wan0, &segment.frame())?;
    talk.find_edge()?;
    let first = talk.path.edge;
    let answer = refusal(talk);
    talk.behind(&answer, Fate::Dropped(DropReason::EdgeRefused))?;
    talk.path = if talk.path.lan == Port::Lan1 {
        talk.path.to_edge(EDGE_A, Port::Lan0)
    } else {
        talk.path.to_edge_b()
    };
    talk.binds(&segment, Counter::BindRetries)?;
    ensure!(talk.path.edge != first);
    counted(0, 1)(&talk.scene.flows()?)?;
    talk.deliver(&hello::usual())
}

/// What has a wrong checksum changes nothing: the numbers in it may be wrong, and the Edge repeats what it has said.
fn damaged(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::usual();
    talk.bind(&hello)?;
    let dropped = Fate::Dropped(DropReason::BadChecksum);
    let mut other_number = talk.syn_ack().checksum_error(1);
    other_number.seq ^= 1 << 9;
    talk.behind(&other_number, dropped.clone())?;
    talk.behind(&refusal(talk).checksum_error(0x100), dropped.clone())?;
    talk.behind(&talk.syn_ack().data(b"odd").checksum_error(1), dropped)?;
    talk.stage(Some(Stage::Bound))?;
    counted(0, 1)(&talk.scene.flows()?)?;
    talk.deliver(&hello)
}

fn strange_resets(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    let unknown = Fate::Dropped(DropReason::NoFlow);
    let packet = talk.path.edge_packet();
    talk.behind(&packet.clone().flags(RST).seq(FIRST), unknown.clone())?;
    talk.behind(&packet.clone().flags(RST).ack(FIRST - 7), unknown.clone())?;
    talk.behind(&packet.flags(SYN).seq(9), unknown)?;
    talk.deliver(&hello::usual())
}

fn challenge(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    let stale = talk.path.edge_packet().seq(77).ack(CLIENT_ISN - 1000);
    let told = Fate::Answered(reset_of(&stale).frame(), DropReason::StaleEdge);
    talk.behind(&stale, told)?;
    talk.binds(&talk.segment(0, &hello::usual()), Counter::BindRetries)?;
    talk.deliver(&hello::usual())
}

fn other_number(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    let mut stale = talk.syn_ack();
    stale.ack = CLIENT_ISN - 9;
    let told = Fate::Answered(reset_of(&stale).frame(), DropReason::StaleEdge);
    talk.behind(&stale, told)?;
    talk.deliver(&hello::usual())
}

fn no_timestamps(talk: &mut Talk<'_, '_>) -> Result<()> {
    let options = talk.client.not_linux();
    let syn = talk.syn().options(&options);
    talk.greeted(&syn, talk.greeting())?;
    let segment = talk.segment(0, &hello::usual());
    talk.binds(&segment, Counter::Bound)?;
    talk.edge = Offers {
        timestamps: None,
        sack: false,
        ..Offers::EDGE
    };
    let answer = talk.syn_ack();
    let told = Fate::Answered(reset_of(&answer).frame(), DropReason::NoTimestamps);
    talk.behind(&answer, told)?;
    counted(0, 0)(&talk.scene.flows()?)?;
    talk.stage(Some(Stage::Agent))?;
    talk.passes(&segment, Counter::Inspected)?;
    // The next one is not tried with it; one of Linux is.
    talk.greeted(&syn, talk.greeting())?;
    talk.passes(&talk.segment(0, &hello::usual()), Counter::LeftWay)?;
    talk.bind(&hello::usual())?;
    for name in ["edge-a", "edge-a6"] {
        let slot = talk.scene.edge_slot(name)?;
        let edge = talk.scene.datapath().maps.edges.get(&slot, 0)?;
        let is_it = edge.address == talk.path.edge.ip().into();
        ensure!((edge.no_timestamps_until_s != 0) == is_it);
    }
    Ok(())
}

/// An Edge that does not answer is tried three times, then the client is told.
fn silence(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    let segment = talk.segment(0, &hello::usual());
    for _ in 0..2 {
        talk.change_pending(|pending| pending.since_ns = 0)?;
        talk.binds(&segment, Counter::BindRetries)?;
        counted(0, 1)(&talk.scene.flows()?)?;
    }
    talk.change_pending(|pending| pending.since_ns = 0)?;
    let told = reset_of(&segment).frame();
    talk.step(Step::answered(
        Port::Wan0,
        &segment,
        told,
        DropReason::EdgeSilent,
    ))?;
    talk.nothing_kept()
}

fn wrong_side(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    for forged in [talk.syn_ack(), refusal(talk)] {
        talk.dropped(&forged.on(Port::Wan0.arriving()), DropReason::WrongSide)?;
    }
    talk.deliver(&hello::usual())
}

fn client_resets(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    let mut stray = talk.client_reset(5000);
    let step = Step::dropped(Port::Wan0, &stray, DropReason::NoFlow);
    talk.step(step.counts(Counter::StrayResets))?;
    stray.seq = FIRST.wrapping_add(hello::usual().len() as u32);
    let at_edge = talk.path.at_edge(&stray).tags(&[]);
    talk.step(Step::forwarded(Port::Wan0, &stray, &at_edge))?;
    talk.nothing_kept()
}
