//! Packets and clients that nobody has asked for.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sni_common::contract::limits::{MAX_HALF_OPEN, MAX_HELLOS, MAX_SNI_LEARNED};

use super::{Play, Scenario};
use crate::{
    Namespace,
    addresses::{EDGE_B, GATEWAY_WAN, PARTNER},
    chaos::{Way, load::PATIENCE, stage::Setting},
    deadline::Deadline,
    faults,
    flood::Flood,
    peers::{client_hello, open_socket},
};

/// Of each way and family, at least.
const PACKETS: u32 = 10_000;
const HELLOS: u32 = 1_000;
/// Clients that take their time.
const SLOW: usize = 100;
/// How long they are borne with, and how long at least, by anybody's clock.
const BORNE: &str = "hello_timeout = \"15s\"";
const SURELY_BORNE: Duration = Duration::from_secs(14);
/// Sent with the addresses and ports of each connection, from either side.
const RESETS: u32 = 20;
/// Clients that the agent alone serves come no faster than an agent without optimisation can serve them beside others: this much longer than they took.
const RESTS: u32 = 4;
/// Of a hundred places of a map so many must be taken, of a hundred RSTs to connections so many counted.
const MOST: u64 = 90;

/// A way whose addresses are flooded.
struct Flooded {
    way: Way,
    /// What counts the packets (see `Stage::counts`).
    counter: &'static str,
    /// A map that is full of them before anything is examined, and its room.
    fills: Option<(&'static str, u32)>,
}

impl Flooded {
    const fn new(way: Way, counter: &'static str) -> Self {
        Self {
            way,
            counter,
            fills: None,
        }
    }

    fn is_the_agents(&self) -> bool {
        self.counter.starts_with("agent/")
    }

    const fn filling(self, map: &'static str, room: u32) -> Self {
        let fills = Some((map, room));
        Self { fills, ..self }
    }
}

const BY_SYNS: &[Flooded] = &[
    Flooded::new(Way::Steered, "steered").filling("HALF_OPEN", 2 * MAX_HALF_OPEN),
    Flooded::new(Way::Bound, "cookies"),
    Flooded::new(Way::HandedOff, "inspected"),
];
/// A steered one may belong to a flow that was lost: the Edge says that it does not.
const BY_ACKS: &[Flooded] = &[
    Flooded::new(Way::Steered, "edges/TcpOutRsts"),
    Flooded::new(Way::Bound, "bad-cookies"),
    Flooded::new(Way::HandedOff, "host/TcpOutRsts"),
];
const BY_PARTS: &[Flooded] = &[
    Flooded::new(Way::Bound, "hello-parts").filling("HELLOS", MAX_HELLOS),
    Flooded::new(Way::HandedOff, "agent/accepted"),
];
/// The agent's alone first: it is late with those that it is left by the other way.
const BY_NAMES: &[Flooded] = &[
    Flooded::new(Way::HandedOff, "agent/unrecognized-name"),
    Flooded::new(Way::Bound, "left-name").filling("SNI_LEARNED", MAX_SNI_LEARNED),
];

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "flood/syn",
            "SYNs from addresses that do not exist",
            |play| {
                flood(play, BY_SYNS, PACKETS, |flood| {
                    Ok(flood.syns(PACKETS)?.sent)
                })
            },
        ),
        Scenario::new(
            "flood/ack",
            "segments of connections that do not exist, with and without data",
            |play| {
                let hello = client_hello(KNOWN)?;
                flood(play, BY_ACKS, PACKETS, |flood| {
                    let bare = flood.acks(PACKETS * 3 / 4, &[])?;
                    Ok(bare.sent + flood.acks(PACKETS / 4, &hello)?.sent)
                })
            },
        ),
        Scenario::new(
            "flood/hellos",
            "clients that send a part of a ClientHello and are never heard of again",
            |play| {
                let part = up_to_name(KNOWN)?;
                flood(play, BY_PARTS, HELLOS, |flood| {
                    Ok(flood.hellos(HELLOS, |_| part.clone())?.sent)
                })
            },
        ),
        Scenario::new(
            "flood/slow-hellos",
            "clients that send their ClientHello byte by byte, and never all of it",
            slow_hellos,
        )
        .with_setting(|_, _| {
            Ok(Setting {
                gateway: BORNE,
                ..Setting::default()
            })
        }),
        Scenario::new("flood/names", "ClientHellos with a new name each", names),
        Scenario::new(
            "flood/resets",
            "RSTs with the addresses and ports of each connection, and with numbers that are guessed, or known almost",
            resets,
        ),
    ]
}

