//! ClientHellos of several segments, and budgets.

use anyhow::{Result, ensure};
use sni_common::contract::{Counter, DropReason, Stage};
use snigate_tests::addresses::partner;
use snigate_tests::packets::plan::{Configuration, Path};
use snigate_tests::packets::{FAR_PARTNER, Fate, Port, Step};

use super::talk::Talk;
use super::{hello, table};
use crate::checks::counted;

#[test]
fn bind_hellos_in_parts() {
    table(
        "hellos in parts",
        &[
            ("two", two),
            ("the second first", second_first),
            ("three, in any order", three),
            ("a part again", repeated),
            ("an odd part", odd),
            ("a damaged part", damaged),
            ("an unknown name in the first", unknown),
            ("the second makes it wrong", wrong_end),
            ("beyond what is kept", beyond),
            ("as long as can be", longest),
            ("in two buffers", split),
        ],
    );
}

/// The part is kept, or bound as the last one.
fn part(talk: &mut Talk<'_, '_>, hello: &[u8], from: usize, to: usize) -> Result<()> {
    talk.kept(
        &talk.segment(from as u32, &hello[from..to]),
        Counter::HelloParts,
    )?;
    ensure!(talk.has_hello());
    talk.stage(Some(Stage::Hello))
}

fn last(talk: &mut Talk<'_, '_>, hello: &[u8], from: usize, to: usize) -> Result<()> {
    talk.binds(&talk.segment(from as u32, &hello[from..to]), Counter::Bound)?;
    // All of it is kept, as it was sent.
    let key = talk.key();
    let kept = talk.scene.datapath().maps.hellos.get(&key, 0)?;
    ensure!(kept.0[..hello.len()] == *hello, "other bytes are kept");
    let received = talk.pending().map(|pending| usize::from(pending.received));
    ensure!(received == Some(hello.len()), "{received:?} bytes are kept");
    talk.stage(Some(Stage::Bound))
}

fn two(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1800);
    talk.greet()?;
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)?;
    part(talk, &hello, 0, 1400)?;
    counted(0, 0)(&talk.scene.flows()?)?;
    last(talk, &hello, 1400, 1800)?;
    // Either comes again.
    let first = talk.segment(0, &hello[..1400]);
    talk.binds(&first, Counter::BindRetries)?;
    let second = talk.segment(1400, &hello[1400..]);
    talk.dropped(&second, DropReason::EarlyData)
}

fn second_first(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1800);
    talk.greet()?;
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)?;
    part(talk, &hello, 1400, 1800)?;
    last(talk, &hello, 0, 1400)
}

fn three(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1500);
    talk.greet()?;
    part(talk, &hello, 0, 500)?;
    part(talk, &hello, 1000, 1500)?;
    last(talk, &hello, 500, 1000)
}

fn repeated(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1500);
    talk.greet()?;
    part(talk, &hello, 0, 500)?;
    part(talk, &hello, 0, 500)?;
    part(talk, &hello, 500, 1000)?;
    part(talk, &hello, 500, 1000)?;
    last(talk, &hello, 1000, 1500)
}

fn odd(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1501);
    talk.greet()?;
    part(talk, &hello, 0, 333)?;
    part(talk, &hello, 333, 1000)?;
    last(talk, &hello, 1000, 1501)
}

fn damaged(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1501);
    talk.greet()?;
    part(talk, &hello, 0, 333)?;
    let second = talk.segment(333, &hello[333..]);
    let mut other = hello[333..].to_vec();
    other[9] ^= 0xff;
    let bad = second.clone().data(&other).checksum_error(1);
    talk.dropped(&bad, DropReason::BadChecksum)?;
    last(talk, &hello, 333, 1501)
}

fn unknown(talk: &mut Talk<'_, '_>) -> Result<()> {
    let name = hello::server_name(b"sip.nobody.example");
    let hello = hello::with(&[(0, name), (21, vec![0; 1500])]);
    talk.greet()?;
    talk.passes(&talk.segment(0, &hello[..1000]), Counter::LeftName)?;
    let second = talk.segment(1000, &hello[1000..]);
    talk.passes(&second, Counter::Inspected)?;
    talk.passes(&talk.segment(0, &hello[..1000]), Counter::Inspected)
}

fn wrong_end(talk: &mut Talk<'_, '_>) -> Result<()> {
    let name = hello::server_name(b"sip.fabrikam.example");
    let hello = hello::with(&[(0, name), (21, vec![0; 900]), (35, vec![]), (35, vec![])]);
    talk.greet()?;
    part(talk, &hello, 0, 800)?;
    let second = talk.segment(800, &hello[800..]);
    let dropped = Step::dropped(Port::Wan0, &second, DropReason::EarlyData);
    talk.step(dropped.counts(Counter::LeftHello))?;
    talk.stage(Some(Stage::Agent))?;
    ensure!(!talk.has_hello());
    // The client begins at the front.
    talk.passes(&talk.segment(0, &hello[..800]), Counter::Inspected)
}

