//! A packet through the gateway: steered by snigate, translated by nftables, or routed.
//!
//! BPF_PROG_TEST_RUN can't run netfilter. So one thread sends finished frames through real links, the Edge counts and drops them, and what the
//! whole machine has worked is divided by those that have arrived. A gateway that drops all of them is the floor.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::config::{PARTNERS, edge_address};
use super::results::{Better, Metric, Role, Row, Table};
use super::{chosen, drained, machine, order};
use crate::addresses::{GATEWAY_WAN, PARTNER, SIP_TLS, VIP_1};
use crate::flood::Flood;
use crate::gateway::{Gateway, Tuning};
use crate::netns::Namespace;
use crate::peers::{StreamEdge, open_socket};
use crate::plot::figure;
use crate::{Lab, Topology};

/// SYNs that are sent in one go: less than the half-open flows that snigate has room for.
const SYNS: u32 = 50_000;
/// How often that is done for one sample, so that the ticks of 10 ms in which the kernel tells what was worked come to little for each packet; and the
/// pause between, after which conntrack has forgotten them.
const GOES: u32 = 4;
const BETWEEN_GOES: Duration = Duration::from_millis(1200);
/// How many connections are opened at once: less than a listener's queue.
const BATCH: usize = 64;
/// More lost packets than this, and the figures tell of something else.
const LOST: f64 = 0.5;
const TIMEOUT: Duration = Duration::from_secs(10);

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often.
    pub rounds: u32,
    /// How long each sample takes at most.
    pub sample: Duration,
    /// Numbers of established flows.
    pub flows: Vec<usize>,
    /// Only systems of these names; all where there are none.
    pub systems: Vec<String>,
    /// Only tables whose key contains this.
    pub only: String,
}

/// All that was measured.
#[derive(Debug)]
pub struct Measured {
    /// A table for each class of packets, on each kind of links.
    pub tables: Vec<Table>,
    /// Systems that this machine has not got, and why.
    pub left_out: Vec<String>,
}

#[derive(Clone, Copy)]
struct System {
    name: &'static str,
    role: Role,
    through: Through,
}

#[derive(Clone, Copy, PartialEq)]
enum Through {
    /// The gateway drops everything at the ingress of its link.
    Nothing,
    /// To the Edge's own address.
    Routing,
    /// Destination NAT and conntrack.
    Nftables {
        /// With the fast path for connections that stand.
        flowtable: bool,
    },
    /// snigate.
    Steering,
}

const FLOOR: &str = "floor";

const SYSTEMS: [System; 5] = [
    System {
        name: FLOOR,
        role: Role::Baseline,
        through: Through::Nothing,
    },
    System {
        name: "routing",
        role: Role::Baseline,
        through: Through::Routing,
    },
    System {
        name: "nftables",
        role: Role::Peer,
        through: Through::Nftables { flowtable: false },
    },
    System {
        name: "nftables, flowtable",
        role: Role::Peer,
        through: Through::Nftables { flowtable: true },
    },
    System {
        name: "steering",
        role: Role::Ours,
        through: Through::Steering,
    },
];

/// A kind of packets.
#[derive(Clone, Copy)]
enum Class {
    /// Of so many connections that stand.
    Established(usize),
    /// Each of a new connection.
    Syns,
}

impl Class {
    fn key(self) -> String {
        match self {
            Self::Established(flows) => format!("established-{flows}"),
            Self::Syns => "syn".to_owned(),
        }
    }

    fn title(self) -> String {
        match self {
            Self::Established(1) => "established, 1 flow".to_owned(),
            Self::Established(flows) => format!("established, {} flows", figure(flows as f64)),
            Self::Syns => "a SYN of its own each".to_owned(),
        }
    }
}

/// What came of one measurement.
#[derive(Clone, Copy, Default)]
struct Sample {
    sent: u64,
    arrived: u64,
    time: Duration,
    busy: Duration,
}

impl Sample {
    /// What `pour` does, which tells how many packets it has sent.
    fn add(&mut self, pour: impl FnOnce() -> Result<u64>) -> Result<()> {
        let (start, before) = (Instant::now(), machine::busy()?);
        self.sent += pour()?;
        self.time += start.elapsed();
        self.busy += machine::busy()?.saturating_sub(before);
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.arrived as f64 / self.time.as_secs_f64()
    }

    /// Nanoseconds of each packet that has arrived.
    fn cpu(&self) -> f64 {
        self.busy.as_secs_f64() * 1e9 / self.arrived as f64
    }

