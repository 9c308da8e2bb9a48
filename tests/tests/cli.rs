//! The command line on a datapath without an agent, and on one with traffic.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Output,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sni_common::{
    Address,
    contract::{Direction, Flow, FlowKey, Link, NextHop, VlanTag},
    tcp::state,
    token_bucket::TokenBucket,
};
use sni_user::{
    config::{Config, Hook},
    datapath::{Datapath, MAPS, Tables},
};
use snigate_tests::{
    Lab, Namespace, Topology,
    addresses::{EDGE_A, EDGE_B, Host, PARTNER, SIP_TLS, VIP_1, VIP_2},
    gateway::{Gateway, binary, two_ip_sets_with_source},
    lab_test, output_within,
};

const TIMEOUT: Duration = Duration::from_secs(10);
const SECOND: u64 = 1_000_000_000;

const CONFIG: &str = r#"
[gateway]
interfaces = ["wan0"]

[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"

[[edge]]
name = "edge-b"
address = "203.0.113.140:5061"
source = "gateway"

[[edge]]
name = "edge-six"
address = "[2001:db8:a::10]:5061"

[[pool]]
name = "edges"
edges = ["edge-a", { name = "edge-b", weight = 3 }, "edge-six"]

[[ip_set]]
name = "san-group-1"
addresses = ["198.51.100.10", "2001:db8:1::10"]
steer = "edges"

[[ip_set]]
name = "shared"
addresses = ["198.51.100.20"]
ports = [5061, 443]
inspect = true

[limits]
deny = ["192.0.2.0/24", "2001:db8:dead::/48"]
allow = ["192.0.2.7/32"]
"#;

fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// The commands of `snigate` on one pin path.
struct Commands<'lab> {
    lab: &'lab Lab,
    pins: PathBuf,
}

impl Commands<'_> {
    fn run(&self, command: &str) -> Result<Output> {
        let mut process = self.lab.gateway.command(binary()?);
        process
            .env("SNIGATE_PIN_PATH", &self.pins)
            .env_remove("COLUMNS");
        process.args(command.split_whitespace());
        output_within(&mut process, TIMEOUT)
    }

    fn text(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`{command}`: {}, {said}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Checks that the table has these lines, whatever the space between the cells.
    fn shows(&self, command: &str, lines: &[&str]) -> Result<()> {
        let text = self.text(command)?;
        let shown: Vec<String> = text.lines().map(words).collect();
        for line in lines {
            ensure!(
                shown.contains(&words(line)),
                "`{command}` shows no line {line:?} but:\n{text}"
            );
        }
        Ok(())
    }

    fn json(&self, command: &str) -> Result<Value> {
        let text = self.text(&format!("{command} --json"))?;
        serde_json::from_str(&text).with_context(|| format!("`{command} --json`: {text}"))
    }

    fn fails(&self, command: &str, status: i32, sentence: &str) -> Result<()> {
        let output = self.run(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(status) && said.contains(sentence),
            "`{command}`: {}, {said}",
            output.status
        );
        Ok(())
    }
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A datapath with a configuration, pinned in the lab and attached to wan0; nobody looks after it.
fn datapath(lab: &Lab) -> Result<(Datapath, Commands<'_>)> {
    let pins = lab.bpffs()?.join("snigate");
    let mut datapath = Datapath::load(&pins, 1000)?;
    let config = Config::parse(Path::new("/snigate.toml"), CONFIG)?.config;
    let gateway: IpAddr = snigate_tests::addresses::GATEWAY_LAN_B.v4.into();
    let tables = Tables::new(&config, (20_000, 1_000), |_| Ok(gateway))?;
    tables.activate(&mut datapath.maps)?;
    lab.gateway.run(|| {
        let index = nix::net::if_::if_nametoindex("wan0")?;
        datapath.attach("wan0", index, Hook::Auto)?;
        Ok(())
    })?;
    Ok((datapath, Commands { lab, pins }))
}

fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes into a timespec that lives on.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * SECOND + now.tv_nsec as u64
}

