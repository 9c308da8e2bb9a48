//! Connections that the datapath binds to an Edge by itself: what binding has of its own, beside all that any connection has, which is `handoff`'s.
//!
//! A client is told from its Edge's echo where it has come to, and from `snigate flow ls` which way; from the datapath's counters, why.

mod agent;
mod client;
mod edges;
mod fallback;
mod flood;
mod lost;
mod processors;
mod shapes;
mod watch;

use std::{cell::RefCell, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{
    Lab, Topology,
    addresses::{EDGE_A, EDGE_B, VIP_1, at},
    deadline::Deadline,
    gateway::{Gateway, Tuning},
    lab_test,
    peers::{EchoEdge, Segments, client_hello},
};

use crate::client::Client;

/// The hooks that the datapath can be attached by.
const HOOKS: [&str; 2] = ["xdp", "tcx"];
const SOURCES: [&str; 2] = ["preserve", "gateway"];
/// The longest that anything may take that is to succeed.
const TIMEOUT: Duration = Duration::from_secs(30);

const BOUND: &str = "bound";
const HANDED_OFF: &str = "handed-off";

/// The name of a domain that goes to edge-a; it is that of the captured hellos.
const NAME: &str = "sip.fabrikam.example";
/// Of one that goes to either Edge.
const EITHER: &str = "sip.contoso.example";
/// Of one that goes to edge-b.
const OTHER: &str = "sip.adatum.example";

/// Room for the connections of a test in a row, all from one address.
const LIMITS: &str = "[limits]\nsyn_per_source = \"100000/s\"\nhello_per_source = \"100000/s\"\n";

fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// A running gateway, and how its tables are made.
struct Scene<'lab> {
    lab: &'lab Lab,
    gateway: RefCell<Gateway<'lab>>,
    source: &'static str,
}

