//! What connections experience that the ClientHello has sent on to an Edge, whoever carries their bytes from then on: the
//! agent with a socket on either side, or the datapath alone.
//!
//! All of it is told by the ends, which know nothing of the gateway, and by their kernels' counters: where nothing is lost
//! on the lines, no stack has anything to repair.

mod accounts;
mod agent;
mod bulk;
mod closing;
mod early;
mod faults;
mod idle;
mod mtu;
mod openssl;
mod options;
mod ports;
mod smoltcp;
mod vlan;
mod windows;

use std::{cell::RefCell, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use snigate_tests::{
    Lab, Namespace, Topology,
    addresses::{SIP_TLS, VIP_1},
    counters::TcpCounters,
    deadline::Deadline,
    gateway::{Gateway, Tuning, two_pools},
    lab_test,
    peers::{Conversation, Edge, End, Partner, PartnerTls, Report, captured_hello},
};

/// The hooks that the datapath can be attached by.
const HOOKS: &[&str] = &["xdp", "tcx"];
const SOURCES: [&str; 2] = ["preserve", "gateway"];
/// The ways of these connections, as `snigate flow ls --json` calls them: the agent has peeked the ClientHello and has given the sockets up, or the
/// datapath has read it.
const HANDED_OFF: &str = "handed-off";
const BOUND: &str = "bound";

const TIMEOUT: Duration = Duration::from_secs(60);
const MEGABYTE: u64 = 1_000_000;
/// How often what takes some luck is tried.
const ATTEMPTS: u32 = 3;
/// The name in the captured hellos, and of the domain that is passed through.
const NAME: &str = "sip.fabrikam.example";

/// What the ends count when, at the moment of the hand-off, segments of a client that does not wait for an answer overtake what the agent's socket
/// still has to send. They are put in order, and nothing is sent again. And when a socket's last acknowledgement comes after what the datapath has
/// forwarded: its sequence number is an old one, and it is not answered.
const OVERTAKEN: [&str; 5] = [
    // An acknowledgement that comes late.
    "TcpExtPAWSOldAck",
    "TcpExtTCPOFOQueue",
    "TcpExtTCPSACKReorder",
    "TcpExtTCPSACKDiscard",
    "TcpExtTCPACKSkippedSeq",
];

/// The program whose hello stands before what is no TLS.
const HELLO: &str = "openssl-tls13";

/// A gateway that inspects, an Edge behind it, and the hello of another program that leads there.
struct Scene<'lab> {
    lab: &'lab Lab,
    hook: &'static str,
    /// The way of its connections.
    way: &'static str,
    gateway: RefCell<Gateway<'lab>>,
    pools: String,
    replayed: PartnerTls,
}

