//! Floods from addresses that nobody has: what is kept of them is bounded, and real connections begin and go on.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::limits::{
    MAX_HALF_OPEN, MAX_HELLOS, MAX_PENDING, MAX_SNI_LEARNED, MAX_SYNS_SEEN,
};
use snigate_tests::{
    Lab,
    addresses::{GATEWAY_WAN, PARTNER, vips},
    flood::{Flood, FloodReport, kilobytes},
    peers::{Segments, captured_hello, client_hello},
};

use crate::{BOUND, DOMAINS, EITHER, NAME, Scene, client::Client, on_hooks, quiet};

/// SYNs, and acknowledgements, in each family.
const PACKETS: u32 = 100_000;
/// Clients that complete a handshake and a hello.
const HELLOS: u32 = 10_000;
/// Within what is pending of nobody is swept: after half a minute, by a sweep every ten seconds. Real connections come and go during a flood, and an acknowledgement
/// that one processor is late with finds the cookie of a connection good that has begun on another one.
const SWEPT: Duration = Duration::from_secs(45);
/// What kernel and agent may have more than before, in kilobytes. The kernel's slab is the whole machine's, and has its Edges' sockets and threads.
const KERNEL_KB: u64 = 256 * 1024;
const AGENT_KB: u64 = 64 * 1024;
/// Likewise the agent, for each connection that it has and whose client says no more.
const CONNECTION_KB: u64 = 32;

#[derive(Clone, Copy, Debug)]
struct Memory {
    /// The kernel's slab.
    slab: u64,
    /// The agent.
    agent: u64,
}

fn memory(scene: &Scene<'_>) -> Result<Memory> {
    let pid = scene.gateway.borrow().pid()?;
    Ok(Memory {
        slab: kilobytes("/proc/meminfo", "Slab")?,
        agent: kilobytes(&format!("/proc/{pid}/status"), "VmRSS")?,
    })
}

fn tables(scene: &Scene<'_>) -> Result<String> {
    let mut text = String::new();
    for (map, most) in [
        ("PENDING", MAX_PENDING),
        ("HELLOS", MAX_HELLOS),
        ("HALF_OPEN", 2 * MAX_HALF_OPEN),
        ("SNI_LEARNED", MAX_SNI_LEARNED),
        ("CLIENT_SYNS", MAX_SYNS_SEEN),
    ] {
        let entries = scene.entries(map)?;
        ensure!(entries <= most as usize, "{entries} entries in {map}");
        text += &format!("{map} {entries}, ");
    }
    Ok(text)
}

/// So many new connections, one after the other, as long as `goes_on`.
fn real(lab: &Lab, goes_on: impl Fn() -> bool) -> Result<(usize, Duration)> {
    let hello = client_hello(NAME)?;
    let (mut count, mut longest) = (0, Duration::ZERO);
    while goes_on() || count < 4 {
        let address = vips()[count % 2];
        let what = || format!("real connection {count} to {address}");
        let opened = Client::open(&lab.partner, None, address, &hello, Segments::Few);
        let mut client = opened.with_context(what)?;
        longest = longest.max(client.setup());
        client.ping().with_context(what)?;
        client.close().with_context(what)?;
        count += 1;
    }
    Ok((count, longest))
}

/// Runs a flood in both families while real connections are made, and prints what it has cost; so many of its connections are the agent's.
fn flooded(
    scene: &Scene<'_>,
    what: &str,
    held: &mut [Client],
    agents: u32,
    flood: impl Fn(&Flood) -> Result<FloodReport> + Sync,
) -> Result<()> {
    let before = memory(scene)?;
    // The host answers, and makes connections, only where it has a route to.
    let [v4, v6] = PARTNER.both();
    scene.lab.gateway.ip(&format!(
        "route replace 198.18.0.0/15 via {v4}
         -6 route replace 2001:db8:f000::/36 via {v6}"
    ))?;
    for address in vips() {
        let next_hop = GATEWAY_WAN.both()[usize::from(address.is_ipv6())];
        let sender = Flood::new(&scene.lab.partner, "eth0", next_hop, address)?;
        let (lab, flood) = (scene.lab, &flood);
        let (report, (count, longest)) = thread::scope(|scope| -> Result<_> {
            let flooding = scope.spawn(move || flood(&sender));
            let real = real(lab, || !flooding.is_finished());
            for client in &mut *held {
                client.ping().context("established before the flood")?;
            }
            let report = flooding.join().expect("no panic")?;
            Ok((report, real.with_context(|| format!("in {report:?}"))?))
        })?;
        eprintln!(
            "{what} to {address}: {} packets in {:?}, {} SYN-ACKs; {}meanwhile {count} connections, setup {longest:?} at most",
            report.sent,
            report.took,
            report.answers,
            tables(scene)?
        );
    }
    let after = memory(scene)?;
    eprintln!("{what}: {before:?} before, {after:?} after (kB)");
    ensure!(after.slab < before.slab + KERNEL_KB, "the kernel's slab");
    let most = AGENT_KB + CONNECTION_KB * u64::from(agents);
    ensure!(after.agent < before.agent + most, "the agent");
    let (count, longest) = real(scene.lab, || false)?;
    eprintln!("{what}: then {count} connections, setup {longest:?} at most");
    for address in vips() {
        scene.reaches(address, NAME, "a", BOUND)?;
    }
    for client in held {
        client.ping().context("established before the flood")?;
    }
    Ok(())
}

