//! What others push out of the maps of what is pending: these forget the oldest by themselves.

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{
    Counter, DropReason, FlowKey, HelloBytes, Pending, Stage,
    limits::{MAX_HELLOS, MAX_PENDING},
};
use snigate_tests::packets::{Fate, Port};

use super::talk::Talk;
use super::{hello, table};
use crate::checks::counted;

#[test]
fn bind_when_maps_are_full() {
    table(
        "full maps of what is pending",
        &[
            ("both are full", full),
            ("what is pending is gone between two parts", between_parts),
            ("the bytes are gone between two parts", parts_gone),
            (
                "what is pending is gone when the Edge answers",
                before_answer,
            ),
            ("the bytes are gone when the Edge answers", hello_gone),
        ],
    );
}

/// As many clients as there is room for, none of which says more.
fn crowd(talk: &mut Talk<'_, '_>) -> Result<()> {
    let client = talk.key();
    let others = (0..).map(|number: u32| {
        let mut key = client;
        key.source_port_be = (number as u16).to_be();
        key.destination_port_be = (1 + (number >> 16) as u16).to_be();
        key
    });
    let others: Vec<FlowKey> = others.take(MAX_PENDING as usize).collect();
    let maps = &mut talk.scene.datapath().maps;
    for key in &others {
        let pending = Pending {
            stage: Stage::Acknowledged as u8,
            ..Pending::default()
        };
        maps.pending.insert(*key, pending, 0).context("PENDING")?;
    }
    let bytes = HelloBytes::default();
    for key in others.iter().take(MAX_HELLOS as usize) {
        maps.hellos.insert(*key, bytes, 0).context("HELLOS")?;
    }
    Ok(())
}

/// A client that comes then is bound like any other, and what goes is what came first.
fn full(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1800);
    crowd(talk)?;
    talk.greet()?;
    talk.kept(&talk.segment(0, &hello[..1400]), Counter::HelloParts)?;
    talk.binds(&talk.segment(1400, &hello[1400..]), Counter::Bound)?;
    talk.stage(Some(Stage::Bound))?;
    talk.goes_behind(&talk.syn_ack())?;
    counted(0, 1)(&talk.scene.flows()?)
}

fn forget_pending(talk: &mut Talk<'_, '_>) -> Result<()> {
    let key = talk.key();
    Ok(talk.scene.datapath().maps.pending.remove(&key)?)
}

fn forget_hello(talk: &mut Talk<'_, '_>) -> Result<()> {
    let key = talk.key();
    Ok(talk.scene.datapath().maps.hellos.remove(&key)?)
}

/// The client's repetition, which begins at the front, finds everything as in the beginning.
fn between_parts(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1800);
    talk.greet()?;
    talk.kept(&talk.segment(0, &hello[..1000]), Counter::HelloParts)?;
    forget_pending(talk)?;
    // Nothing says that it is one of ours: it is as long as no first segment would be.
    talk.passes(&talk.segment(1000, &hello[1000..]), Counter::BadCookies)?;
    talk.kept(&talk.segment(0, &hello[..1000]), Counter::HelloParts)?;
    talk.binds(&talk.segment(1000, &hello[1000..]), Counter::Bound)
}

fn parts_gone(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1800);
    talk.greet()?;
    talk.kept(&talk.segment(0, &hello[..1000]), Counter::HelloParts)?;
    forget_hello(talk)?;
    // It is kept as one that has come too early.
    talk.kept(&talk.segment(1000, &hello[1000..]), Counter::HelloParts)?;
    talk.binds(&talk.segment(0, &hello[..1000]), Counter::Bound)
}

/// The Edge's answer says nothing then; the client's repetition begins anew, with the same numbers.
fn before_answer(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    forget_pending(talk)?;
    let late = Fate::Dropped(DropReason::LateAnswer);
    talk.behind(&talk.syn_ack(), late)?;
    talk.binds(&talk.segment(0, &hello::usual()), Counter::Bound)?;
    talk.deliver(&hello::usual())?;
    counted(1, 0)(&talk.scene.flows()?)
}

/// The Edge has answered; the client's repetition brings it the hello.
fn hello_gone(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    forget_hello(talk)?;
    talk.behind(&talk.syn_ack(), Fate::Dropped(DropReason::LateAnswer))?;
    counted(1, 0)(&talk.scene.flows()?)?;
    let again = talk.segment(0, &hello::usual());
    let outcome = talk.scene.send(Port::Wan0, &again.frame())?;
    ensure!(
        outcome.counts.get(Counter::BoundForwarded.name()) == Some(&1),
        "{outcome:?}"
    );
    Ok(())
}