/// A flow of the partner's port through the first public address, in the words of the datapath.
struct MadeUp {
    edge: (u16, IpAddr),
    client: SocketAddr,
    vip: SocketAddr,
    seen_as: SocketAddr,
    states: (u8, u8),
}

impl MadeUp {
    fn entries(&self) -> [(FlowKey, Flow); 2] {
        let (slot, edge) = self.edge;
        let client_key = key(self.client, self.vip);
        let out = key(self.seen_as, SocketAddr::new(edge, SIP_TLS));
        let now = monotonic_ns();
        let flow = Flow {
            edge: slot,
            ip_set: 0,
            opened_ns: now.saturating_sub(3700 * SECOND),
            last_seen_ns: now.saturating_sub(90 * SECOND),
            next_seq: 1000,
            last_ack: 2000,
            tcp_delta: 0x1234,
            next_hop: NextHop {
                ifindex: 1,
                ethernet: [0x0000_0002, 0x0002_0a00, 0x0100_0000],
                mtu: 1500,
                ..NextHop::default()
            },
            ..Flow::default()
        };
        let to_edge = Flow {
            rewrite: out,
            direction: Direction::ToEdge as u8,
            state: self.states.0,
            packets: 12,
            bytes: 3400,
            ..flow
        };
        let to_client = Flow {
            rewrite: client_key.reversed(),
            direction: Direction::ToClient as u8,
            state: self.states.1,
            packets: 9,
            bytes: 98_000,
            next_seq: 2000,
            last_ack: 1000,
            ..flow
        };
        [(client_key, to_edge), (out.reversed(), to_client)]
    }
}

fn key(source: SocketAddr, destination: SocketAddr) -> FlowKey {
    FlowKey {
        source: source.ip().into(),
        destination: destination.ip().into(),
        source_port_be: source.port().to_be(),
        destination_port_be: destination.port().to_be(),
    }
}

/// The slot of each of the configuration's Edges, by what `edge ls` says.
fn slots(commands: &Commands<'_>) -> Result<[u16; 3]> {
    let edges = commands.json("edge ls")?;
    let slot = |name: &str| {
        let edges = edges.as_array().context("a list")?;
        let edge = edges
            .iter()
            .find(|edge| edge["name"] == name)
            .with_context(|| format!("{name} in {edges:?}"))?;
        Ok::<_, anyhow::Error>(u16::try_from(edge["slot"].as_u64().context("a slot")?)?)
    };
    Ok([slot("edge-a")?, slot("edge-b")?, slot("edge-six")?])
}

/// An established flow, one through the gateway's own address that is closing, one half-open, and one over IPv6 that was recovered.
fn insert_flows(datapath: &mut Datapath, slots: [u16; 3]) -> Result<()> {
    let [edge_a, edge_b, edge_six] = slots;
    let client = |port| SocketAddr::new(PARTNER.v4.into(), port);
    let vip = SocketAddr::new(VIP_1.v4.into(), SIP_TLS);
    let a = (edge_a, EDGE_A.v4.into());
    let established = [
        MadeUp {
            edge: a,
            client: client(4001),
            vip,
            seen_as: client(4001),
            states: (0, state::SYN_ACKED),
        },
        MadeUp {
            edge: (edge_b, EDGE_B.v4.into()),
            client: client(4002),
            vip,
            seen_as: "203.0.113.129:20005".parse()?,
            states: (state::FIN, 0),
        },
    ];
    let six: SocketAddr = SocketAddr::new(PARTNER.v6.into(), 4004);
    let half_open = [
        MadeUp {
            edge: a,
            client: client(4003),
            vip,
            seen_as: client(4003),
            states: (0, 0),
        },
        MadeUp {
            edge: (edge_six, EDGE_A.v6.into()),
            client: six,
            vip: SocketAddr::new(VIP_1.v6.into(), SIP_TLS),
            seen_as: six,
            states: (state::RECOVERED, 0),
        },
    ];
    for (key, flow) in established.iter().flat_map(MadeUp::entries) {
        datapath.maps.flows.insert(key, flow, 0)?;
    }
    for (key, flow) in half_open.iter().flat_map(MadeUp::entries) {
        datapath.maps.half_open.insert(key, flow, 0)?;
    }
    Ok(())
}

