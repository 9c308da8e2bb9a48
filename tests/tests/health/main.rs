//! Which Edges get new connections: checks, connects that fail, the operator's commands; and that open connections never notice.

mod checks;
mod client;
mod drain;
mod nobody;
mod tls;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{
    Lab, Topology,
    addresses::{EDGE_A, EDGE_B, PARTNER, VIP_1, VIP_2, VIP_3, at},
    deadline::Deadline,
    gateway::Gateway,
};

use crate::client::Client;

/// The longest that anything may take that is to happen.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// Enough clients that each Edge of a pool of two is some client's first.
pub(crate) const CLIENTS: usize = 12;
/// The name of the domain that goes to the pool.
pub(crate) const NAME: &str = "sip.fabrikam.example";
/// Often, so that tests need not wait.
pub(crate) const OFTEN: &str = "interval = \"200ms\", fall = 2, rise = 2";

/// What a check without TLS finds that finds nothing wrong.
pub(crate) const WELL: &str = "it can be connected to";

/// The three ways to an Edge of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Decided at the SYN.
    Steered,
    /// By its name, in the datapath.
    Bound,
    /// By its name, in the agent's relay.
    Relayed,
}

pub(crate) const WAYS: [Way; 3] = [Way::Steered, Way::Bound, Way::Relayed];

impl Way {
    /// The public addresses, IPv4 first.
    pub(crate) fn addresses(self) -> [SocketAddr; 2] {
        match self {
            Self::Steered => VIP_1.sip(),
            Self::Bound => VIP_2.sip(),
            Self::Relayed => VIP_3.sip(),
        }
    }
}

pub(crate) fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// One pool of edge-a and edge-b, in both families, and all three ways to it. `health` are keys of each Edge's checks; `edge` are further lines of each,
/// in which LETTER stands for its letter.
pub(crate) fn tables(health: &str, edge: &str) -> String {
    let mut text = String::new();
    for (letter, host) in [("a", EDGE_A), ("b", EDGE_B)] {
        for (family, address) in ["v4", "v6"].into_iter().zip(host.both()) {
            text += &format!(
                "[[edge]]\nname = \"{letter}-{family}\"\naddress = \"{}\"\nhealth = {{ {health} }}\n{}\n",
                at(address),
                edge.replace("LETTER", letter)
            );
        }
    }
    text += "[[pool]]\nname = \"both\"\nedges = [\"a-v4\", \"a-v6\", \"b-v4\", \"b-v6\"]\n";
    for (set, vip, mode) in [
        ("steered", VIP_1, "steer = \"both\""),
        ("bound", VIP_2, "inspect = true"),
        (
            "relayed",
            VIP_3,
            "inspect = true\nbind = false\nhand_off = false",
        ),
    ] {
        text += &format!(
            "[[ip_set]]\nname = \"{set}\"\naddresses = [\"{}\", \"{}\"]\n{mode}\n",
            vip.v4, vip.v6
        );
    }
    text + "[[domain]]\nsip_domain = \"fabrikam.example\"\npool = \"both\"\n\
            [limits]\nsyn_per_source = \"100000/s\"\nhello_per_source = \"100000/s\"\n"
}

/// A gateway that has checked every Edge and found it well.
pub(crate) fn start<'lab>(lab: &'lab Lab, health: &str, edge: &str) -> Result<Gateway<'lab>> {
    let gateway = Gateway::start(lab, &tables(health, edge))?;
    for letter in ["a", "b"] {
        all_become(&gateway, letter, "up", WELL)?;
    }
    Ok(gateway)
}

/// What the agent says of an Edge.
pub(crate) fn edge(gateway: &Gateway<'_>, name: &str) -> Result<Value> {
    let status = gateway.agent()?;
    let edges = status["edges"].as_array();
    let found = edges.and_then(|edges| edges.iter().find(|edge| edge["name"] == name));
    found
        .cloned()
        .with_context(|| format!("no Edge {name} in {status}"))
}

