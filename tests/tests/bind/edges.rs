//! Edges that do not answer, refuse, or remember an earlier connection with the same port.

use std::{
    io::ErrorKind::AddrNotAvailable,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use snigate_tests::{
    Lab,
    addresses::vips,
    at_once,
    deadline::Deadline,
    faults,
    peers::{EchoEdge, Segments, client_hello, is_of_kind, is_reset},
};

use crate::{
    BOUND, EITHER, NAME,
    client::{Client, end},
    in_scenes, on_hooks, quiet,
};

/// Enough that each Edge of a pool is some client's first.
const CLIENTS: usize = 12;
/// What a client waits until its connection has gone to another Edge: the repetition of its hello that comes after 3 seconds, or the next one.
const ANOTHER_EDGE: Duration = Duration::from_secs(10);
/// What it waits until nobody is left.
const NOBODY: Duration = Duration::from_secs(30);
/// What nobody has to wait for takes less, on a busy machine too: a repetition or two of the hello.
const AT_ONCE: Duration = Duration::from_secs(4);
/// For what is done with a connection's end, and not by the sweep.
const SOON: Duration = Duration::from_secs(4);

fn open(lab: &Lab, address: SocketAddr, hello: &[u8]) -> Result<Client> {
    Client::open(&lab.partner, None, address, hello, Segments::Few)
}

fn everybody() -> Vec<SocketAddr> {
    vips().map(|address| [address; CLIENTS]).concat()
}

/// All at once, in both families, ask for the name that either Edge serves, and all reach edge-b.
fn all_reach_b(lab: &Lab, within: Duration) -> Result<()> {
    let hello = client_hello(EITHER)?;
    at_once(&everybody(), |address| {
        let mut client = open(lab, *address, &hello)?;
        ensure!(client.edge() == "b", "Edge {}", client.edge());
        ensure!(client.setup() < within, "after {:?}", client.setup());
        client.ping()?;
        client.close()
    })
}

/// All at once, in both families, are reset when nobody serves their name; returns how long that has taken at most.
fn all_are_reset(lab: &Lab, name: &str, within: Duration) -> Result<Duration> {
    let hello = client_hello(name)?;
    let started = Instant::now();
    at_once(&everybody(), |address| {
        match open(lab, *address, &hello) {
            Err(error) if is_reset(&error) => {}
            Err(error) => return Err(error),
            Ok(client) => bail!("Edge {} has answered", client.edge()),
        }
        let took = started.elapsed();
        ensure!(took < within, "reset after {took:?}");
        Ok(())
    })?;
    Ok(started.elapsed())
}

#[test]
fn another_edge_of_the_pool_takes_over_from_a_silent_one() {
    in_scenes("silent", &quiet(), |scene| {
        let _edges = scene.edges()?;
        faults::lose_incoming(&scene.lab.edge_a, 100)?;
        all_reach_b(scene.lab, ANOTHER_EDGE)?;
        let retries = scene.counter("bind-retries")?;
        ensure!(retries > 0, "nobody was sent to edge-a");
        ensure!(scene.counter("left-name")? == 0, "the agent had to help");
        scene.forgets(SOON)
    });
}

#[test]
fn where_all_edges_are_silent_the_client_is_reset() {
    on_hooks("all-silent", &quiet(), |scene| {
        let _edges = scene.edges()?;
        for edge in [&scene.lab.edge_a, &scene.lab.edge_b] {
            faults::lose_incoming(edge, 100)?;
        }
        for (name, pool) in [(NAME, "one"), (EITHER, "two")] {
            let before = scene.drops("edge-silent")?;
            let took = all_are_reset(scene.lab, name, NOBODY)?;
            eprintln!("a pool of {pool}, all silent: reset after {took:?} at most");
            let silent = scene.drops("edge-silent")? - before;
            ensure!(silent == 2 * CLIENTS as u64, "{silent} of {CLIENTS}");
            scene.forgets(SOON)?;
        }
        // They answer again.
        for edge in [&scene.lab.edge_a, &scene.lab.edge_b] {
            faults::stop_losing(edge)?;
        }
        for address in vips() {
            scene.reaches(address, NAME, "a", BOUND)?;
        }
        Ok(())
    });
}

#[test]
fn another_edge_of_the_pool_takes_over_from_one_that_refuses() {
    in_scenes("refusing", &quiet(), |scene| {
        // Without a listener edge-a's host sends RST.
        let _edge = EchoEdge::start(&scene.lab.edge_b, "b")?;
        all_reach_b(scene.lab, AT_ONCE)?;
        let refused = scene.drops("edge-refused")?;
        ensure!(refused > 0, "nobody was sent to edge-a");
        scene.forgets(SOON)
    });
}

#[test]
fn where_all_edges_refuse_the_client_is_reset() {
    in_scenes("all-refusing", &quiet(), |scene| {
        for (name, pool) in [(NAME, "one"), (EITHER, "two")] {
            let took = all_are_reset(scene.lab, name, NOBODY)?;
            eprintln!("a pool of {pool}, all refuse: reset after {took:?} at most");
            scene.forgets(SOON)?;
        }
        // One refusal is enough where there is no other Edge.
        let took = all_are_reset(scene.lab, NAME, AT_ONCE)?;
        eprintln!("a pool of one, which refuses: reset after {took:?} at most");
        let _edges = scene.edges()?;
        for address in vips() {
            scene.reaches(address, NAME, "a", BOUND)?;
        }
        Ok(())
    });
}

/// How a connection ends before the next one has its port.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Reset,
    EdgeFirst,
    ClientFirst,
    Crash,
}

