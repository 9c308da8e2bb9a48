//! The bench of the datapath: which packets, how often, and what they are measured against.

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use etherparse::{EtherType, IpNumber};
use nix::net::if_::if_nametoindex;
use sni_common::contract::EdgeState;
use sni_user::datapath::ProgramFacts;

use super::frame::{FIN, Link, SYN, Tcp, ether_type, ipv4};
use super::icmp::Icmp;
use super::measure::{HOPS_USED, Ring, Times, client, time};
use super::plan::{Family, Path, configuration};
use super::rig::{Port, Rig};
use super::scene::{Scene, XDP_DROP, XDP_PASS, XDP_REDIRECT};
use crate::addresses::{EDGE_A, PARTNER, VIP_1};

/// Aim for a packet that is none of ours.
const FOREIGN_AIM: u32 = 40;
/// Aim for a packet of an established flow.
const ESTABLISHED_AIM: u32 = 100;
/// Flows of the rings that classes are measured with.
const RING: u32 = 1_000;
/// Sizes of the rings of the curve.
const CURVE: [u32; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 300_000, 1_000_000];
/// Every packet, also of the curve's largest ring.
const MAX_FLOWS: u32 = 1_100_000;
/// Sizes of pools, up to the largest.
const EDGES: [u32; 4] = [1, 4, 16, 64];
/// SYNs for each of them and each round.
const SYNS: u32 = 1_000;
/// No budget may stop the flood of SYNs that measures a SYN.
const LIMITS: &str = "[limits]\nsyn_per_source = \"1000000/s\"\n";

/// A kind of packet, measured.
#[derive(Clone, Debug)]
pub struct Class {
    /// What it belongs to.
    pub group: &'static str,
    /// What it is.
    pub name: String,
    /// How long it takes.
    pub times: Times,
    /// How long it should take at most, in nanoseconds.
    pub aim: Option<u32>,
}

/// A point of the curve.
#[derive(Clone, Debug)]
pub struct Point {
    /// How many flows, or Edges, there are.
    pub count: u32,
    /// How long a packet takes.
    pub times: Times,
}

/// The bench: a datapath with room for a million flows, and what is asked for.
pub struct Bench<'a> {
    rig: &'a Rig,
    scene: Scene<'a>,
    only: String,
    random: fastrand::Rng,
    classes: Vec<Class>,
    round: u32,
    /// How many of [`Bench::edges`] there have been.
    syns: u32,
}

impl<'a> Bench<'a> {
    /// Loads the datapath; only classes whose name contains `only` are measured.
    ///
    /// # Errors
    /// The datapath can't be loaded.
    pub fn new(rig: &'a Rig, only: &str) -> Result<Self> {
        let mut scene = Scene::new(rig, "bench", MAX_FLOWS)?;
        // The kernel patches the program into its dispatcher for a repeated run, and waits for every CPU to have seen that: 20 ms a call,
        // unless it is there already because an interface runs it. This one is silent.
        let far = if_nametoindex("wan1-far").context("the far end of wan1")?;
        let program = scene.datapath().program()?;
        program.attach_to_if_index(far, XdpMode::Driver)?;
        scene.configure(&configuration(LIMITS))?;
        Ok(Self {
            rig,
            scene,
            only: only.to_owned(),
            random: fastrand::Rng::with_seed(5061),
            classes: Vec::new(),
            round: 0,
            syns: 0,
        })
    }

    /// What the kernel says of the program that is measured, the one for XDP.
    ///
    /// # Errors
    /// It does not answer.
    pub fn facts(&mut self) -> Result<ProgramFacts> {
        let facts = self.scene.datapath().facts()?;
        facts
            .into_iter()
            .next()
            .context("a datapath without programs")
    }

    /// Measures the classes, in rounds, so that a busy moment of the machine is not all that one of them sees; `progress` is told what
    /// comes next.
    ///
    /// # Errors
    /// A packet does not meet with the fate that its class is about.
    pub fn classes(&mut self, rounds: u32, progress: impl Fn(&str)) -> Result<Vec<Class>> {
        for round in 0..rounds {
            self.round = round;
            let say =
                |what: &str| progress(&format!("round {} of {rounds}: {what} ...", round + 1));
            say("packets that are none of ours");
            self.floor()?;
            self.foreign()?;
            say("packets of established flows");
            self.established()?;
            say("packets that open flows");
            self.opening()?;
            say("packets that are dropped or answered");
            self.refused()?;
        }
        Ok(std::mem::take(&mut self.classes))
    }

