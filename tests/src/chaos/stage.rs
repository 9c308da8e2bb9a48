//! Where scenarios are played: a partner, two Edges that stand in for each other, and a gateway with each way that a connection can go.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Way, load::PATIENCE};
use crate::{
    Lab, Namespace, Topology,
    addresses::{EDGE_A, EDGE_B, PARTNER, SIP_TLS},
    deadline::Deadline,
    gateway::{Gateway, Tuning},
    peers::{Edge, EdgeTls, Greeting, Partner, PartnerTls, client_hello},
    pki::Pki,
};

/// How long a client waits for anything: longer than any fault lasts, and its repetitions; on a busy machine, an agent that starts is one.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Domains that are passed through, the one by the datapath and the other one by the agent, and one whose TLS ends at the gateway.
const PASSED: &str = "fabrikam.example";
const KEPT: &str = "woodgrove.example";
const TERMINATED: &str = "tailspin.example";

/// Of every agent: on a busy machine another one takes its time, and whoever waits for it shall not be refused meanwhile.
pub(super) const PATIENT: [&str; 2] = ["--patience", "10m"];

/// What each Edge runs for connections that have nothing to do with each other. Each has its pool and its port, and another first word: whoever is led
/// to another one hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Of the IP set whose address decides.
    Steered,
    /// Of [`PASSED`].
    Passed,
    /// Of [`KEPT`].
    Kept,
    /// Of [`TERMINATED`]: it speaks TLS; the others take any bytes behind a ClientHello.
    Tls,
}

impl Server {
    const ALL: [Self; 4] = [Self::Steered, Self::Passed, Self::Kept, Self::Tls];

    fn of(way: Way) -> Self {
        match way {
            Way::Steered => Self::Steered,
            Way::Bound | Way::HandedOff => Self::Passed,
            Way::Relayed => Self::Kept,
            Way::Terminated => Self::Tls,
        }
    }

    /// Of its pool.
    fn name(self) -> &'static str {
        match self {
            Self::Steered => "steered",
            Self::Passed => "passed",
            Self::Kept => "kept",
            Self::Tls => "tls",
        }
    }

    fn port(self) -> u16 {
        SIP_TLS + self as u16
    }

    fn greeting(self) -> Greeting {
        match self {
            Self::Steered => *b"steer",
            Self::Passed => *b"pass ",
            Self::Kept => *b"keep ",
            Self::Tls => *b"never",
        }
    }

    /// A client whose hello asks for a domain's name.
    fn client(self, domain: &str) -> Result<PartnerTls> {
        let hello = client_hello(&format!("sip.{domain}"))?;
        Ok(PartnerTls::replayed_to(hello, self.greeting()))
    }
}

/// Edges of the configuration that one machine is: each server in each family.
pub(super) const OF_MACHINE: usize = 2 * Server::ALL.len();

/// RSTs that a stack has sent, as `nstat` has them.
const RESETS: &str = "TcpOutRsts";

/// Clients, who may be asked by any thread.
pub(super) struct Clients<'lab> {
    namespace: &'lab Namespace,
    steered: PartnerTls,
    passed: PartnerTls,
    kept: PartnerTls,
    tls: PartnerTls,
}

impl Clients<'_> {
    /// For connections to an address of this way.
    pub(super) fn partner(&self, way: Way, address: SocketAddr) -> Partner<'_> {
        // A port of its own for each connection: with the kernel's choice two to different addresses may share one, and clients are told apart by it.
        let [v4, v6] = PARTNER.both();
        let own = if address.is_ipv4() { v4 } else { v6 };
        let tls = match Server::of(way) {
            Server::Steered => &self.steered,
            Server::Passed => &self.passed,
            Server::Kept => &self.kept,
            Server::Tls => &self.tls,
        };
        Partner {
            namespace: self.namespace,
            source: Some(SocketAddr::new(own, 0)),
            tls: Some(tls),
            timeout: TIMEOUT,
        }
    }
}

