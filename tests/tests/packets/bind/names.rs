//! ClientHellos of one segment: what is bound, and what is the agent's.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{
    Counter, DropReason, EdgeState, EventKind, Learned, Matched, NO_POOL, ROUTE_AGENT,
    ROUTE_CONDITIONAL, RouteAction, SniRoute, Stage,
};
use snigate_tests::addresses::GATEWAY_LAN_A;
use snigate_tests::packets::frame::reset_of;
use snigate_tests::packets::plan::Configuration;
use snigate_tests::packets::{Port, Step, UNKNOWN_EDGE, UNREACHABLE_EDGE, same_frame};

use super::talk::{Offers, Talk};
use super::{hello, table};
use crate::checks::counted;

const NAME: &str = "sip.fabrikam.example";

#[test]
fn bind_known_names() {
    table(
        "hellos that are bound",
        &[
            ("the usual", usual),
            ("after a bare acknowledgement", after_ack),
            ("without timestamps", without_timestamps),
            ("segment sizes", segment_sizes),
            ("without SACK or scale", fewer_options),
            ("again", again),
            ("upper case and a dot", spelled),
            ("learned", learned),
            ("told and counted", told),
            ("seen as the gateway", gateway),
        ],
    );
}

fn usual(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    talk.stage(Some(Stage::Bound))?;
    ensure!(talk.has_hello());
    counted(0, 1)(&talk.scene.flows()?)
}

fn after_ack(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.greet()?;
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)?;
    // With a later clock and another window.
    talk.client.timestamps = Some(0x1000_0007);
    let mut segment = talk.segment(0, &hello::usual());
    segment.window = 300;
    talk.binds(&segment.hops(9), Counter::Bound)
}

fn without_timestamps(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.client.timestamps = None;
    talk.bind(&hello::usual())
}

fn segment_sizes(talk: &mut Talk<'_, '_>) -> Result<()> {
    for (n, mss) in [200, 536, 1300, 1439, 1440, 1500, 9000]
        .into_iter()
        .enumerate()
    {
        talk.client.mss = Some(mss);
        let port = 41_000 + n as u16;
        let client = SocketAddr::new(talk.path.client.ip(), port);
        talk.path = talk.path.from(client);
        talk.bind(&hello::usual())
            .with_context(|| format!("{mss}"))?;
    }
    Ok(())
}

fn fewer_options(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.client.sack = false;
    talk.bind(&hello::usual())?;
    talk.client = Offers {
        scale: None,
        ..Offers::CLIENT
    };
    talk.bind(&hello::usual())
}

fn again(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::usual())?;
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)?;
    talk.client.timestamps = Some(0x1000_0100);
    talk.binds(&talk.segment(0, &hello::usual()), Counter::BindRetries)?;
    let length = hello::usual().len() as u32;
    // What follows at once is kept with it.
    talk.kept(&talk.segment(length, b"early"), Counter::HelloParts)?;
    let beyond = talk.segment(length + 100, b"later");
    talk.dropped(&beyond, DropReason::EarlyData)?;
    counted(0, 1)(&talk.scene.flows()?)
}

fn spelled(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.bind(&hello::named(b"SIP.Fabrikam.EXAMPLE"))?;
    talk.bind(&hello::named(b"sip.fabrikam.example."))
}

/// What the agent would note of a name that goes to the usual pool.
fn note(talk: &mut Talk<'_, '_>, name: &str, change: impl FnOnce(&mut Learned)) -> Result<()> {
    let usual = talk.route_key(NAME)?;
    let maps = &mut talk.scene.datapath().maps;
    let route = maps.sni_routes.get(&usual, 0)?;
    let mut learned = Learned {
        generation: usual.generation,
        action: RouteAction::Pass as u8,
        matched: Matched::Wildcard as u8,
        pool_v4: route.pool_v4,
        pool_v6: route.pool_v6,
        hits: 5,
        ..Learned::default()
    };
    change(&mut learned);
    let key = talk.learned_key(name)?;
    let maps = &mut talk.scene.datapath().maps;
    Ok(maps.sni_learned.insert(key, learned, 0)?)
}