/// Waits until an Edge is in this state, and `why` is part of the reason.
pub(crate) fn becomes(gateway: &Gateway<'_>, name: &str, state: &str, why: &str) -> Result<()> {
    let what = format!("{name} to be {state}: {why}");
    let reached = || {
        let edge = edge(gateway, name)?;
        let is_why = edge["why"]
            .as_str()
            .is_some_and(|found| found.contains(why));
        Ok((edge["state"] == state && is_why).then_some(()))
    };
    Deadline::after(TIMEOUT)
        .poll(&what, reached)
        .with_context(|| gateway.log().unwrap_or_default())
}

/// Likewise both of one host's, by its letter.
pub(crate) fn all_become(
    gateway: &Gateway<'_>,
    letter: &str,
    state: &str,
    why: &str,
) -> Result<()> {
    for family in ["v4", "v6"] {
        becomes(gateway, &format!("{letter}-{family}"), state, why)?;
    }
    Ok(())
}

/// A connection of each way and family to each of both Edges.
pub(crate) fn one_of_each(lab: &Lab) -> Result<Vec<Client>> {
    let mut open = Vec::new();
    for way in WAYS {
        for address in way.addresses() {
            for edge in ["a", "b"] {
                open.push(to_edge(lab, way, address, edge)?);
            }
        }
    }
    Ok(open)
}

/// A connection that happens to go to this Edge.
pub(crate) fn to_edge(lab: &Lab, way: Way, address: SocketAddr, edge: &str) -> Result<Client> {
    let found = || {
        let client = Client::open(lab, way, address, None)?;
        Ok((client.edge() == edge).then_some(client))
    };
    Deadline::after(TIMEOUT).poll(&format!("a connection to edge-{edge}"), found)
}

/// Waits until those have ended that [`to_edge`] has closed.
pub(crate) fn settled(gateway: &Gateway<'_>) -> Result<()> {
    let reached = || {
        let flows = gateway.json(&["flow", "ls"])?;
        let flows = flows.as_array().context("flows")?;
        let is_open = |flow: &&Value| !["closed", "reset"].iter().any(|it| flow["state"] == *it);
        let is_there = |flow: &Value| flow["state"] == "established" || flow["way"] == "relayed";
        let mut open = flows.iter().filter(is_open).peekable();
        let relayed = flows.iter().filter(|flow| flow["way"] == "relayed").count();
        let carried = gateway.agent()?["connections"] == relayed;
        Ok((carried && open.all(is_there)).then_some(()))
    };
    Deadline::after(TIMEOUT).poll("what was closed to end", reached)
}

/// New connections of each way and family all go to this Edge.
pub(crate) fn all_reach(lab: &Lab, edge: &str) -> Result<()> {
    for way in WAYS {
        for address in way.addresses() {
            for _ in 0..CLIENTS {
                let client = Client::open(lab, way, address, None)?;
                ensure!(client.edge() == edge, "{way:?}: edge-{}", client.edge());
            }
        }
    }
    Ok(())
}

/// Open connections go on.
pub(crate) fn all_live(open: &mut [Client]) -> Result<()> {
    for client in open {
        client.ping().with_context(|| format!("{client:?}"))?;
    }
    Ok(())
}

/// What the datapath has as the state of an Edge.
pub(crate) fn state(gateway: &Gateway<'_>, name: &str) -> Result<String> {
    let edges = gateway.json(&["edge", "ls"])?;
    let lines = edges.as_array().context("a list")?;
    let line = lines.iter().find(|line| line["name"] == name);
    let state = line.and_then(|line| line["state"].as_str());
    Ok(state
        .with_context(|| format!("no {name} in {edges}"))?
        .to_owned())
}

/// The partner's end with this port, for a connection to `address`.
pub(crate) fn end(address: SocketAddr, port: u16) -> SocketAddr {
    let [v4, v6] = PARTNER.both();
    SocketAddr::new(if address.is_ipv4() { v4 } else { v6 }, port)
}