/// What a scenario wants differently.
#[derive(Clone, Debug, Default)]
pub(super) struct Setting {
    /// Further lines of `[gateway]`.
    pub(super) gateway: &'static str,
    /// Of each Edge.
    pub(super) edge: &'static str,
    /// Interfaces besides those that every lab has.
    pub(super) interfaces: &'static [&'static str],
    /// A program in the place of `snigate`.
    pub(super) agent: Option<PathBuf>,
}

/// The lab with everything in it.
pub(super) struct Stage<'lab> {
    pub(super) lab: &'lab Lab,
    /// What it was made of.
    pub(super) topology: &'lab Topology,
    pub(super) gateway: RefCell<Gateway<'lab>>,
    setting: Setting,
    tables: String,
    edge_tls: EdgeTls,
    /// The servers of each machine, or none where it is dead.
    edges: RefCell<[Vec<Edge>; 2]>,
}

impl<'lab> Stage<'lab> {
    /// Makes Edges and clients, and starts the gateway.
    pub(super) fn new(
        lab: &'lab Lab,
        topology: &'lab Topology,
        hook: &'static str,
        setting: Setting,
    ) -> Result<(Self, Clients<'lab>)> {
        // Each port would rest for a minute after its connection.
        lab.partner.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        lab.partner.sysctl("net/ipv4/tcp_no_metrics_save", "1")?;
        let pki = Pki::new("federation", &lab.dir())?;
        let name = format!("sip.{TERMINATED}");
        let partner = pki.server("partner", &["sip.partner.example"])?;
        let tls = PartnerTls::new(&name, &partner, &pki, None)?.without_resumption();
        let clients = Clients {
            namespace: &lab.partner,
            // The name does not matter.
            steered: Server::Steered.client(PASSED)?,
            passed: Server::Passed.client(PASSED)?,
            kept: Server::Kept.client(KEPT)?,
            tls,
        };
        let edge_tls = EdgeTls::for_anybody(&pki.server("edges", &["edge.hoster.example"])?)?;
        let tables = tables(&pki, setting.edge)?;
        let tuning = Tuning {
            hook: Some(hook),
            quiet: true,
            binary: setting.agent.clone(),
            ..Tuning::default()
        };
        let mut gateway = Gateway::prepare(lab, tuning)?;
        gateway.configure_on(&interfaces(&setting), setting.gateway, &tables)?;
        let stage = Self {
            lab,
            topology,
            gateway: RefCell::new(gateway),
            setting,
            tables,
            edge_tls,
            edges: RefCell::default(),
        };
        stage.start_edge(0)?;
        stage.start_edge(1)?;
        stage.gateway.borrow_mut().run(&PATIENT)?;
        Ok((stage, clients))
    }

    /// Writes a configuration with further tables, for the next reload or start.
    pub(super) fn configure(&self, more: &str) -> Result<()> {
        let text = format!("{}{more}", self.tables);
        let mut gateway = self.gateway.borrow_mut();
        gateway.configure_on(&interfaces(&self.setting), self.setting.gateway, &text)
    }

