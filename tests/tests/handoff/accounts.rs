//! What `flow ls`, `edge ls` and `route ls` say of connections by every way, compared with what their ends have sent.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{
    Topology,
    addresses::{EDGE_A, EDGE_B, SIP_TLS, VIP_1, VIP_2, VIP_3, at},
    deadline::Deadline,
    peers::{Connection, Edge, EdgeTls, Partner, PartnerTls, captured_hello},
    pki::Pki,
};

use crate::{HELLO, NAME, Scene, TIMEOUT, in_scenes_with};

/// The name whose TLS ends at the gateway.
const TERMINATED: &str = "sip.tailspin.example";
/// What the Edge behind it shows.
const EDGE_NAME: &str = "edge.hoster.example";
/// An Edge's first word, and a partner's request.
const GREETING: u64 = 5;
const REQUEST: u64 = 32;
const PING: u64 = 1024;
/// More than the headers of any segment, its options included.
const HEADERS: u64 = 100;

/// A sweep comes every five seconds, and finds what a RST has ended ten seconds before.
const SWEPT: Duration = Duration::from_secs(40);

/// Connections, and bytes to the Edge and to the client.
type Sums = [u64; 3];

/// An open connection, and what it must be accounted as.
struct Open {
    connection: Connection,
    way: &'static str,
    route: Option<&'static str>,
    edge: &'static str,
    /// Both ways, without headers.
    sent: [u64; 2],
}

/// The four ways in one gateway, whose Edges and names are told apart by their accounts.
struct Ways<'a, 'lab> {
    scene: &'a Scene<'lab>,
    _edges: [Edge; 2],
    tls: PartnerTls,
    pools: String,
}

impl<'a, 'lab> Ways<'a, 'lab> {
    fn new(scene: &'a Scene<'lab>) -> Result<Self> {
        let lab = scene.lab;
        let pki = Pki::new("accounts", &lab.dir())?;
        let behind = EdgeTls::new(&pki.server("edge", &[EDGE_NAME])?, &pki)?;
        let partner = pki.server("partner", &["sip.partner.example"])?;
        let gateway = pki.server("gateway", &["gateway.hoster.example"])?;
        let own = pki.server("tailspin", &[TERMINATED])?;
        let roots = pki.roots();
        let pools = format!(
            r#"
[identity]
gateway_certificate = {:?}
gateway_key = {:?}

[[edge]]
name = "edge-a"
address = "{a4}:5061"

[[edge]]
name = "edge-a-v6"
address = "[{a6}]:5061"

[[edge]]
name = "edge-b"
address = "{b4}:5061"
tls = {{ name = "{EDGE_NAME}", roots = {roots:?} }}

[[edge]]
name = "edge-b-v6"
address = "[{b6}]:5061"
tls = {{ name = "{EDGE_NAME}", roots = {roots:?} }}

[[pool]]
name = "edges-a"
edges = ["edge-a", "edge-a-v6"]

[[pool]]
name = "edges-b"
edges = ["edge-b", "edge-b-v6"]

[[ip_set]]
name = "steered"
addresses = ["{}", "{}"]
steer = "edges-a"

[[ip_set]]
name = "kept"
addresses = ["{}", "{}"]
inspect = true
hand_off = false

[[domain]]
sip_domain = "tailspin.example"
pool = "edges-b"
certificate = {:?}
key = {:?}
client_roots = {roots:?}
client_certificate = "required"
identity = "gateway"
"#,
            gateway.chain,
            gateway.key,
            VIP_2.v4,
            VIP_2.v6,
            VIP_3.v4,
            VIP_3.v6,
            own.chain,
            own.key,
            a4 = EDGE_A.v4,
            a6 = EDGE_A.v6,
            b4 = EDGE_B.v4,
            b6 = EDGE_B.v6,
        );
        let this = Self {
            scene,
            _edges: [
                scene.edge()?,
                Edge::start(&lab.edge_b, SIP_TLS, Some(&behind))?,
            ],
            tls: PartnerTls::new(TERMINATED, &partner, &pki, None)?,
            pools,
        };
        let mut gateway = scene.gateway.borrow_mut();
        gateway.configure("", &crate::tables(&this.pools, "bind = false"))?;
        gateway.output(&["reload"])?;
        drop(gateway);
        Ok(this)
    }

    /// A connection by each way, in both families.
    fn open(&self) -> Result<Vec<Open>> {
        let mut all = Vec::new();
        for family in 0..2 {
            let edge_a = ["edge-a", "edge-a-v6"][family];
            let edge_b = ["edge-b", "edge-b-v6"][family];
            for (way, vip, route, edge) in [
                ("handed-off", VIP_1, Some(NAME), edge_a),
                ("steered", VIP_2, None, edge_a),
                ("relayed", VIP_3, Some(NAME), edge_a),
                ("terminated", VIP_1, Some(TERMINATED), edge_b),
            ] {
                let address = at(vip.both()[family]);
                let connection = self.partner(way).echo(address)?;
                all.push(Open::new(connection, way, route, edge)?);
            }
        }
        Ok(all)
    }