#[test]
fn a_port_is_used_again_however_its_last_connection_ended() {
    in_scenes("reuse", &quiet(), |scene| {
        let [edge_a, _edge_b] = scene.edges()?;
        // Where the client's side rests, its kernel gives the port away after a second.
        scene.lab.partner.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        let hello = client_hello(NAME)?;
        for (port, ending) in (41000..).zip([
            Ending::Reset,
            Ending::EdgeFirst,
            Ending::ClientFirst,
            Ending::Crash,
        ]) {
            for address in vips() {
                for round in 0..4 {
                    let what = || format!("{ending:?}, {address}, round {round}");
                    let from = Some(end(address, port));
                    let partner = &scene.lab.partner;
                    // The last acknowledgement may still be on its way: until then the client's kernel keeps the port.
                    let opened = Deadline::after(AT_ONCE).poll("the port", || {
                        match Client::open(partner, from, address, &hello, Segments::Few) {
                            Err(error) if is_of_kind(&error, &[AddrNotAvailable]) => Ok(None),
                            opened => opened.map(Some),
                        }
                    });
                    let mut client = opened.with_context(what)?;
                    ensure!(client.setup() < AT_ONCE, "{}: {:?}", what(), client.setup());
                    scene.goes(&client, "a", BOUND).with_context(what)?;
                    client.ping().with_context(what)?;
                    match ending {
                        Ending::Reset => client.reset()?,
                        Ending::Crash => client.crash()?,
                        Ending::ClientFirst => {
                            client.close().with_context(what)?;
                            thread::sleep(Duration::from_millis(1200));
                        }
                        Ending::EdgeFirst => {
                            edge_a.close(client.seen()).with_context(what)?;
                            client.ended().with_context(what)?;
                        }
                    }
                }
            }
        }
        Ok(())
    });
}

/// The Edge has connections that the datapath knows nothing of, and answers a SYN for one with an acknowledgement (RFC 5961, 4.2).
#[test]
fn an_edge_that_remembers_an_earlier_connection_is_told_to_forget_it() {
    on_hooks("stale", &quiet(), |scene| {
        let _edges = scene.edges()?;
        let hello = client_hello(NAME)?;
        let ends: Vec<_> = vips()
            .into_iter()
            .flat_map(|address| (41000..41004).map(move |port| (address, end(address, port))))
            .collect();
        for (address, from) in &ends {
            let partner = &scene.lab.partner;
            let client = Client::open(partner, Some(*from), *address, &hello, Segments::Few)?;
            client.crash()?;
        }
        {
            let mut gateway = scene.gateway.borrow_mut();
            gateway.stop()?;
            gateway.run(&[])?;
        }
        for (address, from) in &ends {
            let partner = &scene.lab.partner;
            let opened = Client::open(partner, Some(*from), *address, &hello, Segments::Few);
            let mut client = opened.with_context(|| from.to_string())?;
            ensure!(client.setup() < AT_ONCE, "{:?}", client.setup());
            scene.goes(&client, "a", BOUND)?;
            client.ping()?;
            client.close()?;
        }
        let stale = scene.drops("stale-edge")?;
        ensure!(stale >= ends.len() as u64, "{stale} of {}", ends.len());
        scene.forgets(SOON)
    });
}