/// A name that is configured.
const KNOWN: &str = "sip.fabrikam.example";

/// Floods the addresses of these ways, one after the other, each for as long as connections need to go on, to begin, and to end, and until so many packets
/// have arrived.
fn flood(
    play: &mut Play<'_, '_>,
    flooded: &[Flooded],
    least: u32,
    send: impl Fn(&Flood) -> Result<u64> + Sync,
) -> Result<()> {
    let lab = play.stage.lab;
    // The host answers only where it has a route to.
    let [v4, v6] = PARTNER.both();
    lab.gateway.ip(&format!(
        "route replace 198.18.0.0/15 via {v4}
         -6 route replace 2001:db8:f000::/36 via {v6}"
    ))?;
    for it in flooded {
        for (address, next_hop) in it.way.addresses().into_iter().zip(GATEWAY_WAN.both()) {
            let sender = Flood::new(&lab.partner, "eth0", next_hop, address)?;
            let before = play.stage.counts()?;
            let began = Instant::now();
            let sent = while_examined(it, sender, &send, || {
                examine(play, it.fills)?;
                wait_until_counted(play, it, &before, least.into())
            })?;
            let counted = counted(it.counter, &before, &play.stage.counts()?);
            play.note(format!(
                "{sent} to {address} in {:?}, {counted} counted",
                began.elapsed()
            ));
        }
    }
    Ok(())
}

/// Sends for as long as somebody examines what becomes of it, and returns how many packets that were.
fn while_examined(
    flooded: &Flooded,
    mut sender: Flood,
    send: &(impl Fn(&Flood) -> Result<u64> + Sync),
    examine: impl FnOnce() -> Result<()>,
) -> Result<u64> {
    let examined = AtomicBool::new(false);
    thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let mut sent = 0;
            while sent == 0 || !examined.load(Ordering::Relaxed) {
                sender.begin_at(u32::try_from(sent)?);
                let began = Instant::now();
                sent += send(&sender)?;
                if flooded.is_the_agents() {
                    thread::sleep(RESTS * began.elapsed());
                }
            }
            anyhow::Ok(sent)
        });
        let well = examine();
        examined.store(true, Ordering::Relaxed);
        let sent = flooding.join().map_err(|_| anyhow!("a flood panicked"))?;
        well.with_context(|| format!("in a flood, {sent:?}"))?;
        sent
    })
}

fn examine(play: &Play<'_, '_>, fills: Option<(&str, u32)>) -> Result<()> {
    if let Some((map, room)) = fills {
        // Its last places are free lists of the processors.
        let is_full = |entries: u64| entries * 100 >= u64::from(room) * MOST;
        Deadline::after(PATIENCE).poll(&format!("a full {map}"), || {
            Ok(is_full(play.stage.entries(map)?).then_some(()))
        })?;
    }
    play.load.wait_for_held(|_| true)?;
    play.load.wait_for_new(|_| true)
}

/// So many packets have come to where they were meant to, as a counter says. On a busy machine others are lost in a queue on the way.
fn wait_until_counted(
    play: &Play<'_, '_>,
    it: &Flooded,
    before: &Counts,
    least: u64,
) -> Result<()> {
    let mut told = String::new();
    let outcome = Deadline::after(PATIENCE).poll("packets to be counted", || {
        let after = play.stage.counts()?;
        let counted = counted(it.counter, before, &after);
        told = format!(
            "{counted} packets are {}: {:?}",
            it.counter,
            all_counted(before, &after)
        );
        Ok((counted >= least).then_some(()))
    });
    outcome.context(told)
}

type Counts = BTreeMap<String, u64>;

