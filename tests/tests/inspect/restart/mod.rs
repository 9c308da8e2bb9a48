//! Connections that arrive while no agent runs wait for the next one.

mod holder;
mod service;
mod storm;

use std::{net::SocketAddr, panic::resume_unwind, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab,
    addresses::EDGE_A,
    deadline::Deadline,
    peers::{Partner, PartnerTls},
};

use crate::{
    TIMEOUT, both,
    federation::{Federation, INSPECT, OTHER, domain, ip_set},
    tcp,
};

/// The name that is asked for; an Edge has its certificate.
const NAME: &str = "sip.contoso.example";

/// One inspected IP set, and domains for both ways through the agent.
fn tables(federation: &Federation<'_>) -> Result<String> {
    Ok(federation.pools()?
        + &ip_set("shared", OTHER, INSPECT)
        + &domain("contoso.example", "edges-a")
        + &federation.terminated("tailspin.example", "edges-a")?)
}

/// Both ways through the agent, in both address families.
fn ways() -> Vec<(&'static str, SocketAddr, SocketAddr)> {
    let names = [NAME, "sip.tailspin.example"];
    let pairs = both(OTHER).into_iter().zip(both(EDGE_A));
    pairs
        .flat_map(|(address, edge)| names.map(|name| (name, address, edge)))
        .collect()
}

/// Connects every way, and then does what brings an agent back: each connection must wait until then, and be served, TLS and all.
fn wait_through(
    lab: &Lab,
    federation: &Federation<'_>,
    back: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut tls = Vec::new();
    for (name, address, _) in ways() {
        tls.push((federation.tls(name)?, address));
    }
    thread::scope(|scope| {
        let connect = |(tls, address): &(PartnerTls, SocketAddr)| {
            let (tls, address) = (tls.clone(), *address);
            scope.spawn(move || -> Result<()> {
                let partner = Partner {
                    tls: Some(&tls),
                    ..tcp(lab)
                };
                let mut connection = partner.echo(address)?;
                connection.ping()?;
                connection.close().map(drop)
            })
        };
        let waiting: Vec<_> = tls.iter().map(connect).collect();
        // Time enough to be refused.
        thread::sleep(Duration::from_millis(300));
        let all_wait = waiting.iter().all(|thread| !thread.is_finished());
        let outcome = back();
        for thread in waiting {
            let served = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            served.context("a connection that waited")?;
        }
        ensure!(all_wait, "a connection did not wait");
        outcome
    })
}

/// Polls for a condition.
fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    Deadline::after(TIMEOUT).poll(what, || Ok(holds()?.then_some(())))
}
