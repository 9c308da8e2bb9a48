//! Steering end to end: real TLS from a partner, through XDP, to the Edge of the address's IP set.

mod agent;
mod connections;
mod hooks;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab, Namespace, Topology,
    addresses::{EDGE_A, Host, SIP_TLS, VIP_1},
    gateway::{Gateway, Tuning},
    peers::{Edge, EdgeTls, End, Partner, PartnerTls, TlsVersion},
    pki::Pki,
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

pub(crate) fn vip(host: Host) -> [SocketAddr; 2] {
    host.sip()
}

pub(crate) fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// A gateway whose datapath is attached at this hook.
pub(crate) fn start<'lab>(
    lab: &'lab Lab,
    hook: &'static str,
    tables: &str,
) -> Result<Gateway<'lab>> {
    let tuning = Tuning {
        hook: Some(hook),
        ..Tuning::default()
    };
    Gateway::start_tuned(lab, tuning, "", tables)
}

/// So many bytes both ways, over both families, and an orderly end.
pub(crate) fn arrives(lab: &Lab, edge: &Edge, bytes: u64) -> Result<()> {
    for address in vip(VIP_1) {
        tcp(lab).exchange(address, bytes, bytes)?;
        let report = edge.report(TIMEOUT)?;
        ensure!(
            (report.received, &report.end) == (bytes, &End::Clean),
            "{report:?}"
        );
    }
    Ok(())
}

/// So many bytes both ways through TLS, over both families, in each of the versions; neither end has seen a wrong checksum or an old timestamp.
pub(crate) fn arrives_unchanged(lab: &Lab, bytes: u64, versions: &[TlsVersion]) -> Result<()> {
    let pki = Pki::new("federation", &lab.dir())?;
    let edge_tls = EdgeTls::new(&pki.server("edge-a", &[NAME])?, &pki)?;
    let identity = pki.server("partner", &["sip.partner.example"])?;
    let edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&edge_tls))?;
    let ends = [&lab.partner, &lab.edge_a];
    let before = ends.map(Namespace::tcp_counters);
    for address in vip(VIP_1) {
        for version in versions {
            let tls = PartnerTls::new(NAME, &identity, &pki, Some(*version))?;
            let partner = Partner {
                tls: Some(&tls),
                ..tcp(lab)
            };
            let done = partner.exchange(address, bytes, bytes)?;
            ensure!(done.version == Some(*version), "{done:?}");
            let report = edge.report(TIMEOUT)?;
            ensure!(
                (report.received, &report.end) == (bytes, &End::Clean),
                "{report:?}"
            );
        }
    }
    for (end, before) in ends.into_iter().zip(before) {
        let added = end.tcp_counters()?.since(&before?);
        ensure!(
            added.checksum_errors() == 0 && added.paws_rejected() == 0,
            "{added:?}"
        );
    }
    Ok(())
}

/// Ends: each side's, in each order, over both families.
pub(crate) fn ends(lab: &Lab, edge: &Edge) -> Result<()> {
    let partner = tcp(lab);
    for address in vip(VIP_1) {
        partner.half_close(address, MEGABYTE, MEGABYTE)?;
        let report = edge.report(TIMEOUT)?;
        ensure!(
            (report.received, &report.end) == (MEGABYTE, &End::Clean),
            "{report:?}"
        );
        partner.half_closed(address, MEGABYTE, MEGABYTE)?;
        ensure!(edge.report(TIMEOUT)?.end == End::Clean);
        partner.be_reset(address)?;
        edge.report(TIMEOUT)?;
        partner.reset(address)?;
        ensure!(edge.report(TIMEOUT)?.end == End::Reset);
    }
    Ok(())
}

/// The Edge's link takes packets of 1400 bytes at most, as the gateway's routes have it. The kernel's lookup heeds a locked MTU only.
pub(crate) fn narrow_routes(lab: &Lab) -> Result<()> {
    lab.gateway.ip(&format!(
        "route add {}/32 dev lan0 mtu lock 1400\nroute add {}/128 dev lan0 mtu lock 1400\n",
        EDGE_A.v4, EDGE_A.v6
    ))
}

/// All arrives, because the partner finds out what the way takes.
pub(crate) fn finds_the_mtu(lab: &Lab) -> Result<()> {
    for address in vip(VIP_1) {
        tcp(lab).exchange(address, MEGABYTE, MEGABYTE)?;
        let route = lab
            .partner
            .output("ip", &["route", "get", &address.ip().to_string()])?;
        ensure!(route.contains("mtu 1400"), "{route}");
    }
    Ok(())
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