    /// The first or the second Edge.
    pub(super) fn edge(&self, index: usize) -> &'lab Namespace {
        [&self.lab.edge_a, &self.lab.edge_b][index]
    }

    /// Where its server for a way is.
    pub(super) fn edge_address(&self, index: usize, way: Way, v6: bool) -> SocketAddr {
        let address = [EDGE_A, EDGE_B][index].both()[usize::from(v6)];
        SocketAddr::new(address, Server::of(way).port())
    }

    pub(super) fn start_edge(&self, index: usize) -> Result<()> {
        let machine = self.edge(index);
        let start = |server: Server| {
            let tls = (server == Server::Tls).then_some(&self.edge_tls);
            Edge::start_greeting(machine, server.port(), tls, server.greeting())
        };
        let servers = Server::ALL.into_iter().map(start);
        self.edges.borrow_mut()[index] = servers.collect::<Result<_>>()?;
        Ok(())
    }

    /// Ends its processes; its machine goes on.
    pub(super) fn kill_edge(&self, index: usize) {
        self.edges.borrow_mut()[index].clear();
    }

    /// Which Edge each client is at, and by which way, as `snigate flow ls` has it.
    pub(super) fn flows(&self) -> Result<BTreeMap<SocketAddr, (Way, usize)>> {
        let flows = self.gateway.borrow().json(&["flow", "ls"])?;
        let mut known = BTreeMap::new();
        for flow in rows(&flows)? {
            let text = |name: &str| {
                flow[name]
                    .as_str()
                    .with_context(|| format!("no {name}: {flow}"))
            };
            let Some(way) = Way::ALL.into_iter().find(|way| flow["way"] == way.name()) else {
                continue;
            };
            let edge = usize::from(text("edge")?.starts_with('b'));
            known.insert(text("client")?.parse()?, (way, edge));
        }
        Ok(known)
    }

    /// Waits until each of these connections goes its way, and no hand-off is under way any more.
    pub(super) fn wait_until_settled(&self, held: &BTreeMap<SocketAddr, Way>) -> Result<()> {
        let mut last = String::new();
        let settled = || {
            let flows = self.flows()?;
            let wrong = held
                .iter()
                .find(|(client, way)| flows.get(*client).is_none_or(|(found, _)| found != *way));
            if let Some((client, way)) = wrong {
                last = format!("{client} is not {}: {:?}", way.name(), flows.get(client));
                return Ok(None);
            }
            let entries = self.entries("HANDING_OFF")?;
            last = format!("{entries} entries in HANDING_OFF");
            Ok((entries == 0).then_some(()))
        };
        let outcome = Deadline::after(PATIENCE).poll("connections to go their ways", settled);
        outcome.with_context(|| last)
    }

    /// The entries of FLOWS, as `snigate map dump` has them.
    pub(super) fn entries_of_flows(&self) -> Result<Vec<Value>> {
        let flows = self.gateway.borrow().json(&["map", "dump", "FLOWS"])?;
        Ok(rows(&flows)?.clone())
    }

    /// Clients of handed-off flows that have both entries, and those of them whose sockets may still be the agent's. Asks the maps alone: for a moment at
    /// which no agent writes them.
    pub(super) fn handed_off(&self) -> Result<HandedOff> {
        let flows = self.entries_of_flows()?;
        let given = self
            .gateway
            .borrow()
            .json(&["map", "dump", "HANDING_OFF"])?;
        let given: Vec<_> = rows(&given)?.iter().map(|row| &row["arrives"]).collect();
        let mut entries: BTreeMap<SocketAddr, Vec<&Value>> = BTreeMap::new();
        for flow in flows.iter().filter(|it| it["way"] == "handed-off") {
            let client = match flow["direction"].as_str() {
                Some("to-edge") => &flow["arrives"]["source"],
                _ => &flow["leaves"]["destination"],
            };
            let client = client.as_str().with_context(|| format!("{flow}"))?;
            entries.entry(client.parse()?).or_default().push(flow);
        }
        entries.retain(|_, of_client| of_client.len() == 2);
        let handing_off = entries
            .iter()
            .filter(|(_, flows)| flows.iter().any(|flow| given.contains(&&flow["arrives"])))
            .map(|(client, _)| *client);
        Ok(HandedOff {
            under_way: handing_off.collect(),
            all: entries.into_keys().collect(),
        })
    }

    /// All that is counted, by name: by the datapath, packets that it has dropped among them, by the agent (`agent/…`), and RSTs by the stacks of the
    /// gateway's host (`host/…`) and of both Edges (`edges/…`).
    pub(super) fn counts(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.gateway.borrow().json(&["status", "--all"])?;
        let counters = status["counters"].as_object().context("counters")?;
        let counted = counters.iter().map(|(name, value)| (name.as_str(), value));
        let drops = rows(&status["drops"])?.iter();
        let dropped =
            drops.map(|row| (row["reason"].as_str().unwrap_or_default(), &row["packets"]));
        let agent = status["agent"]["counters"]
            .as_object()
            .into_iter()
            .flatten();
        let by_agent = agent.map(|(name, value)| (format!("agent/{name}"), value));
        let mut counts = counted
            .chain(dropped)
            .map(|(name, value)| (name.to_owned(), value))
            .chain(by_agent)
            .map(|(name, value)| {
                let count = value
                    .as_u64()
                    .with_context(|| format!("{name} is {value}"))?;
                Ok((name, count))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let resets = |machine: &Namespace| anyhow::Ok(machine.tcp_counters()?.value(RESETS));
        let of_edges = resets(self.edge(0))? + resets(self.edge(1))?;
        counts.insert(format!("edges/{RESETS}"), of_edges);
        counts.insert(format!("host/{RESETS}"), resets(&self.lab.gateway)?);
        Ok(counts)
    }

    /// How many entries a map has.
    pub(super) fn entries(&self, map: &str) -> Result<u64> {
        let maps = self.gateway.borrow().json(&["map", "ls"])?;
        let row = rows(&maps)?.iter().find(|row| row["name"] == map);
        let count = row.and_then(|row| row["entries"].as_u64());
        count.with_context(|| format!("no {map} in {maps}"))
    }

    /// How many packets were dropped for a reason.
    pub(super) fn drops(&self, reason: &str) -> Result<u64> {
        let counts = self.counts()?;
        let count = counts.get(reason).copied();
        count.with_context(|| format!("no reason {reason} in {counts:?}"))
    }

    /// The agent has not failed meanwhile.
    pub(super) fn ensure_alive(&self) -> Result<()> {
        let status = self.gateway.borrow().agent()?;
        ensure!(status["configuration"].is_object(), "{status}");
        Ok(())
    }
}

/// What the datapath has been given.
#[derive(Clone, Debug, Default)]
pub(super) struct HandedOff {
    /// Clients whose flows are complete.
    pub(super) all: BTreeSet<SocketAddr>,
    /// Of them, those with an entry in HANDING_OFF.
    pub(super) under_way: BTreeSet<SocketAddr>,
}

fn rows(value: &Value) -> Result<&Vec<Value>> {
    value
        .as_array()
        .with_context(|| format!("no rows: {value}"))
}

fn interfaces(setting: &Setting) -> Vec<&'static str> {
    let mut all = vec!["wan0", "lan0", "lan1"];
    all.extend(setting.interfaces);
    all
}