fn learned(talk: &mut Talk<'_, '_>) -> Result<()> {
    note(talk, "a.wild.example", |_| {})?;
    talk.bind(&hello::named(b"a.wild.example"))?;
    let key = talk.learned_key("a.wild.example")?;
    let found = talk.scene.datapath().maps.sni_learned.get(&key, 0)?;
    ensure!(found.hits == 6 && found.last_seen_ns != 0, "{found:?}");
    Ok(())
}

fn told(talk: &mut Talk<'_, '_>) -> Result<()> {
    for hits in 1..=2 {
        talk.greet()?;
        let segment = talk.segment(0, &hello::usual());
        let outcome = talk.scene.send(Port::Wan0, &segment.frame())?;
        let [event] = &outcome.hellos[..] else {
            anyhow::bail!("not told: {outcome:?}");
        };
        ensure!(event.event.kind == EventKind::HelloBound as u32 && event.event.key == talk.key());
        ensure!(event.name.as_str() == NAME && event.matched == Matched::Exact as u32);
        let key = talk.learned_key(NAME)?;
        let found = talk.scene.datapath().maps.sni_learned.get(&key, 0)?;
        ensure!(
            found.hits == hits && found.route == key.name.number(),
            "{found:?}"
        );
    }
    Ok(())
}

fn gateway(talk: &mut Talk<'_, '_>) -> Result<()> {
    let configuration = Configuration {
        source: "gateway",
        ..Configuration::default()
    };
    talk.configure(configuration, "")?;
    talk.greet()?;
    let segment = talk.segment(0, &hello::usual());
    let outcome = talk.scene.send(Port::Wan0, &segment.frame())?;
    let flows = talk.scene.flows()?;
    let flow = flows.half_open.first().context("no half-open flow")?;
    ensure!(flow.source.ip() == talk.family.of(GATEWAY_LAN_A));
    talk.path = talk.path.seen_as(flow.source);
    let syn = talk.edge_syn(&segment).frame();
    same_frame(talk.scene.program(), &syn, &outcome.frame)?;
    talk.deliver(&hello::usual())
}

#[test]
fn bind_leaves_to_the_agent() {
    table(
        "hellos that are left",
        &[
            ("names", names),
            ("routes", routes),
            ("learned otherwise", learned_otherwise),
            ("what is not read", unread),
            ("a wrong checksum", damaged),
        ],
    );
}

/// The hello goes to the host, and so does all that comes behind it.
fn left(talk: &mut Talk<'_, '_>, hello: &[u8], counter: Counter) -> Result<()> {
    talk.greet()?;
    let first = talk.segment(0, hello);
    talk.passes(&first, counter)?;
    talk.stage(Some(Stage::Host))?;
    ensure!(!talk.has_hello());
    counted(0, 0)(&talk.scene.flows()?)?;
    talk.passes(&first, Counter::Inspected)?;
    talk.passes(&talk.segment(0, b""), Counter::Inspected)?;
    let next = talk.segment(hello.len() as u32, b"more");
    talk.passes(&next, Counter::Inspected)?;
    // So that the agent can hand it off.
    let key = talk.key();
    let seen = talk.scene.datapath().maps.client_syns.get(&key, 0)?;
    ensure!((seen.ts_value, seen.flags) == (0x1000_0000, 3), "{seen:?}");
    Ok(())
}

fn names(talk: &mut Talk<'_, '_>) -> Result<()> {
    for name in [&b"sip.nobody.example"[..], b"example", b"fabrikam.example"] {
        left(talk, &hello::named(name), Counter::LeftName)?;
    }
    Ok(())
}

fn routes(talk: &mut Talk<'_, '_>) -> Result<()> {
    let key = talk.route_key(NAME)?;
    let usual = talk.scene.datapath().maps.sni_routes.get(&key, 0)?;
    let mut changed = [usual; 4];
    changed[0].flags = ROUTE_CONDITIONAL;
    changed[1].flags = ROUTE_AGENT;
    changed[2].action = RouteAction::Terminate as u8;
    (changed[3].pool_v4, changed[3].pool_v6) = (NO_POOL, NO_POOL);
    for route in changed {
        put(talk, route)?;
        left(talk, &hello::usual(), Counter::LeftName)?;
    }
    put(talk, usual)?;
    talk.bind(&hello::usual())
}

