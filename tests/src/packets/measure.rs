//! How long a packet takes: the kernel's own clock around the program (BPF_PROG_TEST_RUN with a repeat count).
//!
//! A repeated run gets its own output as its next input. What is passed or dropped is the same packet again, and is repeated as it is. A
//! packet of a flow is another one afterwards: so flows are made in a [`Ring`], each of which translates a packet into the next one's. What
//! is answered, or opens a flow, is run once per call, and its time has the clock's own cost in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use sni_common::checksum;
use sni_common::contract::{Flow, FlowKey, NextHop, VlanTag};
use sni_user::datapath::Maps;

use super::flows::key;
use super::frame::{ACK, Link, PSH, Tcp};
use super::plan::Family;
use super::rig::{Port, Rig};
use super::scene::context;
use crate::addresses::{SIP_TLS, VIP_1};

/// Packets of one call through a ring: each costs a hop, and there are 255.
pub const HOPS_USED: u32 = 200;

/// Keeps this thread on the CPU that it is on: what warms up on one is cold on another.
///
/// # Errors
/// The kernel's.
pub fn stay_on_this_cpu() -> Result<()> {
    let mut set = CpuSet::new();
    set.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Runs a frame `repeat` times and returns the nanoseconds of one, as the kernel reports them, and the verdict of the last.
///
/// # Errors
/// The kernel refuses the test run.
pub fn time(program: &Xdp, frame: &[u8], ifindex: u32, repeat: u32) -> Result<(u32, u32)> {
    let context = context(frame.len(), ifindex);
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        })
        .context("running a packet")?;
    Ok((result.duration.as_nanos() as u32, result.return_value))
}

/// Flows of which each rewrites a packet to the next one's addresses, in an order that no cache can foresee.
pub struct Ring {
    keys: Vec<SocketAddr>,
    family: Family,
    tags: Vec<(u16, u16)>,
}

impl Ring {
    /// Fills FLOWS with a ring of `count` flows; entries of an earlier ring that are not part of it stay.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn fill(
        maps: &mut Maps,
        rig: &Rig,
        family: Family,
        tags: &[(u16, u16)],
        count: u32,
        random: &mut fastrand::Rng,
    ) -> Result<Self> {
        let mut keys: Vec<SocketAddr> = (0..count).map(|n| client(family, n)).collect();
        random.shuffle(&mut keys);
        let ring = Self {
            keys,
            family,
            tags: tags.to_vec(),
        };
        let next_hop = next_hop(rig, tags);
        for (i, from) in ring.keys.iter().enumerate() {
            let to = ring.keys[(i + 1) % ring.keys.len()];
            let (from, to) = (ring.key(*from), ring.key(to));
            maps.flows.insert(from, entry(&from, &to, next_hop), 0)?;
        }
        Ok(ring)
    }

    /// A packet of one of its flows, with every hop to spend.
    #[must_use]
    pub fn packet(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let client = self.keys[random.usize(..self.keys.len())];
        let link = Link {
            tags: self.tags.clone(),
            ..Port::Wan0.arriving()
        };
        Tcp::new(link, client, self.service())
            .flags(PSH | ACK)
            .seq(1)
            .ack(1)
            .data(&[0x55; 64])
            .hops(255)
            .frame()
    }

    /// Whether the packets of a run have gone round: the account of each flow, summed.
    ///
    /// # Errors
    /// The map can't be read, or an entry is gone.
    pub fn packets(&self, maps: &Maps) -> Result<u64> {
        let mut sum = 0;
        for client in &self.keys {
            sum += maps.flows.get(&self.key(*client), 0)?.packets;
        }
        Ok(sum)
    }

    fn key(&self, client: SocketAddr) -> FlowKey {
        key(client, self.service())
    }

    /// The service that all flows go to, before and after each hop: the filter of endpoints knows it.
    fn service(&self) -> SocketAddr {
        self.family.socket(VIP_1, SIP_TLS)
    }
}

/// The `n`th client.
#[must_use]
pub fn client(family: Family, n: u32) -> SocketAddr {
    // 10,000 ports of each address, from 192.0.2.0 and 2001:db8:2:: on; 128 of the former are routed.
    let (host, port) = (n / 10_000, 10_000 + n % 10_000);
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(0xc000_0200 + host)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(
            0x2001_0db8_0002_0000_0000_0000_0000_0000 + u128::from(host),
        )),
    };
    SocketAddr::new(address, port as u16)
}

fn entry(from: &FlowKey, to: &FlowKey, next_hop: NextHop) -> Flow {
    let addresses = checksum::change_address(&from.source, &to.source)
        + checksum::change_address(&from.destination, &to.destination);
    let ports = checksum::change(from.ports_word(), to.ports_word());
    Flow {
        rewrite: *to,
        ip_delta: checksum::fold(addresses),
        port_delta: checksum::fold(addresses + ports),
        next_hop,
        // The route is looked up once a second; this is about all the other packets.
        next_hop_until_ns: u64::MAX,
        ..Flow::default()
    }
}

fn next_hop(rig: &Rig, tags: &[(u16, u16)]) -> NextHop {
    let link = Port::Lan0.leaving();
    let macs = [link.destination, link.source].concat();
    let mut hop = NextHop {
        ifindex: rig.index(Port::Lan0),
        mtu: 1500,
        ..NextHop::default()
    };
    for (word, bytes) in hop.ethernet.iter_mut().zip(macs.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for (tag, (protocol, control)) in hop.tags.iter_mut().zip(tags) {
        *tag = VlanTag {
            protocol_be: protocol.to_be(),
            control_be: control.to_be(),
        };
    }
    hop
}

/// Times of one kind of packet.
#[derive(Clone, Debug)]
pub struct Times {
    /// Nanoseconds of one packet, per call, sorted.
    calls: Vec<u32>,
    /// Packets of all calls.
    pub packets: u64,
}

impl Times {
    /// Collects the times of calls that each ran `repeat` packets.
    ///
    /// # Errors
    /// There were none.
    pub fn new(mut calls: Vec<u32>, repeat: u32) -> Result<Self> {
        ensure!(!calls.is_empty(), "no call was timed");
        calls.sort_unstable();
        let packets = calls.len() as u64 * u64::from(repeat);
        Ok(Self { calls, packets })
    }

    /// Adds the times of another round.
    pub fn add(&mut self, other: Self) {
        self.calls.extend(other.calls);
        self.calls.sort_unstable();
        self.packets += other.packets;
    }

    /// The time that a share of the calls stayed below, in nanoseconds.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u32 {
        let last = self.calls.len() - 1;
        self.calls[(last as f64 * share).round() as usize]
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> u32 {
        self.quantile(0.5)
    }
}