    fn lost(&self) -> f64 {
        1.0 - self.arrived as f64 / self.sent as f64
    }
}

/// Measures.
///
/// # Errors
/// Something does not start, or does not do what is measured.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Measured> {
    let mut classes: Vec<_> = options
        .flows
        .iter()
        .copied()
        .map(Class::Established)
        .collect();
    classes.push(Class::Syns);
    let mut measured = Measured {
        tables: Vec::new(),
        left_out: Vec::new(),
    };
    for offloads in [true, false] {
        let links = if offloads { "on" } else { "off" };
        let key = |class: Class| format!("forward/offloads-{links}/{}", class.key());
        let wanted: Vec<Class> = classes
            .iter()
            .copied()
            .filter(|class| key(*class).contains(&options.only))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let systems = SYSTEMS
            .into_iter()
            // Over what is it told otherwise?
            .filter(|it| it.name == FLOOR || chosen(&options.systems, it.name));
        let systems: Vec<_> = systems.collect();
        let topology = Topology {
            offloads,
            capture: false,
            ..Topology::default()
        };
        let labs = systems
            .iter()
            .map(|_| Lab::new("bench-forward", &topology))
            .collect::<Result<Vec<_>>>()?;
        let mut stands = Vec::new();
        for (system, lab) in systems.into_iter().zip(&labs) {
            progress(&format!("starting {}, offloads {links}", system.name));
            match Stand::start(lab, system, offloads) {
                Ok(stand) => stands.push(stand),
                // A kernel without flowtables, say.
                Err(error) if system.role == Role::Peer => {
                    let name = system.name;
                    let reason = complaint(&format!("{error:#}"));
                    measured
                        .left_out
                        .push(format!("{name} (offloads-{links}): {reason}"));
                }
                Err(error) => return Err(error.context(system.name)),
            }
        }
        let mut samples = vec![vec![Vec::new(); stands.len()]; wanted.len()];
        for round in 1..=options.rounds {
            for (class, samples) in wanted.iter().zip(&mut samples) {
                for number in order(round, stands.len()) {
                    let stand = &stands[number];
                    let what = format!(
                        "round {round} of {}: {}, offloads {links}: {}",
                        options.rounds,
                        class.title(),
                        stand.system.name
                    );
                    progress(&what);
                    let sample = stand.measure(*class, options.sample).context(what)?;
                    samples[number].push(sample);
                }
            }
        }
        for (class, samples) in wanted.iter().zip(&samples) {
            let title = format!("{}; offloads {links}", class.title());
            measured
                .tables
                .push(table(key(*class), title, &stands, samples));
        }
    }
    Ok(measured)
}

fn table(key: String, title: String, stands: &[Stand<'_>], samples: &[Vec<Sample>]) -> Table {
    let floor = stands.iter().position(|it| it.system.name == FLOOR);
    let floor = floor.and_then(|floor| samples.get(floor));
    let row = |(stand, samples): (&Stand<'_>, &Vec<Sample>)| {
        let over = || {
            let floors = floor.into_iter().flatten();
            let pairs = samples.iter().zip(floors);
            let pairs = pairs.filter(|_| stand.system.name != FLOOR);
            pairs.map(|(own, floor)| own.cpu() - floor.cpu())
        };
        // Where noise has left nothing in one round, the others would tell of too many.
        let carried = if over().all(|ns| ns > 0.0) {
            over().map(|ns| 1e9 / ns).collect()
        } else {
            Vec::new()
        };
        Row {
            name: stand.system.name.to_owned(),
            role: stand.system.role,
            x: None,
            cells: vec![
                samples.iter().map(Sample::rate).collect(),
                samples.iter().map(Sample::cpu).collect(),
                over().collect(),
                carried,
                samples.iter().map(|it| it.lost() * 100.0).collect(),
            ],
        }
    };
    Table {
        key,
        title,
        metrics: vec![
            Metric::new("rate", "packets/s", Better::Higher),
            Metric::new("CPU", "ns/packet", Better::Neither),
            Metric::new("CPU over the floor", "ns/packet", Better::Lower),
            Metric::new("one CPU carries", "packets/s", Better::Neither),
            Metric::new("lost", "%", Better::Neither),
        ],
        rows: stands.iter().zip(samples).map(row).collect(),
    }
}

/// A system in its lab.
struct Stand<'lab> {
    system: System,
    lab: &'lab Lab,
    flood: Flood,
    _edge: StreamEdge,
    gateway: Option<Gateway<'lab>>,
}

