//! snigate beside HAProxy and nginx: the same partners, Edges, certificates and kernel, in one run.
//!
//! Each proxy stands in a lab of its own, so that all are up from the first to the last second and no measurement waits for a start. Rounds
//! go from one to the next, so that whatever else the machine does meets all of them alike.

mod config;
mod cpu;
pub mod document;
mod figures;
pub mod forward;
mod load;
mod machine;
pub mod passed;
pub mod profile;
pub mod reload;
mod report;
pub mod results;
mod stand;
pub mod whole;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use self::load::Sample;
pub use self::report::{as_json, print, tables};
use self::stand::Stand;
pub use self::stand::System;
use crate::Lab;
use crate::deadline::Deadline;
use crate::peers::TlsVersion;
use crate::topology::Topology;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its name for people.
    pub title: &'static str,
    way: Way,
    kind: Kind,
}

/// What a proxy does with the connections of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The ClientHello decides, the bytes go on as they came.
    Pass,
    /// Its TLS ends at the proxy, with this certificate, and the proxy speaks TLS to the Edge.
    Terminate(Certificate),
}

/// The key of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certificate {
    Rsa2048,
    P256,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Connections one after the other, by so many clients at once: a handshake, an echo, and the end.
    Connections {
        version: TlsVersion,
        clients: usize,
        /// Whether a client goes on from an earlier session.
        resumes: bool,
    },
    /// So many connections at once, as fast as they can, towards the Edge.
    Bulk { connections: usize },
    /// A kilobyte there and back, on one connection.
    Pings,
}

const fn subject(key: &'static str, title: &'static str, way: Way, kind: Kind) -> Subject {
    Subject {
        key,
        title,
        way,
        kind,
    }
}

const fn connections(version: TlsVersion, clients: usize) -> Kind {
    Kind::Connections {
        version,
        clients,
        resumes: false,
    }
}

const fn resumptions(version: TlsVersion, clients: usize) -> Kind {
    Kind::Connections {
        version,
        clients,
        resumes: true,
    }
}

const RSA: Way = Way::Terminate(Certificate::Rsa2048);
const ECDSA: Way = Way::Terminate(Certificate::P256);

/// Everything that is measured, in order.
pub const SUBJECTS: [Subject; 15] = [
    subject(
        "terminated-tls13-rsa-full",
        "terminated: full TLS 1.3 handshakes, RSA-2048, 8 clients",
        RSA,
        connections(TlsVersion::V13, 8),
    ),
    subject(
        "terminated-tls12-rsa-full",
        "terminated: full TLS 1.2 handshakes, RSA-2048, 8 clients",
        RSA,
        connections(TlsVersion::V12, 8),
    ),
    subject(
        "terminated-tls13-ecdsa-full",
        "terminated: full TLS 1.3 handshakes, ECDSA P-256, 8 clients",
        ECDSA,
        connections(TlsVersion::V13, 8),
    ),
    subject(
        "terminated-tls12-ecdsa-full",
        "terminated: full TLS 1.2 handshakes, ECDSA P-256, 8 clients",
        ECDSA,
        connections(TlsVersion::V12, 8),
    ),
    subject(
        "terminated-tls13-rsa-resumed",
        "terminated: resumed TLS 1.3 handshakes, RSA-2048, 8 clients",
        RSA,
        resumptions(TlsVersion::V13, 8),
    ),
    subject(
        "terminated-tls12-rsa-resumed",
        "terminated: resumed TLS 1.2 handshakes, RSA-2048, 8 clients",
        RSA,
        resumptions(TlsVersion::V12, 8),
    ),
    subject(
        "terminated-tls13-ecdsa-resumed",
        "terminated: resumed TLS 1.3 handshakes, ECDSA P-256, 8 clients",
        ECDSA,
        resumptions(TlsVersion::V13, 8),
    ),
    subject(
        "terminated-tls12-ecdsa-resumed",
        "terminated: resumed TLS 1.2 handshakes, ECDSA P-256, 8 clients",
        ECDSA,
        resumptions(TlsVersion::V12, 8),
    ),
    subject(
        "passed-connections",
        "passed through: connections, 8 clients",
        Way::Pass,
        connections(TlsVersion::V13, 8),
    ),
    subject(
        "passed-setup",
        "passed through: connections, 1 client",
        Way::Pass,
        connections(TlsVersion::V13, 1),
    ),
    subject(
        "passed-bulk-1",
        "passed through: bulk, 1 connection",
        Way::Pass,
        Kind::Bulk { connections: 1 },
    ),
    subject(
        "passed-bulk-8",
        "passed through: bulk, 8 connections",
        Way::Pass,
        Kind::Bulk { connections: 8 },
    ),
    subject(
        "terminated-bulk-1",
        "terminated: bulk, 1 connection",
        RSA,
        Kind::Bulk { connections: 1 },
    ),
    subject(
        "passed-ping",
        "passed through: a kilobyte there and back",
        Way::Pass,
        Kind::Pings,
    ),
    subject(
        "terminated-ping",
        "terminated: a kilobyte there and back",
        RSA,
        Kind::Pings,
    ),
];