/// Runs `body` in a lab of this topology for each hook, each source mode of the Edge, and each way.
fn in_scenes(name: &str, topology: &Topology, body: impl Fn(&Scene<'_>) -> Result<()>) {
    for source in SOURCES {
        in_scenes_with(name, topology, source, &two_pools(source), &body);
    }
}

/// Likewise by one way only.
fn in_scenes_by(
    way: &'static str,
    name: &str,
    topology: &Topology,
    body: impl Fn(&Scene<'_>) -> Result<()>,
) {
    for source in SOURCES {
        in_scenes_of(&[way], name, topology, source, &two_pools(source), &body);
    }
}

/// Likewise with tables of one's own in place of the two pools, of which `edges-a` must be one.
fn in_scenes_with(
    name: &str,
    topology: &Topology,
    variant: &str,
    pools: &str,
    body: impl Fn(&Scene<'_>) -> Result<()>,
) {
    in_scenes_of(&[HANDED_OFF, BOUND], name, topology, variant, pools, body);
}

fn in_scenes_of(
    ways: &[&'static str],
    name: &str,
    topology: &Topology,
    variant: &str,
    pools: &str,
    body: impl Fn(&Scene<'_>) -> Result<()>,
) {
    for (hook, way) in HOOKS
        .iter()
        .flat_map(|hook| ways.iter().map(move |way| (hook, way)))
    {
        let topology = Topology {
            capture: false,
            // smoltcp's frames are those of a wire.
            offloads: *hook == "tcx" && !name.starts_with("smoltcp"),
            ..topology.clone()
        };
        let name = format!("{way}-{name}-{hook}-{variant}");
        lab_test(&name, &topology, |lab| {
            body(&Scene::new(lab, hook, way, pools)?)
        });
    }
}

impl<'lab> Scene<'lab> {
    fn new(lab: &'lab Lab, hook: &'static str, way: &'static str, pools: &str) -> Result<Self> {
        // The gateway is an end, too, as long as the agent has the sockets.
        for end in [&lab.partner, &lab.edge_a, &lab.gateway] {
            // A tail loss probe (RFC 8985 section 7) is sent when an answer takes twice the round-trip time and 2 ms: on a
            // busy machine that says nothing. An acknowledgement that is missing for good is told by the timer of 200 ms.
            end.sysctl("net/ipv4/tcp_early_retrans", "0")?;
            // No connection inherits from the one before.
            end.sysctl("net/ipv4/tcp_no_metrics_save", "1")?;
        }
        // Of 84 transfers of 20 MB both ways by plain routing, on two processors with the offloads on, 12 were repaired; of as many on one, none.
        for machine in machines(lab) {
            machine.receive_on(0)?;
        }
        // Not the gateway, whose own the datapath's packets pass by.
        for machine in machines(lab).filter(|it| it.name() != lab.gateway.name()) {
            machine.queue_before_links()?;
        }
        for end in [&lab.partner, &lab.edge_a] {
            // Room for what arrives while the socket's owner has lost its processor. The scale follows from the last number.
            end.sysctl("net/ipv4/tcp_rmem", "4096 1048576 6291456")?;
        }
        let tuning = Tuning {
            hook: Some(hook),
            ..Tuning::default()
        };
        Ok(Self {
            gateway: RefCell::new(Gateway::start_tuned(
                lab,
                tuning,
                "",
                &tables(pools, binding(way)),
            )?),
            pools: pools.to_owned(),
            replayed: PartnerTls::replayed(captured_hello(HELLO)?),
            lab,
            hook,
            way,
        })
    }

    /// The Edge of most tests: what it is sent behind the hello is no TLS, which nobody on the way looks at.
    fn edge(&self) -> Result<Edge> {
        Edge::start(&self.lab.edge_a, SIP_TLS, None)
    }

    fn partner(&self) -> Partner<'_> {
        self.partner_with(&self.replayed)
    }

    fn partner_with<'a>(&'a self, tls: &'a PartnerTls) -> Partner<'a> {
        Partner {
            namespace: &self.lab.partner,
            source: None,
            tls: Some(tls),
            timeout: TIMEOUT,
        }
    }

    fn ends(&self) -> [&Namespace; 2] {
        [&self.lab.partner, &self.lab.edge_a]
    }

    /// Reloads with this in the IP set.
    fn configure(&self, ip_set: &str) -> Result<()> {
        let ip_set = format!("{}\n{ip_set}", binding(self.way));
        let ip_set = ip_set.as_str();
        let mut gateway = self.gateway.borrow_mut();
        gateway.configure("", &tables(&self.pools, ip_set))?;
        gateway.output(&["reload"])?;
        Ok(())
    }

    /// What each machine's kernel counts while `body` runs.
    fn counting<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<(T, Counted)> {
        let lab = self.lab;
        let ends = [&lab.partner, &lab.edge_a, &lab.gateway];
        let unsent = || machines(lab).map(Namespace::unsent).sum::<Result<u64>>();
        let (before, unsent_before) = (ends.map(Namespace::tcp_counters), unsent()?);
        let result = body()?;
        let mut added = ends
            .into_iter()
            .zip(before)
            .map(|(machine, before)| Ok(machine.tcp_counters()?.since(&before?)))
            .collect::<Result<Vec<_>>>()?
            .into_iter();
        let mut next = || added.next().context("three machines");
        let counted = Counted {
            partner: next()?,
            edge: next()?,
            gateway: next()?,
            unsent: unsent()? - unsent_before,
        };
        Ok((result, counted))
    }

    /// Runs `body` on lines that lose nothing: neither end has anything to repair.
    fn cleanly<T>(&self, what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        Ok(self.cleanly_but(what, &[], body)?.0)
    }

    /// Likewise, where the ends' kernels may have counted some things all the same.
    fn cleanly_but<T>(
        &self,
        what: &str,
        allowed: &[&str],
        body: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Counted)> {
        let (result, counted) = self.counting(body).with_context(|| what.to_owned())?;
        counted.ensure_no_corruption(what)?;
        let drops = counted.all().map(|(_, counters)| counters.own_drops());
        if drops != [0; 3] || counted.unsent != 0 {
            // The limit on what waits for a socket while its owner has it (`tcp_add_backlog`): it is met when the owner
            // loses its processor in the middle of a call. Or the room of a veth, likewise.
            eprintln!(
                "{what}: a busy machine has dropped {drops:?} segments, and {} before it; repairs are not judged",
                counted.unsent
            );
            return Ok((result, counted));
        }
        for (end, added) in counted.ends() {
            let repairs = added.repairs().into_iter();
            let repairs: Vec<_> = repairs
                .filter(|(name, _)| !allowed.contains(name) && !OVERTAKEN.contains(name))
                .collect();
            if !repairs.is_empty() {
                bail!(Repaired(format!(
                    "{what}: {end} had to repair {repairs:?}; all that was counted: {counted:?}"
                )));
            }
        }
        Ok((result, counted))
    }

    /// Likewise where nobody waits for anybody: the moment of the hand-off is then a matter of luck. An agent that loses its processor between the
    /// look at its sockets and the entry of the flow has by then received what later segments overtake, and their sender may repeat it. That is not so
    /// each time.
    fn cleanly_at_last<T>(&self, what: &str, body: impl Fn() -> Result<T>) -> Result<T> {
        for _ in 1..ATTEMPTS {
            match self.cleanly(what, &body) {
                Err(error) if error.is::<Repaired>() => eprintln!("once more: {error}"),
                ended => return ended,
            }
        }
        self.cleanly(what, &body)
    }

    /// Runs `body` on lines that are bad: whatever has to be sent again, nothing arrives that is wrong.
    fn roughly<T>(&self, what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let (result, counted) = self.counting(body).with_context(|| what.to_owned())?;
        counted.ensure_no_corruption(what)?;
        Ok(result)
    }

    /// So many bytes both ways at once, and what both ends say of it.
    fn exchange(&self, edge: &Edge, address: SocketAddr, bytes: u64) -> Result<Conversation> {
        let done = self.partner().exchange(address, bytes, bytes)?;
        self.went_well(edge, done.local, bytes)?;
        Ok(done)
    }

    /// That the Edge has had so many bytes and an orderly end, by the way that is expected.
    fn went_well(&self, edge: &Edge, client: SocketAddr, bytes: u64) -> Result<Report> {
        let report = edge.report(TIMEOUT)?;
        ensure!(
            (report.received, &report.end) == (bytes, &End::Clean),
            "{report:?}"
        );
        self.went(client)?;
        Ok(report)
    }

    /// That a connection goes, or went, the way that is expected.
    fn went(&self, client: SocketAddr) -> Result<()> {
        self.went_by(client, self.way)
    }

    fn went_by(&self, client: SocketAddr, way: &str) -> Result<()> {
        assert_way(&self.gateway.borrow(), client, way)
    }

    /// Likewise all connections so far, of clients that do not tell their ports.
    fn all_went(&self) -> Result<()> {
        let expected = self.way;
        let flows = self.gateway.borrow().json(&["flow", "ls"])?;
        let ways = flows.as_array().context("flows")?;
        ensure!(
            !ways.is_empty() && ways.iter().all(|flow| flow["way"] == expected),
            "not all of them are {expected}: {flows}"
        );
        Ok(())
    }
}

/// All through which packets of the first Edge's connections go.
fn machines(lab: &Lab) -> impl Iterator<Item = &Namespace> {
    let routers = [&lab.router, &lab.wan_router].into_iter().flatten();
    [&lab.partner, &lab.edge_a, &lab.gateway]
        .into_iter()
        .chain(routers)
}

/// An inspected address of both families, and a domain that is passed through.
fn tables(pools: &str, ip_set: &str) -> String {
    format!(
        r#"{pools}
[[ip_set]]
name = "shared"
addresses = ["{}", "{}"]
inspect = true
{ip_set}

[[domain]]
sip_domain = "fabrikam.example"
pool = "edges-a"
"#,
        VIP_1.v4, VIP_1.v6
    )
}

/// What of an IP set leads to this way.
fn binding(way: &str) -> &'static str {
    if way == BOUND { "" } else { "bind = false" }
}

/// That an end had to repair something, where it should not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Repaired(String);

/// What was counted while something happened.
#[derive(Debug)]
struct Counted {
    partner: TcpCounters,
    edge: TcpCounters,
    /// An end, too, as long as the agent has the sockets.
    gateway: TcpCounters,
    /// Packets that the lab's lines have lost.
    unsent: u64,
}

impl Counted {
    fn ends(&self) -> [(&'static str, &TcpCounters); 2] {
        [("the partner", &self.partner), ("the Edge", &self.edge)]
    }

    fn all(&self) -> [(&'static str, &TcpCounters); 3] {
        let [partner, edge] = self.ends();
        [partner, edge, ("the gateway", &self.gateway)]
    }

    fn ensure_no_corruption(&self, what: &str) -> Result<()> {
        // Where lines reorder, what was sent again without need may overtake the first of it, which PAWS then refuses as
        // the old duplicate that it is (RFC 7323 section 5.3): never more than were sent again.
        let again: u64 = self.all().map(|(_, of)| of.retransmitted()).iter().sum();
        for (end, added) in self.ends() {
            let mut corruptions = added.corruptions();
            corruptions.retain(|(name, count)| *name != "TcpExtPAWSEstab" || *count > again);
            ensure!(
                corruptions.is_empty(),
                "{what}: {end} was sent what is wrong, {corruptions:?}; all that was counted: {self:?}"
            );
        }
        Ok(())
    }
}

/// Waits until `snigate flow ls` has the flow of a client, and says that it goes this way.
fn assert_way(gateway: &Gateway<'_>, client: SocketAddr, expected: &str) -> Result<()> {
    let what = format!("the flow of {client} to be {expected}");
    let mut last = String::new();
    Deadline::after(Duration::from_secs(2))
        .poll(&what, || {
            let flows = gateway.json(&["flow", "ls"])?;
            let flows = flows.as_array().context("flows")?;
            let own = flows
                .iter()
                .find(|flow| flow["client"] == client.to_string());
            last = format!("{own:?}");
            Ok(own
                .is_some_and(|flow| flow["way"] == expected)
                .then_some(()))
        })
        .context(last)
}