fn counted(counter: &str, before: &Counts, after: &Counts) -> u64 {
    // The agent has no counter for what has never happened.
    let count = |counts: &Counts| counts.get(counter).copied().unwrap_or(0);
    count(after).saturating_sub(count(before))
}

/// Whatever was counted between two looks.
fn all_counted<'a>(before: &Counts, after: &'a Counts) -> BTreeMap<&'a str, u64> {
    let added = after
        .keys()
        .map(|counter| (counter.as_str(), counted(counter, before, after)));
    added.filter(|(_, count)| *count > 0).collect()
}

fn names(play: &mut Play<'_, '_>) -> Result<()> {
    // One hello, whose name of equal length is changed.
    let hello = client_hello("sip.0123456789.example")?;
    let at = position(&hello, b"0123456789").context("the name")?;
    let first = play.rng.u32(..1_000_000_000);
    flood(play, BY_NAMES, HELLOS, |flood| {
        let named = flood.hellos(HELLOS, |n| {
            let mut hello = hello.clone();
            hello[at..at + 10].copy_from_slice(format!("{:010}", first + n).as_bytes());
            hello
        })?;
        Ok(named.sent)
    })
}

/// A ClientHello up to its name and a little further: the datapath keeps a part with a name that it knows, and leaves others to the agent.
fn up_to_name(name: &str) -> Result<Vec<u8>> {
    // Extensions come in any order.
    for _ in 0..100 {
        let mut part = client_hello(name)?;
        let end = position(&part, name.as_bytes()).context("the name")? + name.len();
        if end + 20 < part.len() {
            part.truncate(end + 10);
            return Ok(part);
        }
    }
    bail!("the name is always at the end")
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|bytes| bytes == wanted)
}

/// A client that says a byte of its hello at a time, and never all of it.
struct Slow<'a> {
    address: SocketAddr,
    hello: &'a [u8],
    socket: TcpStream,
    since: Instant,
    said: usize,
}

fn slow_hellos(play: &mut Play<'_, '_>) -> Result<()> {
    let partner = &play.stage.lab.partner;
    let hello = client_hello(KNOWN)?;
    let addresses = [Way::Bound, Way::HandedOff].map(Way::addresses).concat();
    let addresses = addresses.iter().cycle().take(SLOW);
    let slow = addresses.map(|address| Slow::open(partner, *address, &hello));
    let mut slow = slow.collect::<Result<Vec<_>>>()?;
    let examined = AtomicBool::new(false);
    let again = thread::scope(|scope| {
        let talking = scope.spawn(|| {
            let mut again = 0;
            while !examined.load(Ordering::Relaxed) {
                for one in &mut slow {
                    again += u32::from(one.go_on(partner)?);
                }
                thread::sleep(Duration::from_millis(100));
            }
            anyhow::Ok(again)
        });
        let held = play.load.wait_for_held(|_| true);
        let new = held.and_then(|()| play.load.wait_for_new(|_| true));
        examined.store(true, Ordering::Relaxed);
        let again = talking.join().map_err(|_| anyhow!("a client panicked"))??;
        new.context("beside slow clients")?;
        anyhow::Ok(again)
    })?;
    Deadline::after(PATIENCE).poll("slow clients to be sent away", || {
        Ok((!slow.iter().any(|one| is_open(&one.socket))).then_some(()))
    })?;
    let early = slow.iter().find(|one| one.since.elapsed() < SURELY_BORNE);
    ensure!(early.is_none(), "a slow client was sent away too early");
    play.note(format!(
        "{SLOW} were there all the time, {again} of them anew"
    ));
    Ok(())
}

impl<'a> Slow<'a> {
    fn open(partner: &Namespace, address: SocketAddr, hello: &'a [u8]) -> Result<Self> {
        // Nobody can be sent away that long after it.
        let since = Instant::now();
        let socket = partner.run(|| Ok(open_socket(None, address, PATIENCE)?))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            address,
            hello,
            socket,
            since,
            said: 0,
        })
    }

    /// Says a byte; or, where it was sent away, comes once more. Whether that was so.
    fn go_on(&mut self, partner: &Namespace) -> Result<bool> {
        if !is_open(&self.socket) {
            let borne = self.since.elapsed();
            ensure!(borne >= SURELY_BORNE, "sent away after {borne:?}");
            *self = Self::open(partner, self.address, self.hello)?;
            return Ok(true);
        }
        if self.said + 1 < self.hello.len() {
            // Who is sent away in this very moment is met the next time.
            let _ = self.socket.write_all(&self.hello[self.said..=self.said]);
            self.said += 1;
        }
        Ok(false)
    }
}