/// The measurements of one system on one subject, a sample for each round.
#[derive(Debug)]
pub struct Row {
    /// The system.
    pub system: System,
    /// A sample for each round.
    pub samples: Vec<Sample>,
}

/// All systems on one subject; a system that does not do it is left out.
#[derive(Debug)]
pub struct Table {
    /// What was measured.
    pub subject: Subject,
    /// A row for each system.
    pub rows: Vec<Row>,
}

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often.
    pub rounds: u32,
    /// Threads or processes of each proxy.
    pub workers: usize,
    /// Only subjects whose key contains this.
    pub only: String,
    /// How long a sample of connections takes; bulk and pings take less.
    pub sample: Duration,
    /// Only systems of these names; all where there are none.
    pub systems: Vec<String>,
    /// Another build of snigate, to be measured beside the built one.
    pub beside: Option<PathBuf>,
}

/// Whether a system of this name is to be measured.
fn chosen(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|it| it == name)
}

/// The order in which so many systems are measured in a round: another one begins each time, and every other round goes the other way, so that none
/// always comes after the same one, whose leavings it would have to bear.
fn order(round: u32, systems: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..systems).collect();
    order.rotate_left(round as usize % systems.max(1));
    if round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// Waits until no end of a connection is left at partner and Edge, which listens: an orphan whose network is gone would be in the kernel for minutes, and
/// whose is not is in the next sample.
fn drained(lab: &Lab, within: Duration) -> Result<()> {
    for (machine, listeners) in [(&lab.partner, 0), (&lab.edge_a, 1)] {
        let what = format!("the last connections of {}", machine.name());
        Deadline::after(within).poll(&what, || {
            Ok((machine.tcp_sockets()? == listeners).then_some(()))
        })?;
    }
    Ok(())
}

/// Measures.
///
/// # Errors
/// Something does not start, or a single connection fails.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Vec<Table>> {
    let Options { rounds, only, .. } = options;
    let systems: Vec<_> = System::ALL
        .into_iter()
        .filter(|system| options.beside.is_some() || *system != System::SnigateBeside)
        .filter(|system| chosen(&options.systems, system.name()))
        .collect();
    let topology = Topology {
        capture: false,
        ..Topology::default()
    };
    let labs = systems
        .iter()
        .map(|_| Lab::new("bench-proxy", &topology))
        .collect::<Result<Vec<_>>>()?;
    let mut stands = Vec::new();
    for (system, lab) in systems.into_iter().zip(&labs) {
        progress(&format!("starting {}", system.name()));
        let stand = Stand::start(lab, system, options)
            .with_context(|| format!("the stand of {}", system.name()))?;
        stand
            .prove()
            .with_context(|| format!("{} does not do what is measured", system.name()))?;
        stands.push(stand);
    }
    let mut tables: Vec<_> = SUBJECTS
        .into_iter()
        .filter(|subject| subject.key.contains(only.as_str()))
        .map(|subject| Table {
            subject,
            rows: (stands.iter().map(Stand::system))
                .filter(|system| system.does(&subject))
                .map(|system| Row {
                    system,
                    samples: Vec::new(),
                })
                .collect(),
        })
        .collect();
    for round in 1..=*rounds {
        for Table { subject, rows } in &mut tables {
            for number in order(round, rows.len()) {
                let row = &mut rows[number];
                let (title, name) = (subject.title, row.system.name());
                progress(&format!("round {round} of {rounds}: {title}: {name}"));
                let stand = stands.iter().find(|stand| stand.system() == row.system);
                let stand = stand.context("a row without a stand")?;
                let sample = stand.measure(subject, options.sample);
                row.samples
                    .push(sample.with_context(|| format!("{title}: {name}"))?);
            }
        }
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_once_in_a_round_and_another_one_begins() {
        assert_eq!(order(1, 4), [1, 2, 3, 0]);
        assert_eq!(order(2, 4), [1, 0, 3, 2]);
        assert_eq!(order(3, 4), [3, 0, 1, 2]);
        assert_eq!(order(4, 4), [3, 2, 1, 0]);
        assert!(order(7, 0).is_empty());
    }
}