impl<'lab> Stand<'lab> {
    fn start(lab: &'lab Lab, system: System, offloads: bool) -> Result<Self> {
        for machine in [&lab.partner, &lab.gateway] {
            machine.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
            machine.sysctl("net/ipv4/ip_local_port_range", "10000 65000")?;
        }
        // The flood's own addresses are the partner's, as far as the gateway knows.
        lab.gateway
            .ip(&format!("route add 198.18.0.0/15 via {}", PARTNER.v4))?;
        let edge = StreamEdge::start(&lab.edge_a, SIP_TLS)?;
        let mut gateway = None;
        match system.through {
            Through::Nothing | Through::Routing => {}
            Through::Nftables { flowtable } => nftables(&lab.gateway, flowtable)?,
            Through::Steering => {
                let hook = if offloads { "tcx" } else { "xdp" };
                gateway = Some(steering(lab, hook)?);
            }
        }
        let target = match system.through {
            Through::Nothing | Through::Routing => edge_address(),
            Through::Nftables { .. } | Through::Steering => (VIP_1.v4, SIP_TLS).into(),
        };
        let next_hop = IpAddr::from(GATEWAY_WAN.v4);
        let stand = Self {
            system,
            lab,
            flood: Flood::new(&lab.partner, "eth0", next_hop, target)?,
            _edge: edge,
            gateway,
        };
        // Hardware addresses are known afterwards.
        drop(stand.connections(1)?);
        stand.prove()?;
        Ok(stand)
    }

    /// That the second connection goes the way that is to be measured.
    fn prove(&self) -> Result<()> {
        let connections = self.connections(1)?;
        match self.system.through {
            Through::Nothing | Through::Routing => {}
            Through::Nftables { .. } => {
                // Not every kernel shows it (CONFIG_NF_CONNTRACK_PROCFS).
                let Some(tracked) = conntrack(&self.lab.gateway)? else {
                    return Ok(());
                };
                let offloaded = tracked.contains("[OFFLOAD]");
                let wanted = self.system.through == Through::Nftables { flowtable: true };
                ensure!(
                    offloaded == wanted,
                    "the flowtable has {} connection: {tracked}",
                    if offloaded { "a" } else { "no" }
                );
            }
            Through::Steering => {
                let gateway = self.gateway.as_ref().context("no snigate")?;
                let flows = gateway.json(&["flow", "ls"])?;
                let ways = flows.as_array().context("flows")?.iter();
                let steered = ways.filter(|flow| flow["way"].as_str() == Some("steered"));
                ensure!(steered.count() >= 1, "not steered: {flows}");
            }
        }
        drop(connections);
        Ok(())
    }

    fn connections(&self, count: usize) -> Result<Vec<TcpStream>> {
        let target = self.flood.target();
        self.lab.partner.run(|| {
            let mut all = Vec::new();
            for number in 0..count {
                let stream = open_socket(None, target, TIMEOUT);
                all.push(stream.with_context(|| format!("connection {number} to {target}"))?);
                // The Edge accepts on one thread.
                if number % BATCH == BATCH - 1 {
                    thread::yield_now();
                }
            }
            Ok(all)
        })
    }

    fn measure(&self, class: Class, time: Duration) -> Result<Sample> {
        let connections = match class {
            Class::Established(flows) => self.connections(flows)?,
            Class::Syns => Vec::new(),
        };
        let counter = Counter::at(match self.system.through {
            Through::Nothing => (&self.lab.gateway, "wan0"),
            _ => (&self.lab.edge_a, "eth0"),
        })?;
        let mut sample = Sample::default();
        match class {
            Class::Established(_) => {
                let own = |stream: &TcpStream| {
                    Ok(self.flood.data_from(stream.local_addr()?, &[0x55; 64]))
                };
                let frames: Vec<_> = connections.iter().map(own).collect::<Result<_>>()?;
                sample.add(|| self.flood.pour(&frames, time, false))?;
            }
            Class::Syns => {
                // Other ones than in the last sample.
                let first = fastrand::u32(..) / 2;
                for go in 0..GOES {
                    let first = first + go * SYNS;
                    let frames: Vec<_> = (first..first + SYNS).map(|n| self.flood.syn(n)).collect();
                    sample.add(|| self.flood.pour(&frames, time, true))?;
                    thread::sleep(BETWEEN_GOES);
                }
            }
        }
        sample.arrived = counter.read()?;
        let Sample { sent, arrived, .. } = sample;
        // What the connections have to say at their end should reach the Edge, and not in the next sample.
        drop(counter);
        drop(connections);
        drained(self.lab, TIMEOUT)?;
        ensure!(
            arrived > 0 && sample.lost() < LOST,
            "{arrived} packets of {sent} have arrived"
        );
        Ok(sample)
    }
}

