//! Packets and clients that nobody has asked for.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Play, Scenario};
use crate::{
    addresses::{GATEWAY_WAN, PARTNER},
    chaos::Way,
    faults,
    flood::{Flood, FloodReport},
    peers::{client_hello, open_socket},
};

/// Of each way and family.
const PACKETS: u32 = 10_000;
const HELLOS: u32 = 1_000;
/// Clients that take their time.
const SLOW: usize = 100;
/// Sent with the addresses and ports of each connection, from either side.
const RESETS: u32 = 20;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "flood/syn",
            "SYNs from addresses that do not exist",
            |play| flood(play, &UNKNOWN_NAMES, |flood| flood.syns(PACKETS)),
        ),
        Scenario::new(
            "flood/ack",
            "segments of connections that do not exist, with and without data",
            |play| {
                let hello = client_hello(KNOWN)?;
                flood(play, &UNKNOWN_NAMES, |flood| {
                    flood.acks(PACKETS, &[])?;
                    flood.acks(PACKETS / 4, &hello)
                })
            },
        ),
        Scenario::new(
            "flood/hellos",
            "clients that send half of a ClientHello and are never heard of again",
            |play| {
                let hello = client_hello(KNOWN)?;
                flood(play, &INSPECTED, |flood| {
                    flood.hellos(HELLOS, |_| hello[..hello.len() / 2].to_vec())
                })
            },
        ),
        Scenario::new(
            "flood/slow-hellos",
            "clients that send their ClientHello byte by byte, and never all of it",
            slow_hellos,
        ),
        Scenario::new("flood/names", "ClientHellos with a new name each", names),
        Scenario::new(
            "flood/resets",
            "RSTs with the addresses and ports of each connection, and with numbers that are guessed",
            resets,
        ),
    ]
}

/// A name that is configured.
const KNOWN: &str = "sip.fabrikam.example";
/// Where every kind of packet has its own fate.
const UNKNOWN_NAMES: [Way; 3] = [Way::Steered, Way::Bound, Way::HandedOff];
/// Where somebody reads ClientHellos.
const INSPECTED: [Way; 2] = [Way::Bound, Way::HandedOff];

/// Floods the addresses of these ways, one after the other, while connections go on, and begin.
fn flood(
    play: &mut Play<'_, '_>,
    ways: &[Way],
    send: impl Fn(&Flood) -> Result<FloodReport>,
) -> Result<()> {
    let lab = play.stage.lab;
    // The host answers only where it has a route to.
    let [v4, v6] = PARTNER.both();
    lab.gateway.ip(&format!(
        "route replace 198.18.0.0/15 via {v4}
         -6 route replace 2001:db8:f000::/36 via {v6}"
    ))?;
    for way in ways {
        for (address, next_hop) in way.addresses().into_iter().zip(GATEWAY_WAN.both()) {
            let sender = Flood::new(&lab.partner, "eth0", next_hop, address)?;
            let report = send(&sender)?;
            play.note(format!(
                "{} to {address} in {:?}, {} SYN-ACKs",
                report.sent, report.took, report.answers
            ));
        }
        play.load.wait_for_held(|_| true).context("in a flood")?;
    }
    Ok(())
}

fn names(play: &mut Play<'_, '_>) -> Result<()> {
    // One hello, whose name of equal length is changed.
    let hello = client_hello("sip.0123456789.example")?;
    let at = hello.windows(10).position(|bytes| bytes == b"0123456789");
    let at = at.context("the name")?;
    let first = play.rng.u32(..1_000_000_000);
    flood(play, &INSPECTED, |flood| {
        flood.hellos(HELLOS, |n| {
            let mut hello = hello.clone();
            hello[at..at + 10].copy_from_slice(format!("{:010}", first + n).as_bytes());
            hello
        })
    })
}

fn slow_hellos(play: &mut Play<'_, '_>) -> Result<()> {
    let hello = client_hello(KNOWN)?;
    let addresses = INSPECTED.iter().flat_map(|way| way.addresses());
    let addresses: Vec<SocketAddr> = addresses.cycle().take(SLOW).collect();
    let mut slow = play.stage.lab.partner.run(|| {
        let open = |address: &SocketAddr| open_socket(None, *address, Duration::from_secs(30));
        Ok(addresses
            .iter()
            .map(open)
            .collect::<std::io::Result<Vec<TcpStream>>>()?)
    })?;
    let began = Instant::now();
    // As long as they are borne with, and longer.
    let borne = Duration::from_secs(7);
    for byte in &hello[..hello.len() - 1] {
        // Those that were sent away say no more.
        slow.retain_mut(|client| client.write_all(&[*byte]).is_ok());
        if slow.is_empty() || began.elapsed() > borne {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let left = slow.len();
    play.note(format!(
        "{left} of {SLOW} were left after {:?}",
        began.elapsed()
    ));
    play.load.wait_for_new(|_| true)
}

fn resets(play: &mut Play<'_, '_>) -> Result<()> {
    let lab = play.stage.lab;
    play.load.pause()?;
    let flows = play.stage.flows()?;
    let mut sent = 0;
    for (client, (way, edge)) in &flows {
        let address = way.addresses()[usize::from(client.is_ipv6())];
        for _ in 0..RESETS {
            faults::blind_reset(&lab.partner, *client, address, play.rng.u32(..))?;
            sent += 1;
            // The Edge speaks to the client itself, or to the agent by its name.
            let server = play.stage.edge_address(*edge, *way, client.is_ipv6());
            faults::blind_reset(play.stage.edge(*edge), server, *client, play.rng.u32(..))?;
            sent += 1;
        }
    }
    ensure!(sent > 0, "nobody to reset");
    play.note(format!("{sent} RSTs for {} connections", flows.len()));
    play.load.resume();
    Ok(())
}