#[test]
fn services_and_edges_are_listed_by_name() {
    lab_test("cli-services", &quiet(), |lab| {
        let (mut datapath, commands) = datapath(lab)?;
        commands.shows(
            "service ls",
            &[
                "ADDRESS PORT IP SET MODE POOL EDGES",
                "198.51.100.10 5061 san-group-1 steer edges edge-a, edge-b",
                "198.51.100.20 443 shared inspect - -",
                "198.51.100.20 5061 shared inspect - -",
                "2001:db8:1::10 5061 san-group-1 steer edges edge-six",
            ],
        )?;
        let services = commands.json("service ls")?;
        ensure!(
            services.as_array().is_some_and(|list| list.len() == 4),
            "{services}"
        );
        ensure!(
            services[0]["edges"][1] == json!({ "name": "edge-b", "state": "up", "weight": 3 }),
            "{services}"
        );

        let slots = slots(&commands)?;
        insert_flows(&mut datapath, slots)?;
        commands.shows(
            "edge ls",
            &[
                "EDGE ADDRESS SOURCE STATE POOLS FLOWS HALF-OPEN",
                "edge-a 203.0.113.10:5061 preserve up edges 1 1",
                "edge-b 203.0.113.140:5061 gateway 203.0.113.129 up edges (weight 3) 1 0",
                "edge-six [2001:db8:a::10]:5061 preserve up edges 0 1",
            ],
        )?;
        Ok(())
    });
}

#[test]
fn flows_are_listed_and_shown() {
    lab_test("cli-flows", &quiet(), |lab| {
        let (mut datapath, commands) = datapath(lab)?;
        commands.shows(
            "flow ls",
            &["CLIENT VIP EDGE SEEN AS WAY STATE AGE IDLE TO EDGE TO CLIENT"],
        )?;
        ensure!(commands.json("flow ls")? == json!([]));
        let slots = slots(&commands)?;
        insert_flows(&mut datapath, slots)?;

        let vip = "198.51.100.10:5061";
        let rest = "1h 1m 1m 30s 12/3.4 kB 9/98.0 kB";
        let first = format!("198.51.100.1:4001 {vip} edge-a the client steered established {rest}");
        commands.shows(
            "flow ls",
            &[
                &first,
                &format!("198.51.100.1:4002 {vip} edge-b 203.0.113.129:20005 steered closing {rest}"),
                &format!("198.51.100.1:4003 {vip} edge-a the client steered half-open {rest}"),
                &format!(
                    "[2001:db8:1::1]:4004 [2001:db8:1::10]:5061 edge-six the client steered recovered {rest}"
                ),
            ],
        )?;
        let counted = |command: &str| {
            commands
                .json(command)
                .map(|flows| flows.as_array().map_or(0, Vec::len))
        };
        for (filter, expected) in [
            ("", 4),
            ("--edge edge-a", 2),
            ("--edge edge-b", 1),
            ("--client 198.51.100.1", 3),
            ("--client 198.51.100.1:4002", 1),
            ("--client 2001:db8:1::1", 1),
            ("--client 198.51.100.2", 0),
            ("--edge edge-a --client 198.51.100.1:4002", 0),
            ("--limit 2", 2),
        ] {
            let found = counted(&format!("flow ls {filter}"))?;
            ensure!(found == expected, "flow ls {filter}: {found}");
        }
        let limited = commands.run("flow ls --limit 1")?;
        ensure!(
            String::from_utf8_lossy(&limited.stderr).contains("3 more"),
            "{limited:?}"
        );
        ensure!(
            words(&String::from_utf8_lossy(&limited.stdout)).ends_with(&first),
            "{limited:?}"
        );
        commands.fails(
            "flow ls --edge nobody",
            1,
            "no Edge nobody: the datapath knows edge-a, edge-b, edge-six",
        )?;
        commands.fails("flow ls --client nobody", 2, "write an address")?;

        commands.shows(
            "flow show 198.51.100.1:4002",
            &[
                "client 198.51.100.1:4002",
                "VIP 198.51.100.10:5061, IP set san-group-1",
                "Edge edge-b at 203.0.113.140:5061, steered",
                "seen as 203.0.113.129:20005",
                "state closing",
                "opened 1h 1m ago",
                "to the Edge",
                "arrives 198.51.100.1:4002 > 198.51.100.10:5061",
                "leaves 203.0.113.129:20005 > 203.0.113.140:5061",
                "carried 3.4 kB in 12 packets",
                "marks fin",
                "sequence next 1000, last acknowledgement 2000",
                "checksum TCP by 0x1234, IPv4 header by 0x0000",
                "next hop lo, MTU 1500",
                "frames 02:00:00:00:00:01 > 02:00:00:00:00:0a",
                "valid looked up again with the next packet",
                "to the client",
                "arrives 203.0.113.140:5061 > 203.0.113.129:20005",
                "leaves 198.51.100.10:5061 > 198.51.100.1:4002",
                "sequence next 2000, last acknowledgement 1000",
            ],
        )?;
        let shown = commands.json("flow show 198.51.100.1:4002 198.51.100.10:5061")?;
        ensure!(shown[0]["state"] == "closing", "{shown}");
        ensure!(
            shown[0]["entries"]["to_edge"]["next_hop"]["interface"] == "lo",
            "{shown}"
        );
        ensure!(
            shown[0]["entries"]["to_client"]["next_seq"] == 2000,
            "{shown}"
        );
        commands.fails(
            "flow show 198.51.100.1:4002 198.51.100.20:5061",
            1,
            "no flow of 198.51.100.1:4002 to 198.51.100.20:5061: `snigate flow ls --client 198.51.100.1`",
        )
    });
}

