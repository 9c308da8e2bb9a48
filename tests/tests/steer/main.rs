//! Steering end to end: real TLS from a partner, through XDP, to the Edge of the address's IP set.

mod agent;
mod connections;
mod hooks;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use snigate_tests::{
    Lab, Topology,
    addresses::{Host, SIP_TLS},
    gateway::Gateway,
    peers::Partner,
};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
pub(crate) const MEGABYTE: u64 = 1_000_000;
pub(crate) const NAME: &str = "sip.contoso.example";

pub(crate) fn tcp(lab: &Lab) -> Partner<'_> {
    Partner {
        namespace: &lab.partner,
        source: None,
        tls: None,
        timeout: TIMEOUT,
    }
}

pub(crate) fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, SIP_TLS)
}

pub(crate) fn vip(host: Host) -> [SocketAddr; 2] {
    host.both().map(at)
}

pub(crate) fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// A counter in `snigate status --json`.
pub(crate) fn count(gateway: &Gateway<'_>, name: &str) -> Result<u64> {
    let status = gateway.json(&["status", "--all"])?;
    status["counters"][name]
        .as_u64()
        .with_context(|| format!("no counter {name} in {status}"))
}

/// How many packets were dropped for a reason.
pub(crate) fn drops(gateway: &Gateway<'_>, reason: &str) -> Result<u64> {
    let status = gateway.json(&["status", "--all"])?;
    status["drops"]
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["reason"] == reason))
        .and_then(|row| row["packets"].as_u64())
        .with_context(|| format!("no reason {reason} in {status}"))
}

/// SYNs steered and flows opened.
pub(crate) fn count_of(gateway: &Gateway<'_>) -> Result<(u64, u64)> {
    Ok((count(gateway, "steered")?, count(gateway, "opened")?))
}
