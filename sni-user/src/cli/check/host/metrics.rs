//! The metrics endpoint.

use std::{
    io::{self, ErrorKind},
    net::TcpListener,
};

use super::{Findings, Outcome};
use crate::{config::Gateway, instance};

impl Findings {
    /// Whether the agent can serve its metrics, and have the datapath measured.
    pub(super) fn metrics(&mut self, gateway: &Gateway) {
        const CHECK: &str = "metrics";
        let address = gateway.metrics;
        match TcpListener::bind(address) {
            Ok(_) => self.add(CHECK, Outcome::Ok, format!("{address} is free")),
            Err(error) => {
                let agent = instance::is_claimed().unwrap_or(false);
                let (outcome, what) = taken(&error, agent);
                self.add(CHECK, outcome, format!("{address} {what}"));
            }
        }
        if gateway.datapath_time {
            self.add(
                CHECK,
                Outcome::Warning,
                "`datapath_time` has the kernel measure every run of every BPF program of the host, some 100 ns each: leave it on for as long as you look",
            );
        }
    }
}

/// What keeps the agent from listening there.
fn taken(error: &io::Error, agent: bool) -> (Outcome, String) {
    match error.kind() {
        ErrorKind::AddrInUse if agent => (Outcome::Ok, "is taken while an agent runs".to_owned()),
        ErrorKind::AddrInUse => (
            Outcome::Warning,
            "is taken by another program (`ss -ltnp` says which): set `gateway.metrics` to another port".to_owned(),
        ),
        ErrorKind::AddrNotAvailable => (
            Outcome::Warning,
            "is no address of this host: the agent tries it again and again; set `gateway.metrics` to one that is".to_owned(),
        ),
        _ => (Outcome::Warning, format!("can't be listened on: {error}")),
    }
}