    fn partner(&self, way: &str) -> Partner<'_> {
        if way == "terminated" {
            self.scene.partner_with(&self.tls)
        } else {
            self.scene.partner()
        }
    }

    fn json(&self, command: &[&str]) -> Result<Vec<Value>> {
        let listed = self.scene.gateway.borrow().json(command)?;
        Ok(listed.as_array().context("a list")?.clone())
    }

    /// The totals of every Edge and every configured name.
    fn totals(&self) -> Result<BTreeMap<String, Sums>> {
        let mut totals = BTreeMap::new();
        for line in self.json(&["edge", "ls"])?.iter().chain(&self.json(&[
            "route",
            "ls",
            "--configured",
        ])?) {
            let name = line["name"].as_str().context("a name")?;
            let total = &line["total"];
            let sums = ["connections", "to_edge", "to_client"].map(|sum| total[sum].as_u64());
            let [Some(connections), Some(to_edge), Some(to_client)] = sums else {
                anyhow::bail!("no total: {line}");
            };
            totals.insert(name.to_owned(), [connections, to_edge, to_client]);
        }
        Ok(totals)
    }

    /// Waits until the totals are so much.
    fn come_to(&self, what: &str, expected: &BTreeMap<String, Sums>) -> Result<()> {
        let mut last = BTreeMap::new();
        Deadline::after(SWEPT)
            .poll(what, || {
                last = self.totals()?;
                Ok((last == *expected).then_some(()))
            })
            .with_context(|| format!("{what}: {last:?} instead of {expected:?}"))
    }

    /// Waits until the totals are what the lines of `flow ls` come to, on top of what was `before`; what that is.
    fn agree(&self, what: &str, before: &BTreeMap<String, Sums>) -> Result<BTreeMap<String, Sums>> {
        let mut last = String::new();
        Deadline::after(Duration::from_secs(10))
            .poll(what, || {
                let mut expected = before.clone();
                let flows = self.json(&["flow", "ls"])?;
                for flow in &flows {
                    for account in [&flow["edge"], &flow["route"]] {
                        let Some(account) = account.as_str() else {
                            continue;
                        };
                        let sums = expected.entry(account.to_owned()).or_default();
                        sums[0] += 1;
                        sums[1] += flow["to_edge"]["bytes"].as_u64().context("bytes")?;
                        sums[2] += flow["to_client"]["bytes"].as_u64().context("bytes")?;
                    }
                }
                let totals = self.totals()?;
                last = format!("{totals:?} instead of {expected:?}, by {flows:?}");
                Ok((totals == expected).then_some(totals))
            })
            .with_context(|| format!("{what}: {last}"))
    }
}

impl Open {
    fn new(
        connection: Connection,
        way: &'static str,
        route: Option<&'static str>,
        edge: &'static str,
    ) -> Result<Self> {
        // Over TLS there is no hello of somebody else's before the request, and nobody greets.
        let (before, greeting) = if way == "terminated" {
            (0, 0)
        } else {
            (captured_hello(HELLO)?.len() as u64, GREETING)
        };
        Ok(Self {
            sent: [before + REQUEST + PING, greeting + PING],
            connection,
            way,
            route,
            edge,
        })
    }

    fn ping(&mut self, times: u64) -> Result<()> {
        for _ in 0..times {
            self.connection.ping()?;
        }
        self.sent = self.sent.map(|bytes| bytes + times * PING);
        Ok(())
    }

    /// That a line of `flow ls --json` says of it what is so.
    fn is_shown(&self, flow: &Value) -> Result<()> {
        let number = |value: &Value| value.as_u64().with_context(|| flow.to_string());
        let is_flow = matches!(self.way, "steered" | "handed-off");
        ensure!(
            flow["way"] == self.way
                && flow["edge"] == self.edge
                && flow["route"].as_str() == self.route
                && flow["state"] == "established",
            "{flow}"
        );
        let (age, idle) = (number(&flow["age_ms"])?, number(&flow["idle_ms"])?);
        ensure!(idle <= age && age < 60_000, "{flow}");
        for (direction, sent) in ["to_edge", "to_client"].into_iter().zip(self.sent) {
            let traffic = &flow[direction];
            let bytes = number(&traffic["bytes"])?;
            let most = if is_flow {
                sent + HEADERS * number(&traffic["packets"])?
            } else {
                sent
            };
            ensure!(
                (sent..=most).contains(&bytes),
                "{sent} were sent {direction}, {most} with all headers: {flow}"
            );
        }
        Ok(())
    }
}

