//! One system under measurement, with its partner and its Edge.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::config::{self, PASSED, edge_address};
use super::super::{cpu, drained};
use super::system::{System, Through};
use crate::addresses::{SIP_TLS, VIP_1, partner};
use crate::deadline::Deadline;
use crate::gateway::{Gateway, Tuning};
use crate::peers::{Opener, Proxy, Size, StreamEdge, Way};
use crate::{Lab, Topology};

/// How long a hand-off may take, or a proxy's connection to the Edge.
const OPENING: Duration = Duration::from_secs(5);

/// A system in its lab.
pub(super) struct Stand<'lab> {
    pub(super) system: System,
    pub(super) lab: &'lab Lab,
    pub(super) running: Running<'lab>,
    terms: Terms,
    /// The gateway's sockets without a connection.
    sockets: u64,
    _edge: StreamEdge,
}

pub(super) enum Running<'lab> {
    Nothing,
    Snigate(Gateway<'lab>),
    Proxy(Proxy),
}

/// A system that this machine, or this snigate, has not got.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// The system.
    pub system: System,
    /// What was said about it.
    pub reason: String,
}

impl LeftOut {
    /// In words.
    pub(super) fn told(&self) -> String {
        let Self { system, reason } = self;
        format!("{} ({}): {reason}", system.name, system.links())
    }
}

/// What a bench wants of its stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) size: Size,
    pub(super) source: Source,
    /// So many addresses of the partner.
    pub(super) partners: u8,
}

/// `source` of snigate's Edge.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// The gateway's address, as the other proxies have it toward the Edge.
    Gateway,
    /// The client's address and port: a flow that has ended keeps its port for a minute, and the gateway's own are too few for a minute of this.
    Preserve,
}

impl Source {
    fn key(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Preserve => "preserve",
        }
    }
}

impl Terms {
    /// One partner with one address, and the gateway's own toward the Edge.
    pub(super) fn plain(size: Size) -> Self {
        Self {
            size,
            source: Source::Gateway,
            partners: 1,
        }
    }

    pub(super) fn topology(&self, system: &System) -> Topology {
        Topology {
            offloads: system.offloads,
            capture: false,
            partner_addresses: self.partners,
            ..Topology::default()
        }
    }

    fn partners(&self) -> impl Iterator<Item = Ipv4Addr> {
        (0..self.partners).map(|n| partner(n).v4)
    }
}

impl<'lab> Stand<'lab> {
    /// Starts it, and has it prove that it is what it is said to be. A snigate that refuses its configuration, or cannot use the hook, is left out.
    /// `other` is the other build of snigate.
    pub(super) fn start(
        lab: &'lab Lab,
        system: System,
        terms: Terms,
        other: Option<&Path>,
    ) -> Result<Result<Self, LeftOut>> {
        // Connections that have ended leave their ports in TIME_WAIT, for a minute each; and the kernel would cut that short for some of them, but
        // only where there are many.
        for machine in [&lab.partner, &lab.gateway] {
            machine.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
            machine.sysctl("net/ipv4/ip_local_port_range", "10000 65000")?;
            machine.sysctl("net/ipv4/tcp_max_tw_buckets", "1000000")?;
        }
        let edge = StreamEdge::start(&lab.edge_a, SIP_TLS)?;
        let running = match system.through {
            Through::Routing => Running::Nothing,
            Through::Snigate { .. } => match snigate(lab, system, terms, other) {
                Ok(gateway) => Running::Snigate(gateway),
                Err(error) => {
                    return Ok(Err(LeftOut {
                        system,
                        reason: complaint(&format!("{error:#}")),
                    }));
                }
            },
            Through::Proxy(make) => {
                let routes = [(PASSED, edge_address())];
                let way = Way::PassThrough(&routes);
                let address = (VIP_1.v4, SIP_TLS).into();
                Running::Proxy(Proxy::start(
                    lab,
                    make,
                    &lab.gateway,
                    address,
                    terms.size,
                    &way,
                )?)
            }
        };
        let stand = Self {
            system,
            sockets: lab.gateway.tcp_sockets()?,
            lab,
            running,
            terms,
            _edge: edge,
        };
        stand
            .prove()
            .with_context(|| format!("{} does not do what is measured", system.name))?;
        Ok(Ok(stand))
    }