#[test]
fn status_tells_what_the_datapath_does() {
    lab_test("cli-status", &quiet(), |lab| {
        let (mut datapath, commands) = datapath(lab)?;
        insert_flows(&mut datapath, [0, 1, 2])?;
        // An SSH connection that is none of ours, and one to a service without an Edge's neighbour: both are counted.
        let _ = lab.partner.run(|| {
            let address = SocketAddr::new(VIP_2.v4.into(), 22);
            Ok(TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok())
        })?;
        let pins = commands.pins.display().to_string();
        commands.shows(
            "status",
            &[
                &format!("pinned {pins}, ABI 1"),
                "attached wan0",
                "generation 1",
                "flows 2 of 1,000 (0.2%), and 2 half-open",
                "diagnostics off",
                "TABLE ENTRIES MAX FULL",
                "FLOWS 4 2,000 0.2%",
                "COUNTER VALUE",
            ],
        )?;
        let some = commands.text("status")?;
        ensure!(
            some.contains("passed") && !some.contains("no-neighbour"),
            "{some}"
        );
        let all = commands.text("status --all")?;
        for line in [
            "no-neighbour",
            "The next hop's link-layer address is not known",
            "stale-next-hops",
        ] {
            ensure!(all.contains(line), "{all}");
        }
        let status = commands.json("status")?;
        for (field, value) in [
            ("abi", json!(1)),
            ("generation", json!(1)),
            ("interfaces", json!(["wan0"])),
            ("flags", json!([])),
            ("max_flows", json!(1000)),
            ("flows", json!(2)),
            ("half_open", json!(2)),
        ] {
            ensure!(status[field] == value, "{field} in {status}");
        }
        ensure!(status["counters"]["passed"].as_u64() > Some(0), "{status}");
        ensure!(status["drops"][0]["reason"] == "truncated", "{status}");

        commands.text("log on")?;
        ensure!(datapath.maps.flags()? == sni_common::contract::FLAG_LOG);
        commands.shows("status", &["diagnostics on"])?;
        ensure!(commands.json("status")?["flags"] == json!(["log"]));
        commands.text("log off")?;
        ensure!(datapath.maps.flags()? == 0);
        Ok(())
    });
}