    /// Measures an established flow's packet among more and more flows.
    ///
    /// # Errors
    /// A flow can't be made, or its packet is not forwarded.
    pub fn curve(&mut self, rounds: u32, progress: impl Fn(&str)) -> Result<Vec<Point>> {
        let mut points = Vec::new();
        if !self.wanted("curve") {
            return Ok(points);
        }
        for flows in CURVE {
            progress(&format!("{flows} flows ..."));
            let calls = (flows / 50).clamp(1_000, 10_000) * rounds;
            let times = self.ring(Family::V4, &[], flows, calls)?;
            points.push(Point {
                count: flows,
                times: Times::new(times, HOPS_USED)?,
            });
        }
        Ok(points)
    }

    /// Measures SYNs by the number of Edges in the pool that they choose from.
    ///
    /// # Errors
    /// The configuration does not fit, or a SYN is not forwarded.
    pub fn edges(&mut self, rounds: u32) -> Result<Vec<Point>> {
        let mut points = Vec::new();
        if !self.wanted("edges") {
            return Ok(points);
        }
        for edges in EDGES {
            self.scene.configure(&many_edges(edges))?;
            let mut times = Vec::new();
            for n in 0..SYNS * rounds {
                // Other clients than everybody else's, and for each pool again: a SYN that is known already would cost less.
                self.syns += 1;
                let path = Path::usual(Family::V4).from(client(Family::V4, 1_100_000 + self.syns));
                let ns = self.once(Port::Wan0, &path.syn().frame(), XDP_REDIRECT)?;
                if n >= SYNS / 10 {
                    times.push(ns);
                }
            }
            points.push(Point {
                count: edges,
                times: Times::new(times, 1)?,
            });
        }
        self.scene.configure(&configuration(LIMITS))?;
        Ok(points)
    }