fn put(talk: &mut Talk<'_, '_>, route: SniRoute) -> Result<()> {
    let key = talk.route_key(NAME)?;
    Ok(talk
        .scene
        .datapath()
        .maps
        .sni_routes
        .insert(key, route, 0)?)
}

fn learned_otherwise(talk: &mut Talk<'_, '_>) -> Result<()> {
    let changes: [fn(&mut Learned); 6] = [
        |learned| learned.generation += 1,
        |learned| learned.generation -= 1,
        |learned| learned.flags = ROUTE_CONDITIONAL,
        |learned| learned.flags = ROUTE_AGENT,
        |learned| learned.action = RouteAction::Terminate as u8,
        |learned| learned.action = 0,
    ];
    for change in changes {
        note(talk, "a.wild.example", change)?;
        left(talk, &hello::named(b"a.wild.example"), Counter::LeftName)?;
    }
    Ok(())
}

fn unread(talk: &mut Talk<'_, '_>) -> Result<()> {
    let name = hello::server_name(b"sip.fabrikam.example");
    for hello in [
        b"GET / HTTP/1.1\r\nHost: sip.fabrikam.example\r\n\r\n".to_vec(),
        hello::with(&[(0, name.clone()), (0, name.clone())]),
        hello::with(&[(0, name), (35, vec![]), (35, vec![])]),
        hello::with(&[(35, vec![])]),
        hello::named(b"sip.fabrikam.example\0"),
        hello::in_two_records(20),
        hello::long(3073),
        vec![22, 3, 1],
    ] {
        let hello = &hello[..hello.len().min(1400)];
        left(talk, hello, Counter::LeftHello)?;
    }
    Ok(())
}

fn damaged(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.greet()?;
    let good = talk.segment(0, &hello::usual());
    let bad = good.clone().checksum_error(0x100);
    talk.dropped(&bad, DropReason::BadChecksum)?;
    ensure!(!talk.has_hello());
    talk.binds(&good, Counter::Bound)
}

#[test]
fn bind_without_a_way() {
    table(
        "hellos without a way",
        &[
            ("no Edge is up", no_edge),
            ("no neighbour or no route", no_next_hop),
            ("out of hops", out_of_hops),
        ],
    );
}

fn no_edge(talk: &mut Talk<'_, '_>) -> Result<()> {
    for state in [EdgeState::Down, EdgeState::Draining] {
        talk.scene.set_edge("edge-a", state)?;
        talk.scene.set_edge("edge-a6", state)?;
        // At once, and whether an agent runs or not.
        talk.greet()?;
        let hello = talk.segment(0, &hello::usual());
        let reset = reset_of(&hello).frame();
        talk.step(Step::answered(
            Port::Wan0,
            &hello,
            reset,
            DropReason::NoEdge,
        ))?;
        talk.nothing_kept()?;
        counted(0, 0)(&talk.scene.flows()?)?;
    }
    for edge in ["edge-a", "edge-a6"] {
        talk.scene.set_edge(edge, EdgeState::Up)?;
    }
    talk.bind(&hello::usual())
}

fn no_next_hop(talk: &mut Talk<'_, '_>) -> Result<()> {
    for edges in [
        &[("edge-unknown", UNKNOWN_EDGE)],
        &[("edge-far", UNREACHABLE_EDGE)],
    ] {
        let configuration = Configuration {
            edges,
            ..Configuration::default()
        };
        talk.configure(configuration, "")?;
        left(talk, &hello::usual(), Counter::LeftWay)?;
    }
    Ok(())
}

fn out_of_hops(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.greet()?;
    let segment = talk.segment(0, &hello::usual()).hops(1);
    talk.passes(&segment, Counter::LeftWay)
}