/// Runs `body` as a lab test on each hook, with Edges that see the client's address.
fn on_hooks(name: &str, topology: &Topology, body: impl Fn(&Scene<'_>) -> Result<()>) {
    for hook in HOOKS {
        in_scene(name, topology, tuned(hook), SOURCES[0], &body);
    }
}

/// Likewise in each source mode.
fn in_scenes(name: &str, topology: &Topology, body: impl Fn(&Scene<'_>) -> Result<()>) {
    for hook in HOOKS {
        for source in SOURCES {
            in_scene(name, topology, tuned(hook), source, &body);
        }
    }
}

fn tuned(hook: &'static str) -> Tuning {
    Tuning {
        hook: Some(hook),
        ..Tuning::default()
    }
}

/// Runs `body` with one gateway, in one source mode.
fn in_scene(
    name: &str,
    topology: &Topology,
    tuning: Tuning,
    source: &'static str,
    body: impl Fn(&Scene<'_>) -> Result<()>,
) {
    let hook = tuning.hook.unwrap_or("auto");
    let name = format!("bind-{name}-{hook}-{source}");
    lab_test(&name, topology, |lab| {
        let tuning = tuning.clone();
        let tables = config(source, "", DOMAINS);
        let scene = Scene {
            lab,
            gateway: RefCell::new(Gateway::start_tuned(lab, tuning, "", &tables)?),
            source,
        };
        // No connection inherits from the one before.
        lab.partner.sysctl("net/ipv4/tcp_no_metrics_save", "1")?;
        body(&scene)
    });
}

/// Three domains: one on each Edge, one on either.
const DOMAINS: &str = r#"
[[domain]]
sip_domain = "fabrikam.example"
pool = "edges-a"

[[domain]]
sip_domain = "adatum.example"
pool = "edges-b"

[[domain]]
sip_domain = "contoso.example"
pool = "either"
"#;

/// A pool for each Edge and one with both, an inspected IP set on the first virtual addresses, and further tables.
fn config(source: &str, ip_set: &str, tables: &str) -> String {
    let mut text = String::new();
    for (letter, edge) in [("a", EDGE_A), ("b", EDGE_B)] {
        for (family, address) in ["v4", "v6"].into_iter().zip(edge.both()) {
            text += &format!(
                "[[edge]]\nname = \"{letter}-{family}\"\naddress = \"{}\"\nsource = \"{source}\"\n",
                at(address)
            );
        }
        text += &format!(
            "[[pool]]\nname = \"edges-{letter}\"\nedges = [\"{letter}-v4\", \"{letter}-v6\"]\n"
        );
    }
    format!(
        "{text}[[pool]]\nname = \"either\"\nedges = [\"a-v4\", \"a-v6\", \"b-v4\", \"b-v6\"]\n\
         [[ip_set]]\nname = \"shared\"\naddresses = [\"{}\", \"{}\"]\ninspect = true\n{ip_set}\n{LIMITS}{tables}",
        VIP_1.v4, VIP_1.v6
    )
}

impl Scene<'_> {
    /// An Edge in each of the two namespaces; they call themselves `a` and `b`.
    fn edges(&self) -> Result<[EchoEdge; 2]> {
        Ok([
            EchoEdge::start(&self.lab.edge_a, "a")?,
            EchoEdge::start(&self.lab.edge_b, "b")?,
        ])
    }

    /// Reloads with this in the IP set, and these tables.
    fn configure(&self, ip_set: &str, tables: &str) -> Result<()> {
        let mut gateway = self.gateway.borrow_mut();
        gateway.configure("", &config(self.source, ip_set, tables))?;
        gateway.output(&["reload"])?;
        Ok(())
    }

    /// A connection with this hello, which an Edge has sent back.
    fn open(&self, address: SocketAddr, hello: &[u8]) -> Result<Client> {
        Client::open(&self.lab.partner, None, address, hello, Segments::Few)
    }

    /// A connection that asks for `name`, reaches the Edge `edge`, goes this way, and goes on well.
    fn reaches(&self, address: SocketAddr, name: &str, edge: &str, way: &str) -> Result<()> {
        let what = || format!("{name} at {address}, {way}");
        let mut client = self
            .open(address, &client_hello(name)?)
            .with_context(what)?;
        self.goes(&client, edge, way).with_context(what)?;
        client.ping().with_context(what)?;
        client.close().with_context(what)
    }

    /// That an open connection has come to this Edge, and goes this way.
    fn goes(&self, client: &Client, edge: &str, way: &str) -> Result<()> {
        ensure!(client.edge() == edge, "to Edge {}", client.edge());
        let mut last = Value::Null;
        let is_so = || {
            last = self.flow(client.local())?;
            Ok((last["way"] == way).then_some(()))
        };
        Deadline::after(TIMEOUT)
            .poll(&format!("a flow that is {way}"), is_so)
            .with_context(|| format!("{last}"))
    }

    /// The flow of a client, as `snigate flow ls` has it, or null.
    fn flow(&self, client: SocketAddr) -> Result<Value> {
        let flows = self.gateway.borrow().json(&["flow", "ls"])?;
        let flows = flows.as_array().context("flows")?;
        let client = client.to_string();
        let own = flows.iter().find(|flow| flow["client"] == client);
        Ok(own.cloned().unwrap_or_default())
    }

    /// A counter of the datapath's.
    fn counter(&self, name: &str) -> Result<u64> {
        let status = self.gateway.borrow().json(&["status", "--all"])?;
        let count = status["counters"][name].as_u64();
        count.with_context(|| format!("no counter {name} in {status}"))
    }

    /// How many packets the datapath has dropped for this reason.
    fn drops(&self, reason: &str) -> Result<u64> {
        let status = self.gateway.borrow().json(&["status", "--all"])?;
        let rows = status["drops"].as_array().context("drops")?;
        let row = rows.iter().find(|row| row["reason"] == reason);
        row.and_then(|row| row["packets"].as_u64())
            .with_context(|| format!("no reason {reason} in {status}"))
    }

    /// What is not zero, for those who ask why.
    fn told(&self) -> String {
        let gateway = self.gateway.borrow();
        let told = |arguments: &[&str]| match gateway.output(arguments) {
            Ok(text) => text,
            Err(error) => format!("{error:#}"),
        };
        format!("{}{}", told(&["status"]), told(&["map", "dump", "PENDING"]))
    }

    /// How many entries a map has.
    fn entries(&self, map: &str) -> Result<usize> {
        let maps = self.gateway.borrow().json(&["map", "ls"])?;
        let rows = maps.as_array().context("maps")?;
        let row = rows.iter().find(|row| row["name"] == map);
        let count = row.and_then(|row| row["entries"].as_u64());
        let count = count.with_context(|| format!("no {map} in {maps}"))?;
        Ok(usize::try_from(count)?)
    }

    /// Waits until nothing is pending and nothing half-open: for what is done at once, and not by the sweep.
    fn forgets(&self, within: Duration) -> Result<()> {
        let mut last = String::new();
        let is_empty = || {
            let mut left = 0;
            last.clear();
            for map in ["PENDING", "HELLOS", "HALF_OPEN"] {
                let entries = self.entries(map)?;
                last += &format!("{map}: {entries} ");
                left += entries;
            }
            Ok((left == 0).then_some(()))
        };
        Deadline::after(within)
            .poll("nothing to be pending", is_empty)
            .with_context(|| last)
    }
}
