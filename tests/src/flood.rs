//! Floods: packets that no stack would send, from addresses that no stack has.

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{SlicedPacket, TransportSlice};
use socket2::Socket;

use crate::{
    line::{self, deliver},
    netns::Namespace,
    packets::frame::{ACK, Link, PSH, SYN, Tcp},
};

const LARGEST_FRAME: usize = 2048;
/// Packets that are sent before what has come back is looked at.
const BATCH: u32 = 64;
/// How often a client sends its SYN.
const TRIES: usize = 3;

/// A sender on a link, and what comes back to it.
#[derive(Debug)]
pub struct Flood {
    line: Socket,
    link: Link,
    target: SocketAddr,
    first: u32,
}

/// What a flood has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodReport {
    /// Packets that were sent.
    pub sent: u64,
    /// SYN-ACKs that came back.
    pub answers: u64,
    /// How long it took.
    pub took: Duration,
}

impl Flood {
    /// From `device` of `namespace` to `target`, whose Ethernet address is that of `gateway`, the next hop, and is known there.
    ///
    /// # Errors
    /// There is no such device, or the next hop does not answer.
    pub fn new(
        namespace: &Namespace,
        device: &str,
        gateway: IpAddr,
        target: SocketAddr,
    ) -> Result<Self> {
        namespace.ping(gateway, Duration::from_secs(5))?;
        let neighbours = namespace.output("ip", &["neigh", "show", &gateway.to_string()])?;
        let mut words = neighbours.split_whitespace();
        words.find(|word| *word == "lladdr");
        let destination = mac(words.next().unwrap_or_default())
            .with_context(|| format!("the next hop reads {neighbours:?}"))?;
        let own = namespace.output("ip", &["-o", "link", "show", device])?;
        let mut words = own.split_whitespace();
        words.find(|word| *word == "link/ether");
        let source = mac(words.next().unwrap_or_default())
            .with_context(|| format!("{device} reads {own:?}"))?;
        Ok(Self {
            line: namespace.run(|| line::open_incoming(device))?,
            link: Link {
                source,
                destination,
                tags: Vec::new(),
            },
            target,
            first: 0,
        })
    }

    /// Has what follows come from others of the flood's addresses and ports: those from this number on.
    pub fn begin_at(&mut self, first: u32) {
        self.first = first;
    }

    /// The `n`th of the flood's own addresses and ports: all differ.
    fn source(&self, n: u32) -> SocketAddr {
        let port = 1024 + (n % 60_000) as u16;
        let host = n / 16;
        let address = match self.target {
            // RFC 2544, section C.2.2.
            SocketAddr::V4(_) => {
                let [_, b, c, d] = (host & 0x1_ffff).to_be_bytes();
                Ipv4Addr::new(198, 18 + b, c, d).into()
            }
            // A /64 each.
            SocketAddr::V6(_) => {
                let [high, low] = [(host >> 16) as u16, host as u16];
                Ipv6Addr::new(0x2001, 0xdb8, 0xf000 | high, low, 0, 0, 0, 1).into()
            }
        };
        SocketAddr::new(address, port)
    }

    fn segment(&self, n: u32) -> Tcp {
        Tcp::new(self.link.clone(), self.source(n), self.target).seq(fastrand::u32(..))
    }

    fn send(&self, segment: &Tcp) -> Result<()> {
        deliver(self.line.send(&segment.frame())).context("sending a frame")
    }