/// What conntrack has of connections, where the kernel shows it.
fn conntrack(machine: &Namespace) -> Result<Option<String>> {
    const PATH: &str = "/proc/thread-self/net/nf_conntrack";
    machine.run(|| match fs::read_to_string(PATH) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(PATH),
    })
}

fn nftables(gateway: &Namespace, flowtable: bool) -> Result<()> {
    let (vip, edge) = (VIP_1.v4, edge_address());
    let mut rules = format!(
        "add table ip bench\n\
         add chain ip bench prerouting {{ type nat hook prerouting priority dstnat; }}\n\
         add rule ip bench prerouting ip daddr {vip} tcp dport {SIP_TLS} dnat to {edge}\n"
    );
    if flowtable {
        rules += "add flowtable ip bench fast { hook ingress priority 0; devices = { wan0, lan0 }; }\n\
                  add chain ip bench forward { type filter hook forward priority 0; }\n\
                  add rule ip bench forward ip protocol tcp flow add @fast\n";
    }
    gateway.output("nft", &[&rules])?;
    // The packets' sequence numbers are made up.
    gateway.sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1")?;
    // A second's SYNs are not in the next sample's way.
    gateway.sysctl("net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "1")
}

fn steering<'lab>(lab: &'lab Lab, hook: &'static str) -> Result<Gateway<'lab>> {
    let tuning = Tuning {
        quiet: true,
        hook: Some(hook),
        ..Tuning::default()
    };
    let tables = format!(
        r#"
[[edge]]
name = "edge-a"
address = "{edge}"
source = "preserve"

[[pool]]
name = "edges"
edges = ["edge-a"]

[[ip_set]]
name = "steered"
addresses = ["{vip}"]
steer = "edges"

[limits]
# Few partners make all connections.
allow = ["{PARTNERS}", "198.18.0.0/15"]
"#,
        edge = edge_address(),
        vip = VIP_1.v4,
    );
    Gateway::start_tuned(lab, tuning, "", &tables)
}

/// Counts TCP packets at the ingress of a link and drops them, until it is dropped itself.
struct Counter<'lab> {
    machine: &'lab Namespace,
}

impl<'lab> Counter<'lab> {
    fn at((machine, device): (&'lab Namespace, &str)) -> Result<Self> {
        let rules = format!(
            "add table netdev bench-counter\n\
             add counter netdev bench-counter arrived\n\
             add chain netdev bench-counter ingress {{ type filter hook ingress device {device} priority 0; }}\n\
             add rule netdev bench-counter ingress ip protocol tcp counter name arrived drop\n"
        );
        machine.output("nft", &[&rules])?;
        Ok(Self { machine })
    }

    fn read(&self) -> Result<u64> {
        let said = self
            .machine
            .output("nft", &["list counter netdev bench-counter arrived"])?;
        parse(&said).with_context(|| format!("the counter reads {said:?}"))
    }
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        if let Err(error) = self
            .machine
            .output("nft", &["delete table netdev bench-counter"])
        {
            eprintln!("a counter could not be removed: {error:#}");
        }
    }
}

/// What nft says, without the rules that it quotes.
fn complaint(said: &str) -> String {
    let (_, complaint) = said.rsplit_once("Error: ").unwrap_or(("", said));
    let line = complaint.lines().next().unwrap_or_default();
    format!("nft says: {line}")
}

fn parse(said: &str) -> Option<u64> {
    let mut words = said.split_whitespace();
    words.find(|word| *word == "packets");
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_as_nft_tells_it() {
        let said = "table netdev bench-counter {\n\tcounter arrived {\n\t\tpackets 1234 bytes 56\n\t}\n}\n";
        assert_eq!(parse(said), Some(1234));
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn a_complaint_is_what_nft_says() {
        let said = "\"nft\" \"add flowtable\" ended with 1: Error: Could not process rule: No such file\nadd flowtable\n^^^";
        assert_eq!(
            complaint(said),
            "nft says: Could not process rule: No such file"
        );
    }

    #[test]
    fn nanoseconds_are_of_packets_that_have_arrived() {
        let sample = Sample {
            sent: 2_000,
            arrived: 1_000,
            time: Duration::from_millis(500),
            busy: Duration::from_millis(1),
        };
        assert_eq!(sample.cpu(), 1_000.0);
        assert_eq!(sample.rate(), 2_000.0);
        assert_eq!(sample.lost(), 0.5);
    }
}