    pub(super) fn opener(&self) -> Result<Opener<'lab>> {
        let address = match self.running {
            Running::Nothing => edge_address(),
            _ => (VIP_1.v4, SIP_TLS).into(),
        };
        let opener = Opener::new(&self.lab.partner, address, PASSED)?;
        Ok(opener.from_each_of(self.terms.partners().map(IpAddr::from).collect()))
    }

    /// What its processes have used of the processors so far; the datapath's work is not theirs.
    pub(super) fn used(&self) -> Result<Duration> {
        match &self.running {
            Running::Nothing => Ok(Duration::ZERO),
            Running::Snigate(gateway) => cpu::used(gateway.pid()?),
            Running::Proxy(proxy) => cpu::used(proxy.process.pid()),
        }
    }

    /// How many connections the agent has had so far; none where there is no agent.
    pub(super) fn agents(&self) -> Result<u64> {
        let Running::Snigate(gateway) = &self.running else {
            return Ok(0);
        };
        let status = gateway.agent()?;
        let counters = status.get("counters").and_then(Value::as_object);
        let counters = counters.with_context(|| status.to_string())?;
        // Nothing is listed before it has happened.
        let count = counters.get("accepted").map_or(Some(0), Value::as_u64);
        count.with_context(|| status.to_string())
    }

    /// The sockets that the gateway has now for its connections.
    pub(super) fn sockets(&self) -> Result<u64> {
        Ok(self.lab.gateway.tcp_sockets()?.saturating_sub(self.sockets))
    }

    /// Waits until the gateway has as many sockets as so many connections should have.
    pub(super) fn settle(&self, connections: usize, within: Duration) -> Result<()> {
        let expected = self.system.sockets() * connections as u64;
        let mut last = 0;
        let settled = Deadline::after(within).poll("the gateway's sockets", || {
            last = self.sockets()?;
            Ok((last == expected).then_some(()))
        });
        settled.with_context(|| {
            format!(
                "the gateway has {last} sockets for {connections} connections, and not {expected}"
            )
        })
    }

    /// Waits until no end of a connection is left anywhere.
    pub(super) fn drain(&self, within: Duration) -> Result<()> {
        self.settle(0, within)?;
        drained(self.lab, within)
    }

    /// One connection: its bytes come back, the gateway has the sockets that it should have, none for what is bound or handed off, and it is in
    /// the datapath the way it should be.
    ///
    /// The first connection has no part in that: while the Edge's hardware address is unknown, the agent takes what the datapath can't bind.
    fn prove(&self) -> Result<()> {
        let opener = self.opener()?;
        drop(opener.echoing(1)?);
        self.drain(OPENING)?;
        let mut streams = opener.echoing(1)?;
        self.settle(streams.len(), OPENING)?;
        for stream in &mut streams {
            stream.ping()?;
            self.ensure_way(stream.local()?)?;
        }
        drop(streams);
        self.drain(OPENING)
    }

    /// That this client's connection is in the datapath as it should be.
    fn ensure_way(&self, client: SocketAddr) -> Result<()> {
        let (Running::Snigate(gateway), Some(by)) = (&self.running, self.system.by()) else {
            return Ok(());
        };
        let flows = gateway.json(&["flow", "ls", "--client", &client.to_string()])?;
        let ways = flows.as_array().context("flows")?.iter();
        let ways: Vec<_> = ways.map(|flow| flow["way"].as_str()).collect();
        let way = by.way();
        ensure!(ways == [Some(way)], "not {way}: {flows}");
        Ok(())
    }
}

fn snigate<'lab>(
    lab: &'lab Lab,
    system: System,
    terms: Terms,
    other: Option<&Path>,
) -> Result<Gateway<'lab>> {
    let Through::Snigate { hook, by, .. } = system.through else {
        anyhow::bail!("{} is not snigate", system.name);
    };
    let Terms { size, source, .. } = terms;
    ensure!(
        size.connections <= 1_000_000,
        "more connections than snigate takes"
    );
    let tuning = Tuning {
        binary: other.filter(|_| system.is_other()).map(Path::to_owned),
        quiet: true,
        workers: Some(size.workers),
        hook: Some(hook),
    };
    let gateway = format!("max_connections = {}", size.connections);
    let edge = format!("source = \"{}\"", source.key());
    let tables = config::tables(&edge, by.keys(), "");
    Gateway::start_tuned(lab, tuning, &gateway, &tables)
}

/// The line of what snigate has said that tells why it has ended, the last one, because errors that quote it come before; all of it, if there is
/// none such.
fn complaint(said: &str) -> String {
    let mut lines = said.lines().map(str::trim);
    let line = lines.rfind(|line| line.starts_with("error:") || line.starts_with("snigate:"));
    line.unwrap_or(said).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_found_among_other_lines() {
        let of_the_file = "it did not get ready\n--- stderr ---\nerror: no such key\n  --> 21:1\n";
        assert_eq!(complaint(of_the_file), "error: no such key");
        let of_the_kernel = "(snigate: no such hook); it said:\nsnigate: no such hook\n";
        assert_eq!(complaint(of_the_kernel), "snigate: no such hook");
        assert_eq!(complaint("silence"), "silence");
    }
}