    /// SYNs like Linux's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn syns(&self, count: u32) -> Result<FloodReport> {
        let options = [
            [2, 4, 5, 180, 4, 2, 8, 10].as_slice(),
            &[0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7],
        ]
        .concat();
        self.each(count, |n| self.segment(n).flags(SYN).options(&options))
    }

    /// Segments that acknowledge what nobody has sent, with these bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn acks(&self, count: u32, payload: &[u8]) -> Result<FloodReport> {
        self.each(count, |n| {
            let segment = self.segment(n).ack(fastrand::u32(..));
            let flags = if payload.is_empty() { ACK } else { ACK | PSH };
            segment.flags(flags).data(payload)
        })
    }

    /// Where it goes to.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// The frame of a SYN of the `n`th of the flood's own addresses and ports.
    #[must_use]
    pub fn syn(&self, n: u32) -> Vec<u8> {
        self.segment(n).flags(SYN).frame()
    }

    /// The frame of a segment of a connection from `source`, with these bytes and sequence numbers that are made up.
    #[must_use]
    pub fn data_from(&self, source: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let segment = Tcp::new(self.link.clone(), source, self.target);
        let segment = segment.seq(fastrand::u32(..)).ack(fastrand::u32(..));
        segment.flags(ACK | PSH).data(payload).frame()
    }

    /// Sends these frames one after the other for so long, over and over or `once`, and returns how many.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pour(&self, frames: &[Vec<u8>], time: Duration, once: bool) -> Result<u64> {
        let end = Instant::now() + time;
        let mut sent = 0;
        loop {
            for batch in frames.chunks(BATCH as usize) {
                if Instant::now() >= end {
                    return Ok(sent);
                }
                for frame in batch {
                    deliver(self.line.send(frame)).context("sending a frame")?;
                }
                sent += batch.len() as u64;
            }
            if once || frames.is_empty() {
                return Ok(sent);
            }
        }
    }

    fn each(&self, count: u32, segment: impl Fn(u32) -> Tcp) -> Result<FloodReport> {
        let started = Instant::now();
        let mut report = FloodReport::default();
        for n in self.first..self.first + count {
            self.send(&segment(n))?;
            report.sent += 1;
            if n % BATCH == 0 {
                while let Some(frame) = self.receive()? {
                    report.answers += u64::from(syn_ack(&frame).is_some());
                }
            }
        }
        report.took = started.elapsed();
        Ok(report)
    }

    /// Clients that open a connection, send what `hello` makes of their number, and are never heard of again.
    ///
    /// # Errors
    /// The kernel's, or nobody answers.
    pub fn hellos(&self, count: u32, hello: impl Fn(u32) -> Vec<u8>) -> Result<FloodReport> {
        let started = Instant::now();
        let mut report = FloodReport::default();
        let end = self.first + count;
        for first in (self.first..end).step_by(BATCH as usize) {
            let mut missing: Vec<u32> = (first..end.min(first + BATCH)).collect();
            // As any client does, since what else is under way may fill a queue.
            for _ in 0..TRIES {
                self.open(&mut missing, &hello, &mut report)?;
            }
        }
        ensure!(report.answers > 0, "nobody answers");
        report.took = started.elapsed();
        Ok(report)
    }

    /// Sends SYNs of the clients that nobody has answered, and hellos to who does within a second.
    fn open(
        &self,
        missing: &mut Vec<u32>,
        hello: &impl Fn(u32) -> Vec<u8>,
        report: &mut FloodReport,
    ) -> Result<()> {
        for n in &*missing {
            self.send(&self.segment(*n).flags(SYN))?;
        }
        let end = Instant::now() + Duration::from_secs(1);
        while !missing.is_empty() && Instant::now() < end {
            let Some(frame) = self.receive()? else {
                std::thread::yield_now();
                continue;
            };
            let Some((to, seq, ack)) = syn_ack(&frame) else {
                continue;
            };
            let Some(place) = missing.iter().position(|n| self.source(*n) == to) else {
                continue;
            };
            let n = missing.swap_remove(place);
            report.answers += 1;
            let segment = Tcp::new(self.link.clone(), to, self.target).seq(ack);
            let segment = segment.ack(seq.wrapping_add(1)).flags(ACK | PSH);
            self.send(&segment.data(&hello(n)))?;
            report.sent += 1;
        }
        Ok(())
    }

    fn receive(&self) -> Result<Option<Vec<u8>>> {
        let frame = line::receive(LARGEST_FRAME, |buffer| (&mut &self.line).read(buffer));
        frame.context("receiving a frame")
    }
}

/// To whom a SYN-ACK goes, its number, and the number that it acknowledges.
fn syn_ack(frame: &[u8]) -> Option<(SocketAddr, u32, u32)> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let address: IpAddr = match sliced.net? {
        etherparse::NetSlice::Ipv4(ip) => ip.header().destination_addr().into(),
        etherparse::NetSlice::Ipv6(ip) => ip.header().destination_addr().into(),
        etherparse::NetSlice::Arp(_) => return None,
    };
    let TransportSlice::Tcp(tcp) = sliced.transport? else {
        return None;
    };
    let to = SocketAddr::new(address, tcp.destination_port());
    (tcp.syn() && tcp.ack()).then_some((to, tcp.sequence_number(), tcp.acknowledgment_number()))
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>()?;
    match bytes.try_into() {
        Ok(mac) => Ok(mac),
        Err(bytes) => bail!("{bytes:?} is no Ethernet address"),
    }
}

/// A line of `/proc/meminfo` or of a process's status, in kilobytes.
///
/// # Errors
/// There is no such line.
pub fn kilobytes(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    let value = value.with_context(|| format!("no {name} in {file}"))?;
    Ok(value.parse()?)
}