#[test]
fn every_map_is_listed_and_decoded() {
    lab_test("cli-maps", &quiet(), |lab| {
        let (mut datapath, commands) = datapath(lab)?;
        let slots = slots(&commands)?;
        insert_flows(&mut datapath, slots)?;
        let bucket = TokenBucket {
            refilled_ns: monotonic_ns().saturating_sub(5 * SECOND),
            millitokens: 1500,
        };
        datapath
            .maps
            .budget
            .insert(Address::from(PARTNER.v6), bucket, 0)?;
        let tag = |protocol: u16, id: u16| VlanTag {
            protocol_be: protocol.to_be(),
            control_be: id.to_be(),
        };
        let link = Link {
            ifindex: 1,
            tags: [tag(0x88a8, 200), tag(0x8100, 7)],
        };
        datapath.maps.links.insert(4711, link, 0)?;

        let listed = commands.json("map ls")?;
        let names: Vec<_> = listed
            .as_array()
            .context("a list")?
            .iter()
            .map(|map| map["name"].clone())
            .collect();
        ensure!(
            names == MAPS.iter().map(|(name, _)| json!(name)).collect::<Vec<_>>(),
            "{names:?}"
        );
        commands.shows(
            "map ls",
            &[
                "MAP TYPE HOLDS ENTRIES MAX FULL",
                "FLOWS hash established flows, one entry per direction 4 2,000 0.2%",
                "CONTROL array ABI version, active generation, feature flags - 4 -",
            ],
        )?;

        let [a, b, _] = slots;
        for (map, line) in [
            ("control", "0 ABI version 1 this program's"),
            ("CONTROL", "1 active generation 1 bank 1"),
            ("SETTINGS", "20000-20999 3"),
            ("PORTS", "services 443 5061"),
            ("PORTS", "Edges 5061"),
            ("SERVICES", "1 198.51.100.20 443 6 inspect - shared"),
            ("SERVICES", "1 198.51.100.10 0 0 vip - san-group-1"),
            ("POOLS", "1 (active) 0 edges IPv4 edge-a (1), edge-b (3)"),
            ("POOLS", "1 (active) 1 edges IPv6 edge-six (1)"),
            ("MAGLEV", "1 (active) 1 edges edge-six 4,093 100.0%"),
            (
                "EDGES",
                &format!("{a} edge-a 203.0.113.10:5061 preserve - up"),
            ),
            (
                "EDGES",
                &format!("{b} edge-b 203.0.113.140:5061 gateway 203.0.113.129 up"),
            ),
            (
                "FLOWS",
                "198.51.100.1:4002 > 198.51.100.10:5061 203.0.113.129:20005 > 203.0.113.140:5061 edge-b to-edge fin 1000 2000 12 3.4 kB 1m 30s",
            ),
            (
                "HALF_OPEN",
                "[2001:db8:1::1]:4004 > [2001:db8:1::10]:5061 [2001:db8:1::1]:4004 > [2001:db8:a::10]:5061 edge-six to-edge recovered 1000 2000 12 3.4 kB 1m 30s",
            ),
            ("ACL", "1 192.0.2.0/24 deny"),
            ("ACL", "1 192.0.2.7/32 allow"),
            ("ACL", "1 2001:db8:dead::/48 deny"),
            ("BUDGET", "2001:db8:1::1/64 1.5 5s ago"),
            ("LINKS", "4711 lo (1) VLAN 200 (802.1ad), VLAN 7 (802.1Q)"),
            ("STATS", "38 drop no-edge 0"),
            ("LABELS", "ip-set 0 1 shared"),
        ] {
            let text = commands.text(&format!("map dump {map}"))?;
            ensure!(
                text.lines().any(|shown| words(shown).ends_with(line)),
                "map dump {map} shows no {line:?} but:\n{text}"
            );
        }
        for (map, _) in MAPS.iter().filter(|(map, _)| *map != "EVENTS") {
            let dumped = commands.json(&format!("map dump {map}"))?;
            ensure!(
                dumped.as_array().is_some_and(|entries| !entries.is_empty()),
                "{map}: {dumped}"
            );
            let limited = commands.json(&format!("map dump {map} --limit 1"))?;
            ensure!(
                limited.as_array().is_some_and(|entries| entries.len() == 1),
                "{map}: {limited}"
            );
        }
        let shares = commands.json("map dump MAGLEV")?;
        let share = shares
            .as_array()
            .context("a list")?
            .iter()
            .find(|share| share["edge"] == "edge-b");
        let share = share
            .and_then(|share| share["share"].as_f64())
            .context("a share")?;
        ensure!((0.74..0.76).contains(&share), "{shares}");
        commands.fails("map dump EVENTS", 1, "would take events away")?;
        commands.fails(
            "map dump NONSENSE",
            1,
            "`snigate map ls` shows what there is",
        )
    });
}