#[test]
fn every_way_is_shown_and_accounted() {
    in_scenes_with(
        "accounts",
        &Topology::default(),
        "preserve",
        &snigate_tests::gateway::two_pools("preserve"),
        |scene| {
            let ways = Ways::new(scene)?;
            let nothing = BTreeMap::from(
                [
                    "edge-a",
                    "edge-a-v6",
                    "edge-b",
                    "edge-b-v6",
                    NAME,
                    TERMINATED,
                ]
                .map(|account| (account.to_owned(), [0; 3])),
            );
            let mut open = ways.open()?;
            shown(&ways, &open)?;
            ways.agree("the first kilobytes", &nothing)?;
            for (times, open) in (10..).zip(&mut open) {
                open.ping(times)?;
            }
            shown(&ways, &open)?;
            let busy = ways.agree("more of them", &nothing)?;

            // The agent's own end with it, and keep their accounts.
            scene.gateway.borrow_mut().kill()?;
            scene.gateway.borrow_mut().run(&[])?;
            open.retain(|open| matches!(open.way, "steered" | "handed-off"));
            ways.come_to("after a kill", &busy)?;
            shown(&ways, &open)?;

            // One client's port is used again after a RST: the datapath ends the old flow. `flow kill` ends one, and the sweep the rest.
            let sources: Vec<_> = open.iter().map(|open| open.connection.local()).collect();
            let killed = sources[2];
            for open in open {
                if open.connection.local() != killed {
                    open.connection.reset()?;
                }
            }
            ways.counts_resets(&sources, killed)?;
            let ended = ways.totals()?;
            let gateway = scene.gateway.borrow();
            gateway.output(&["flow", "kill", &killed.to_string()])?;
            drop(gateway);
            let again = Partner {
                source: Some(sources[0]),
                ..scene.partner()
            };
            let again = again.echo(at(VIP_1.v4.into()))?;
            let again = Open::new(again, "handed-off", Some(NAME), "edge-a")?;
            shown(&ways, &[again])?;
            swept(&ways, 1)?;
            ways.agree("after the end of all but one", &ended)?;
            Ok(())
        },
    );
}

impl Ways<'_, '_> {
    /// Waits until the resets have come by.
    fn counts_resets(&self, of: &[SocketAddr], but: SocketAddr) -> Result<()> {
        Deadline::after(TIMEOUT).poll("the resets", || {
            let flows = self.json(&["flow", "ls"])?;
            let reset = |client: &SocketAddr| {
                let is_it = |flow: &&Value| flow["client"] == client.to_string();
                let flow = flows.iter().find(is_it);
                flow.is_some_and(|flow| flow["state"] == "reset")
            };
            let all = of.iter().all(|client| *client == but || reset(client));
            Ok(all.then_some(()))
        })
    }
}

/// That the connections are shown as what they are: in JSON, in the table, and each by itself.
fn shown(ways: &Ways<'_, '_>, open: &[Open]) -> Result<()> {
    let gateway = ways.scene.gateway.borrow();
    for open in open {
        let client = open.connection.local().to_string();
        // The last acknowledgement may be on its way, and a hand-off about to be complete.
        let mut last = None;
        Deadline::after(Duration::from_secs(5))
            .poll(&format!("{client} to be {}", open.way), || {
                for command in [
                    &["flow", "ls", "--client", &client][..],
                    &["flow", "show", &client],
                ] {
                    let flows = ways.json(command)?;
                    let [flow] = &flows[..] else {
                        last = Some(anyhow::anyhow!("{flows:?}"));
                        return Ok(None);
                    };
                    if let Err(error) = open.is_shown(flow) {
                        last = Some(error);
                        return Ok(None);
                    }
                }
                Ok(Some(()))
            })
            .with_context(|| format!("{last:?}"))?;
        let table = gateway.output(&["flow", "ls"])?;
        let line = table.lines().find(|line| line.contains(&client));
        let words: Vec<_> = line.context("a line")?.split_whitespace().collect();
        let route = open.route.unwrap_or("steered");
        for word in [route, open.edge, open.way, "established"] {
            ensure!(words.contains(&word), "{word} is missing: {words:?}");
        }
        let told = gateway.output(&["flow", "show", &client])?;
        ensure!(
            told.contains(open.way) && told.contains(open.edge),
            "{told}"
        );
        let by_agent = matches!(open.way, "relayed" | "terminated");
        ensure!(told.contains("by the agent") == by_agent, "{told}");
    }
    Ok(())
}

/// Waits until the datapath has so few flows.
fn swept(ways: &Ways<'_, '_>, left: usize) -> Result<()> {
    Deadline::after(SWEPT).poll("the sweep", || {
        let flows = ways.json(&["flow", "ls"])?;
        Ok((flows.len() == left).then_some(()))
    })
}