    fn wanted(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    fn floor(&mut self) -> Result<()> {
        const GROUP: &str = "the floor: a program that only passes";
        let frame = udp();
        let index = self.rig.index(Port::Wan0);
        for (name, repeat, calls) in [
            ("no datapath, repeated", 1_000, 100),
            ("no datapath, one at a time", 1, 1_000),
        ] {
            if !self.wanted(name) {
                continue;
            }
            let mut times = Vec::new();
            for _ in 0..calls {
                times.push(time(self.rig.pass(), &frame, index, repeat)?.0);
            }
            self.add(GROUP, name, times, repeat, None)?;
        }
        Ok(())
    }

    fn foreign(&mut self) -> Result<()> {
        const GROUP: &str = "none of ours, passed (repeated)";
        let path = Path::usual(Family::V4);
        let to = |port| {
            let mut destination = path.service;
            destination.set_port(port);
            let packet = Tcp::new(Port::Wan0.arriving(), path.client, destination);
            packet.seq(1).ack(1).data(&[0x55; 64])
        };
        let mut elsewhere = to(5061);
        elsewhere.destination = Family::V4.socket(EDGE_A, 5061);
        let v6 = Path::usual(Family::V6);
        let mut v6_elsewhere = v6.client_packet().ack(1).data(&[0x55; 64]);
        v6_elsewhere.destination.set_port(443);
        let mut fragment = to(5061).frame();
        fragment[20] = 0x20;
        for (name, frame, aim) in [
            ("ARP", arp(), Some(FOREIGN_AIM)),
            ("UDP", udp(), Some(FOREIGN_AIM)),
            ("TCP, port 443", to(443).frame(), Some(FOREIGN_AIM)),
            (
                "TCP, port 443, IPv6",
                v6_elsewhere.frame(),
                Some(FOREIGN_AIM),
            ),
            (
                "TCP, our port, another address",
                elsewhere.frame(),
                Some(FOREIGN_AIM),
            ),
            ("a fragment of a VIP", fragment, None),
        ] {
            self.repeated(GROUP, name, &frame, XDP_PASS, aim)?;
        }
        Ok(())
    }

    fn established(&mut self) -> Result<()> {
        const GROUP: &str = "established flows, 1000 of them, forwarded (round a ring)";
        for (name, family, tags) in [
            ("IPv4", Family::V4, &[][..]),
            ("IPv6", Family::V6, &[][..]),
            ("IPv4, one VLAN tag", Family::V4, &[(0x8100, 100)][..]),
        ] {
            let name = format!("established, {name}");
            if !self.wanted(&name) {
                continue;
            }
            let times = self.ring(family, tags, RING, 1_000)?;
            self.add(GROUP, &name, times, HOPS_USED, Some(ESTABLISHED_AIM))?;
        }
        Ok(())
    }

    /// Times packets round a ring of flows.
    fn ring(
        &mut self,
        family: Family,
        tags: &[(u16, u16)],
        flows: u32,
        calls: u32,
    ) -> Result<Vec<u32>> {
        let index = self.rig.index(Port::Wan0);
        let datapath = self.scene.datapath();
        let ring = Ring::fill(
            &mut datapath.maps,
            self.rig,
            family,
            tags,
            flows,
            &mut self.random,
        )?;
        let mut times = Vec::new();
        let program = datapath.program()?;
        // The first tenth warms up.
        for call in 0..calls + calls / 10 {
            let frame = ring.packet(&mut self.random);
            let (ns, verdict) = time(program, &frame, index, HOPS_USED)?;
            ensure!(verdict == XDP_REDIRECT, "a ring of {flows} flows is broken");
            if call >= calls / 10 {
                times.push(ns);
            }
        }
        let packets = ring.packets(&datapath.maps)?;
        let sent = u64::from(calls + calls / 10) * u64::from(HOPS_USED);
        ensure!(packets == sent, "{packets} packets of {sent} went round");
        Ok(times)
    }

    /// A handshake's three packets, each of many flows.
    fn opening(&mut self) -> Result<()> {
        const GROUP: &str = "a new flow (one at a time, with the clock's own cost)";
        const FLOWS: u32 = 2_000;
        for family in Family::BOTH {
            let names = ["SYN", "SYN-ACK", "ACK that completes the handshake"]
                .map(|name| format!("{name}, {}", family.name()));
            if !names.iter().any(|name| self.wanted(name)) {
                continue;
            }
            let mut times = [const { Vec::new() }; 3];
            // Other clients than the rings'.
            let first = CURVE[CURVE.len() - 1] + self.round * FLOWS;
            for n in first..first + FLOWS {
                let path = Path::usual(family).from(client(family, n));
                let packets = [
                    (Port::Wan0, path.syn()),
                    (path.lan, path.syn_ack()),
                    (Port::Wan0, path.handshake_ack()),
                ];
                for ((port, packet), times) in packets.iter().zip(&mut times) {
                    let ns = self.once(*port, &packet.frame(), XDP_REDIRECT)?;
                    times.push(ns);
                }
            }
            for (name, times) in names.into_iter().zip(times) {
                self.add(GROUP, &name, times, 1, None)?;
            }
        }
        Ok(())
    }

    fn refused(&mut self) -> Result<()> {
        const DROPPED: &str = "dropped (repeated)";
        const ANSWERED: &str = "answered or translated (one at a time, with the clock's own cost)";
        let fresh =
            |n| Path::usual(Family::V4).from(client(Family::V4, 1_250_000 + 2 * self.round + n));
        let (path, other) = (fresh(0), fresh(1));
        let nonsense = other.client_packet().flags(SYN | FIN).frame();
        self.repeated(
            DROPPED,
            "flags that make no sense",
            &nonsense,
            XDP_DROP,
            None,
        )?;
        let mut short = other.syn().frame();
        short.truncate(50);
        self.repeated(DROPPED, "a SYN cut off", &short, XDP_DROP, None)?;
        let syn = other.syn().frame();
        let denied = configuration(&format!("{LIMITS}deny = [\"192.0.2.0/24\"]\n"));
        self.scene.configure(&denied)?;
        self.repeated(DROPPED, "a denied source's SYN", &syn, XDP_DROP, None)?;
        self.scene.configure(&configuration(LIMITS))?;

        // A flow to be out of hops on, and that errors are about.
        for (port, packet) in [
            (Port::Wan0, path.syn()),
            (path.lan, path.syn_ack()),
            (Port::Wan0, path.handshake_ack()),
        ] {
            self.scene.send(port, &packet.frame())?;
        }
        let data = path.client_data(0, &[0x55; 64]);
        let sent = path.at_edge(&data);
        let error = Icmp {
            link: path.lan.arriving(),
            source: path.edge.ip(),
            destination: path.source.ip(),
            hops: 60,
            kind: (3, 1),
            rest: [0; 4],
            body: sent.quote(20),
        };
        let frame = data.clone().hops(1).frame();
        self.many(ANSWERED, "out of hops: ICMP", Port::Wan0, &frame)?;
        self.many(ANSWERED, "an ICMP error", path.lan, &error.frame())?;

        self.scene.set_edge("edge-a", EdgeState::Down)?;
        self.many(ANSWERED, "no Edge: a reset", Port::Wan0, &syn)?;
        self.scene.set_edge("edge-a", EdgeState::Up)
    }

    fn many(&mut self, group: &'static str, name: &str, port: Port, frame: &[u8]) -> Result<()> {
        if !self.wanted(name) {
            return Ok(());
        }
        let mut times = Vec::new();
        // Fewer than the thousand ICMP errors that the datapath sends in a second.
        for _ in 0..300 {
            times.push(self.once(port, frame, XDP_REDIRECT)?);
        }
        self.add(group, name, times, 1, None)
    }

    fn once(&mut self, port: Port, frame: &[u8], expected: u32) -> Result<u32> {
        let index = self.rig.index(port);
        let (ns, verdict) = time(self.scene.datapath().program()?, frame, index, 1)?;
        ensure!(verdict == expected, "the verdict is {verdict}");
        Ok(ns)
    }

    /// A packet that is the same afterwards.
    fn repeated(
        &mut self,
        group: &'static str,
        name: &str,
        frame: &[u8],
        expected: u32,
        aim: Option<u32>,
    ) -> Result<()> {
        const REPEAT: u32 = 1_000;
        if !self.wanted(name) {
            return Ok(());
        }
        let index = self.rig.index(Port::Wan0);
        let program = self.scene.datapath().program()?;
        let mut times = Vec::new();
        for _ in 0..100 {
            let (ns, verdict) = time(program, frame, index, REPEAT)?;
            ensure!(verdict == expected, "{name}: the verdict is {verdict}");
            times.push(ns);
        }
        self.add(group, name, times, REPEAT, aim)
    }

    fn add(
        &mut self,
        group: &'static str,
        name: &str,
        times: Vec<u32>,
        repeat: u32,
        aim: Option<u32>,
    ) -> Result<()> {
        let times = Times::new(times, repeat).with_context(|| name.to_owned())?;
        if let Some(class) = self.classes.iter_mut().find(|class| class.name == name) {
            class.times.add(times);
            return Ok(());
        }
        self.classes.push(Class {
            group,
            name: name.to_owned(),
            times,
            aim,
        });
        Ok(())
    }
}

/// A pool of so many Edges, all of them ports of one machine, so that the way to each is known.
fn many_edges(count: u32) -> String {
    let address = EDGE_A.v4;
    let edges: String = (0..count)
        .map(|n| {
            let port = 10_000 + n;
            format!("[[edge]]\nname = \"edge-{n}\"\naddress = \"{address}:{port}\"\n\n")
        })
        .collect();
    let names: Vec<_> = (0..count).map(|n| format!("edge-{n}")).collect();
    format!(
        "[gateway]\ninterfaces = [\"wan0\"]\n\n{edges}[[pool]]\nname = \"edges\"\nedges = {names:?}\n\n\
         [[ip_set]]\nname = \"san-group-1\"\naddresses = [\"{}\"]\nsteer = \"edges\"\n\n{LIMITS}",
        VIP_1.v4
    )
}

fn arp() -> Vec<u8> {
    let link = Link {
        destination: [0xff; 6],
        ..Port::Wan0.arriving()
    };
    let request = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &link.source,
        &PARTNER.v4.octets(),
        &[0; 6],
        &VIP_1.v4.octets(),
    ]
    .concat();
    link.frame(EtherType::ARP, &request)
}

/// A media packet, as most of a host's are that has an A/V Edge on it.
fn udp() -> Vec<u8> {
    let header = ipv4(
        PARTNER.v4.octets(),
        VIP_1.v4.octets(),
        IpNumber::UDP,
        64,
        &[],
        180,
    );
    let ports = [0xc3, 0x50, 0xc3, 0x51, 0, 180, 0, 0];
    let network = [&header.to_bytes()[..], &ports, &[0x55; 172]].concat();
    let link = Port::Wan0.arriving();
    link.frame(ether_type(&PARTNER.v4.into()), &network)
}