#[test]
fn check_looks_at_the_host() {
    lab_test("cli-check", &quiet(), |lab| {
        let pins = lab.bpffs()?.join("snigate");
        let commands = Commands {
            lab,
            pins: pins.clone(),
        };
        let write = |interfaces: &str| {
            let text = CONFIG.replace("\"wan0\"", interfaces).replace(
                "[[edge]]\nname = \"edge-a\"",
                &format!(
                    "pin_path = \"{}\"\n\n[[edge]]\nname = \"edge-a\"",
                    pins.display()
                ),
            );
            lab.write_file("check.toml", &text)
        };
        let file = write("\"wan0\", \"lan0\", \"lan1\"")?;
        let check = format!("check --config {}", file.display());
        commands.shows(
            &check,
            &[
                "3 Edges in 1 pool, 0 domains with 0 names (0 terminated here)",
                "shared 198.51.100.20 5061 443 by server name, else refused",
                "capabilities ok this process may load the datapath",
                &format!("pin path ok {} is free", pins.display()),
                "wan0 ok is up and forwards",
                "Edge edge-a ok is reached over lan0",
                "Edge edge-b ok is reached over lan1",
            ],
        )?;

        lab.gateway.sysctl("net/ipv6/conf/wan0/forwarding", "0")?;
        lab.gateway.ip("link set lan0 down")?;
        write("\"wan0\", \"lan0\", \"lan2\"")?;
        let report = commands.run(&format!("{check} --json"))?;
        ensure!(report.status.code() == Some(1), "{report:?}");
        let report: Value = serde_json::from_slice(&report.stdout)?;
        let found: Vec<String> = report["host"]
            .as_array()
            .context("findings")?
            .iter()
            .map(|finding| {
                format!(
                    "{} {} {}",
                    finding["result"], finding["check"], finding["message"]
                )
                .replace('"', "")
            })
            .collect();
        for beginning in [
            "error wan0 wan0 does not forward IPv6: switch it on with `sysctl -w",
            "warning lan0 is down: bring it up with `ip link set dev lan0 up`",
            "error lan2 there is no interface `lan2`",
            "error Edge edge-b 203.0.113.140 is reached over lan1, where its answers would bypass the datapath",
        ] {
            ensure!(
                found.iter().any(|line| line.starts_with(beginning)),
                "no {beginning:?} in {found:#?}"
            );
        }
        Ok(())
    });
}

/// A connection through the gateway, by both of its ends.
struct Connection {
    partner: TcpStream,
    edge: TcpStream,
}

impl Connection {
    fn open(lab: &Lab, listener: &TcpListener, vip: IpAddr) -> Result<Self> {
        let partner = lab.partner.run(|| {
            Ok(TcpStream::connect_timeout(
                &SocketAddr::new(vip, SIP_TLS),
                TIMEOUT,
            )?)
        })?;
        let (edge, _) = listener.accept()?;
        for end in [&partner, &edge] {
            end.set_read_timeout(Some(TIMEOUT))?;
            end.set_write_timeout(Some(TIMEOUT))?;
        }
        let this = Self { partner, edge };
        this.exchange()?;
        Ok(this)
    }

    fn client(&self) -> Result<SocketAddr> {
        Ok(self.partner.local_addr()?)
    }