/// Nobody has said a word to it, or closed.
fn is_open(client: &TcpStream) -> bool {
    let said = client.peek(&mut [0]);
    said.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// An RST to one end, with the number that its receiver waits for, as far as that is known.
struct Reset {
    /// Of an Edge, or the partner.
    edge: Option<usize>,
    from: SocketAddr,
    to: SocketAddr,
    expected: Option<u32>,
}

fn resets(play: &mut Play<'_, '_>) -> Result<()> {
    let lab = play.stage.lab;
    let paused = play.load.pause();
    let mut aimed = of_the_datapath(play)?;
    aimed.extend(of_the_agent(play)?);
    let before = play.stage.counts()?;
    let mut stray = 0;
    for reset in &aimed {
        for n in 0..RESETS {
            let sequence = match reset.expected {
                // In the window, and not what is expected now or after some more kilobytes (RFC 5961, section 3.2).
                Some(expected) if n % 2 == 0 => {
                    let kilobytes = play.rng.u32(1..16);
                    expected.wrapping_add(1024 * kilobytes + play.rng.u32(1..1024))
                }
                _ => play.rng.u32(..),
            };
            let machine = reset
                .edge
                .map_or(&lab.partner, |index| play.stage.edge(index));
            faults::blind_reset(machine, reset.from, reset.to, sequence)?;
            stray += u64::from(reset.expected.is_some());
        }
    }
    play.load.wait_for_held(|_| true).context("after RSTs")?;
    let counted = counted("stray-resets", &before, &play.stage.counts()?);
    play.note(format!(
        "{} RSTs to {} ends, {counted} of {stray} to the datapath's counted",
        aimed.len() * RESETS as usize,
        aimed.len()
    ));
    ensure!(
        stray > 0 && counted * 100 >= stray * MOST,
        "of {stray} RSTs to the datapath's flows {counted} are stray"
    );
    drop(paused);
    Ok(())
}

/// To both ends of each connection that stays and has a flow: the datapath tells what comes next.
fn of_the_datapath(play: &Play<'_, '_>) -> Result<Vec<Reset>> {
    let held = play.load.clients_held();
    let mut resets = Vec::new();
    for flow in play.stage.entries_of_flows()? {
        let address = |tuple: &str, end: &str| -> Result<SocketAddr> {
            let text = flow[tuple][end].as_str();
            Ok(text.with_context(|| format!("{flow}"))?.parse()?)
        };
        let (from, to) = (
            address("arrives", "source")?,
            address("arrives", "destination")?,
        );
        let to_edge = flow["direction"] == "to-edge";
        let client = if to_edge {
            from
        } else {
            address("leaves", "destination")?
        };
        if !held.contains_key(&client) {
            continue;
        }
        let expected = flow["next_seq"].as_u64().context("a sequence number")?;
        resets.push(Reset {
            edge: (!to_edge).then(|| usize::from(EDGE_B.both().contains(&from.ip()))),
            from,
            to,
            expected: Some(u32::try_from(expected)?),
        });
    }
    Ok(resets)
}

/// To both legs of those that the agent carries, from both ends.
fn of_the_agent(play: &Play<'_, '_>) -> Result<Vec<Reset>> {
    let held = play.load.clients_held();
    let mut resets = Vec::new();
    for (client, (way, edge)) in play.stage.flows()? {
        if !way.is_the_agents() || !held.contains_key(&client) {
            continue;
        }
        // The agent speaks to the Edge by the client's name.
        let server = play.stage.edge_address(edge, way, client.is_ipv6());
        for (edge, from, to) in [
            (None, client, way.addresses()[usize::from(client.is_ipv6())]),
            (Some(edge), server, client),
        ] {
            resets.push(Reset {
                edge,
                from,
                to,
                expected: None,
            });
        }
    }
    Ok(resets)
}