fn beyond(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1500);
    talk.greet()?;
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)?;
    for at in [3072, 2000, u32::MAX] {
        talk.dropped(&talk.segment(at, &[7; 1100]), DropReason::EarlyData)?;
    }
    part(talk, &hello, 0, 1000)?;
    last(talk, &hello, 1000, 1500)
}

fn longest(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(3072);
    talk.greet()?;
    part(talk, &hello, 0, 1400)?;
    part(talk, &hello, 1400, 2800)?;
    last(talk, &hello, 2800, 3072)
}

fn split(talk: &mut Talk<'_, '_>) -> Result<()> {
    let hello = hello::long(1300);
    talk.greet()?;
    let segment = talk.segment(0, &hello);
    let fate = Fate::Replaced(talk.edge_syn(&segment).frame(), Counter::Bound);
    talk.step(Step::new(Port::Wan0, segment.frame(), fate).split_at(300))
}

#[test]
fn bind_budgets() {
    table(
        "budgets of binding",
        &[
            ("hellos of a source", hellos_of_a_source),
            ("hellos of a prefix", hellos_of_a_prefix),
            ("given back by an answer", given_back),
            ("SYNs of a source", syns_of_a_source),
            ("SYNs of a prefix", syns_of_a_prefix),
        ],
    );
}

fn limit(talk: &mut Talk<'_, '_>, limits: &str) -> Result<()> {
    talk.configure(Configuration::default(), &format!("[limits]\n{limits}\n"))
}

/// The client's next connection; `n` chooses the host.
fn next(talk: &mut Talk<'_, '_>, n: u8, port: u16) {
    let host = partner(n);
    talk.path = Path::usual(talk.family).from(talk.family.socket(host, port));
}

/// Another client, of another prefix: IPv6 sources are counted by their /64.
fn elsewhere(talk: &mut Talk<'_, '_>) {
    let host = talk.family.socket(FAR_PARTNER, 40_000);
    talk.path = Path::usual(talk.family).from(host);
}

fn hellos_of_a_source(talk: &mut Talk<'_, '_>) -> Result<()> {
    limit(talk, "hello_per_source = \"2/m\"")?;
    for port in [1, 2] {
        next(talk, 1, 40_000 + port);
        talk.bind(&hello::usual())?;
        talk.binds(&talk.segment(0, &hello::usual()), Counter::BindRetries)?;
    }
    next(talk, 1, 40_003);
    talk.greet()?;
    talk.dropped(&talk.segment(0, &hello::usual()), DropReason::HelloBudget)?;
    ensure!(!talk.has_hello());
    elsewhere(talk);
    talk.bind(&hello::usual())
}

fn hellos_of_a_prefix(talk: &mut Talk<'_, '_>) -> Result<()> {
    limit(talk, "hello_per_prefix = \"2/m\"")?;
    for n in [1, 2] {
        next(talk, n, 40_000);
        talk.bind(&hello::usual())?;
    }
    next(talk, 1, 40_001);
    talk.greet()?;
    talk.dropped(&talk.segment(0, &hello::usual()), DropReason::HelloBudget)
}

fn given_back(talk: &mut Talk<'_, '_>) -> Result<()> {
    limit(talk, "hello_per_source = \"1/m\"")?;
    for port in 40_001..40_004 {
        next(talk, 1, port);
        talk.bind(&hello::usual())?;
        talk.deliver(&hello::usual())?;
    }
    Ok(())
}

fn syns_of_a_source(talk: &mut Talk<'_, '_>) -> Result<()> {
    limit(talk, "syn_per_source = \"2/m\"")?;
    next(talk, 1, 40_001);
    talk.greet()?;
    talk.greet()?;
    talk.dropped(&talk.syn(), DropReason::SynBudget)?;
    talk.binds(&talk.segment(0, &hello::usual()), Counter::Bound)?;
    elsewhere(talk);
    talk.greet()
}

fn syns_of_a_prefix(talk: &mut Talk<'_, '_>) -> Result<()> {
    limit(talk, "syn_per_prefix = \"2/m\"")?;
    for n in [1, 2] {
        next(talk, n, 40_001);
        talk.greet()?;
    }
    next(talk, 1, 40_002);
    talk.dropped(&talk.syn(), DropReason::SynBudget)?;
    elsewhere(talk);
    talk.greet()
}