/// Everything but `[gateway]`; `edge` is more of each Edge.
fn tables(pki: &Pki, edge: &str) -> Result<String> {
    let own = pki.server("own", &[&format!("sip.{TERMINATED}")])?;
    let roots = pki.roots().display();
    let mut text = String::new();
    for server in Server::ALL {
        let (pool, port) = (server.name(), server.port());
        let mut names = Vec::new();
        for (letter, host) in [("a", EDGE_A), ("b", EDGE_B)] {
            for (family, address) in ["v4", "v6"].into_iter().zip(host.both()) {
                let name = format!("{letter}-{pool}-{family}");
                let address = SocketAddr::new(address, port);
                text += &format!(
                    "[[edge]]\nname = \"{name}\"\naddress = \"{address}\"\n\
                     tls = {{ name = \"edge.hoster.example\", roots = \"{roots}\" }}\n{edge}\n"
                );
                names.push(name);
            }
        }
        text += &format!("[[pool]]\nname = \"{pool}\"\nedges = {names:?}\n");
    }
    for (way, mode) in [
        (Way::Steered, "steer = \"steered\""),
        (Way::Bound, "inspect = true"),
        (Way::HandedOff, "inspect = true\nbind = false"),
        (
            Way::Relayed,
            "inspect = true\nbind = false\nhand_off = false",
        ),
    ] {
        text += &format!(
            "[[ip_set]]\nname = \"{}\"\naddresses = [\"{}\", \"{}\"]\n{mode}\n",
            way.name(),
            way.vip().v4,
            way.vip().v6
        );
    }
    Ok(text
        + &format!(
            "[[domain]]\nsip_domain = \"{PASSED}\"\npool = \"passed\"\n\
             [[domain]]\nsip_domain = \"{KEPT}\"\npool = \"kept\"\n\
             [[domain]]\nsip_domain = \"{TERMINATED}\"\npool = \"tls\"\ncertificate = {:?}\nkey = {:?}\n\
             client_roots = \"{roots}\"\nclient_certificate = \"required\"\n\
             [limits]\nsyn_per_source = \"100000/s\"\nhello_per_source = \"100000/s\"\n",
            own.chain, own.key
        ))
}