    /// A few bytes each way: the handshake is over, and the connection works.
    fn exchange(&self) -> Result<()> {
        for (mut from, mut to) in [(&self.partner, &self.edge), (&self.edge, &self.partner)] {
            from.write_all(b"hello")?;
            to.read_exact(&mut [0; 5])?;
        }
        Ok(())
    }

    fn is_reset(&self) -> Result<()> {
        for (name, mut end) in [("partner", &self.partner), ("Edge", &self.edge)] {
            match end.read(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                other => anyhow::bail!("the {name}'s end says {other:?}"),
            }
        }
        Ok(())
    }
}

fn listen(machine: &Namespace, host: Host) -> Result<[TcpListener; 2]> {
    let listen = |address: IpAddr| {
        machine.run(move || Ok(TcpListener::bind(SocketAddr::new(address, SIP_TLS))?))
    };
    let [v4, v6] = host.both();
    Ok([listen(v4)?, listen(v6)?])
}

/// What `flow ls` lists.
fn flows(gateway: &Gateway<'_>) -> Result<Vec<Value>> {
    let flows = gateway.json(&["flow", "ls"])?;
    Ok(flows.as_array().context("a list")?.clone())
}

fn kill_resets_both_sides(lab: &Lab, source: &str) -> Result<()> {
    let at_a = listen(&lab.edge_a, EDGE_A)?;
    let at_b = listen(&lab.edge_b, EDGE_B)?;
    let gateway = Gateway::start(lab, &two_ip_sets_with_source(source))?;
    let connect = |listeners: &[TcpListener; 2], vip: Host| {
        let [v4, v6] = listeners;
        Ok::<_, anyhow::Error>([
            Connection::open(lab, v4, vip.v4.into())?,
            Connection::open(lab, v6, vip.v6.into())?,
        ])
    };
    let to_a = connect(&at_a, VIP_1)?;
    let [kept, other] = connect(&at_b, VIP_2)?;
    ensure!(flows(&gateway)?.len() == 4);

    // One by its addresses.
    let client = other.client()?.to_string();
    let said = gateway.output(&[
        "flow",
        "kill",
        &client,
        &format!("[{}]:{SIP_TLS}", VIP_2.v6),
    ])?;
    ensure!(said == "1 flow ended\n", "{said}");
    other.is_reset()?;
    ensure!(
        flows(&gateway)?
            .iter()
            .all(|flow| flow["client"] != client.as_str())
    );

    // All of an Edge; the others go on.
    let said = gateway.output(&["flow", "kill", "--edge", "edge-a"])?;
    ensure!(said == "1 flow ended\n", "{said}");
    to_a[0].is_reset()?;
    to_a[1].exchange()?;
    kept.exchange()?;
    ensure!(flows(&gateway)?.len() == 2);

    // All there are, with data in flight one way: the Edge's end does not read.
    let mut busy = &kept.partner;
    let flood = thread::scope(|scope| {
        let flood = scope.spawn(move || while busy.write_all(&[0; 4096]).is_ok() {});
        thread::sleep(Duration::from_millis(50));
        let said = gateway.output(&["flow", "kill", "--all"])?;
        ensure!(said == "2 flows ended\n", "{said}");
        flood
            .join()
            .map_err(|_| anyhow::anyhow!("the flood panicked"))
    });
    flood?;
    to_a[1].is_reset()?;
    ensure!(flows(&gateway)?.is_empty());
    let nobody = gateway.command(&["flow", "kill", &client])?;
    ensure!(nobody.status.code() == Some(1), "{nobody:?}");
    Ok(())
}

#[test]
fn killed_flows_are_reset_on_both_sides() {
    lab_test("cli-kill", &Topology::default(), |lab| {
        kill_resets_both_sides(lab, "preserve")
    });
}

#[test]
fn killed_flows_through_the_gateways_own_address_too() {
    lab_test("cli-kill-gateway", &Topology::default(), |lab| {
        kill_resets_both_sides(lab, "gateway")
    });
}