fn held(scene: &Scene<'_>) -> Result<Vec<Client>> {
    let hello = client_hello(NAME)?;
    let open = |address: SocketAddr| scene.open(address, &hello);
    vips().into_iter().cycle().take(10).map(open).collect()
}

#[test]
fn a_flood_of_syns_leaves_nothing() {
    on_hooks("flood-syn", &quiet(), |scene| {
        let _edges = scene.edges()?;
        let mut held = held(scene)?;
        flooded(scene, "SYNs", &mut held, 0, |flood| flood.syns(PACKETS))?;
        let cookies = scene.counter("cookies")?;
        eprintln!("{cookies} cookies");
        ensure!(cookies > u64::from(PACKETS), "{cookies} cookies");
        scene.forgets(SWEPT)
    });
}

#[test]
fn a_flood_of_acknowledgements_without_a_cookie_leaves_nothing() {
    on_hooks("flood-ack", &quiet(), |scene| {
        let _edges = scene.edges()?;
        let mut held = held(scene)?;
        flooded(scene, "ACKs", &mut held, 0, |flood| {
            flood.acks(PACKETS, &[])
        })?;
        let hello = captured_hello("openssl-tls13")?;
        flooded(scene, "hellos without a cookie", &mut held, 0, |flood| {
            flood.acks(PACKETS / 4, &hello)
        })?;
        let bad = scene.counter("bad-cookies")?;
        eprintln!("{bad} bad cookies");
        ensure!(bad > u64::from(PACKETS), "{bad} bad cookies");
        scene.forgets(SWEPT)
    });
}

#[test]
fn a_flood_of_hellos_with_random_names_is_bounded() {
    on_hooks("flood-names", &quiet(), |scene| {
        let _edges = scene.edges()?;
        scene.configure("", DOMAINS)?;
        let mut held = held(scene)?;
        // One hello, whose name of equal length is changed.
        let hello = client_hello("sip.0123456789.example")?;
        let at = hello
            .windows(10)
            .position(|bytes| bytes == b"0123456789")
            .context("the name")?;
        let named = |n: u32| {
            let mut hello = hello.clone();
            hello[at..at + 10].copy_from_slice(format!("{n:010}").as_bytes());
            hello
        };
        flooded(scene, "random names", &mut held, 2 * HELLOS, |flood| {
            flood.hellos(HELLOS, named)
        })?;
        let left = scene.counter("left-name")?;
        let host = scene.lab.gateway.tcp_counters()?;
        let cookies = [
            "TcpExtSyncookiesRecv",
            "TcpExtSyncookiesFailed",
            "TcpExtListenOverflows",
            "TcpExtListenDrops",
        ];
        let cookies = cookies.map(|name| (name, host.value(name)));
        let agent = scene.gateway.borrow().agent()?["counters"].clone();
        eprintln!(
            "{left} left to the agent for their name; the host: {cookies:?}; the agent: {agent}"
        );
        // A queue on the way may be full for a moment, and these clients say nothing twice.
        let most = u64::from(2 * HELLOS) * 99 / 100;
        ensure!(left >= most, "{left}");
        ensure!(cookies[0].1 >= most, "{cookies:?}");
        Ok(())
    });
}

#[test]
fn a_flood_of_clients_that_are_gone_when_the_edge_answers_is_bounded() {
    on_hooks("flood-known", &quiet(), |scene| {
        let _edges = scene.edges()?;
        let mut held = held(scene)?;
        let hello = client_hello(EITHER)?;
        let started = Instant::now();
        flooded(scene, "known names", &mut held, 0, |flood| {
            flood.hellos(HELLOS / 4, |_| hello.clone())
        })?;
        let bound = scene.counter("bound")?;
        eprintln!("{bound} bound within {:?}", started.elapsed());
        scene.forgets(SWEPT)
    });
}
