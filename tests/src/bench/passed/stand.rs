//! One system under measurement, with its partner and its Edge.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::config::{self, PASSED, edge_address};
use super::system::{System, Through};
use crate::addresses::{SIP_TLS, VIP_1};
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

pub(super) fn topology(system: &System) -> Topology {
    Topology {
        offloads: system.offloads,
        capture: false,
        ..Topology::default()
    }
}

impl<'lab> Stand<'lab> {
    /// Starts it, and has it prove that it is what it is said to be. A snigate that refuses its configuration, or cannot use the hook, is left out.
    pub(super) fn start(
        lab: &'lab Lab,
        system: System,
        size: Size,
    ) -> Result<Result<Self, LeftOut>> {
        // Connections that have ended leave their ports in TIME_WAIT, for a minute each.
        for machine in [&lab.partner, &lab.gateway] {
            machine.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
            machine.sysctl("net/ipv4/ip_local_port_range", "10000 65000")?;
        }
        let edge = StreamEdge::start(&lab.edge_a, SIP_TLS)?;
        let running = match system.through {
            Through::Routing => Running::Nothing,
            Through::Snigate { .. } => match snigate(lab, system, size) {
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
                Running::Proxy(Proxy::start(lab, make, &lab.gateway, address, size, &way)?)
            }
        };
        let stand = Self {
            system,
            sockets: lab.gateway.tcp_sockets()?,
            lab,
            running,
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
        Opener::new(&self.lab.partner, address, PASSED)
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

    /// Waits until no end of a connection is left anywhere: an orphan whose network is gone would be in the kernel for minutes.
    pub(super) fn drain(&self, within: Duration) -> Result<()> {
        self.settle(0, within)?;
        for (machine, listeners) in [(&self.lab.partner, 0), (&self.lab.edge_a, 1)] {
            let what = format!("the last connections of {}", machine.name());
            Deadline::after(within).poll(&what, || {
                Ok((machine.tcp_sockets()? == listeners).then_some(()))
            })?;
        }
        Ok(())
    }

    /// One connection: its bytes come back, and the gateway has the sockets that it should have, none for what is handed off.
    fn prove(&self) -> Result<()> {
        let mut streams = self.opener()?.echoing(1)?;
        self.settle(streams.len(), OPENING)?;
        for stream in &mut streams {
            stream.ping()?;
        }
        drop(streams);
        self.drain(OPENING)
    }
}

fn snigate<'lab>(lab: &'lab Lab, system: System, size: Size) -> Result<Gateway<'lab>> {
    let Through::Snigate { hook, by } = system.through else {
        anyhow::bail!("{} is not snigate", system.name);
    };
    ensure!(
        size.connections <= 1_000_000,
        "more connections than snigate takes"
    );
    let tuning = Tuning {
        binary: None,
        quiet: true,
        workers: Some(size.workers),
        hook: Some(hook),
    };
    let gateway = format!("max_connections = {}", size.connections);
    let tables = config::tables("source = \"gateway\"", by.key(), "");
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
