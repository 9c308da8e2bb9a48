//! Public addresses and Edges, and which certificate is where.

use std::net::{IpAddr, SocketAddr};

use super::{Certificate, Mode, Plan};
use crate::config::{HostName, Name, SourceMode};

/// What there is for certificates to be shown at.
#[derive(Clone, Debug)]
pub struct Site {
    /// Public addresses, those of one IP set together: of both families, of several gateways.
    pub addresses: Vec<Vec<IpAddr>>,
    /// Edges, those that show the same certificate together.
    pub edges: Vec<EdgeGroup>,
    /// Whose address Edges see.
    pub source: SourceMode,
    /// How the Edges are verified where TLS ends at the gateway: their name, and a file of roots, else those of the system.
    pub tls: Option<(HostName, Option<String>)>,
    /// Where packets come in.
    pub interfaces: Vec<String>,
}

/// Edges that may stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeGroup {
    /// Of their pool.
    pub name: Name,
    /// At least one.
    pub addresses: Vec<SocketAddr>,
}

/// The way to a certificate; each part is there as far as addresses and Edges suffice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way<'a> {
    /// Where partners connect to.
    pub addresses: Vec<IpAddr>,
    /// Whether the server name decides there, and not the address alone.
    pub by_name: bool,
    /// The Edges that show it, or to which TLS goes on.
    pub edges: Option<&'a EdgeGroup>,
}

impl Site {
    /// How partners get to a certificate.
    ///
    /// A shared certificate has the public address and the Edges of its slot. Where there are more certificates than addresses, those that have none
    /// share the last one, with the certificate whose own it was: the server name decides there.
    pub fn way(&self, plan: &Plan, certificate: &Certificate) -> Way<'_> {
        match plan.mode {
            Mode::PerCustomer => Way {
                addresses: self.addresses.concat(),
                by_name: true,
                edges: self.edges.first(),
            },
            Mode::San => {
                let last = self.addresses.len().checked_sub(1);
                let set = last.map(|last| certificate.slot.min(last));
                Way {
                    addresses: set
                        .map(|set| self.addresses[set].clone())
                        .unwrap_or_default(),
                    by_name: set.is_some() && set == self.inspected(plan),
                    edges: self.edges.get(certificate.slot),
                }
            }
        }
    }

    /// Which of the addresses several certificates share.
    fn inspected(&self, plan: &Plan) -> Option<usize> {
        let last = self.addresses.len().checked_sub(1)?;
        let beyond = plan.certificates.iter().any(|it| it.slot > last);
        beyond.then_some(last)
    }

    /// Where the provider's own name is: partners that know only it get to the first certificate.
    pub fn provider_addresses(&self, plan: &Plan) -> Vec<IpAddr> {
        match plan.certificates.first() {
            Some(first) => self.way(plan, first).addresses,
            None => self.addresses.concat(),
        }
    }

    /// What is missing for a configuration, in one sentence.
    pub fn lacks(&self, plan: &Plan) -> Option<String> {
        let edges = match plan.mode {
            Mode::San => plan.certificates.iter().map(|it| it.slot + 1).max(),
            Mode::PerCustomer => Some(1),
        };
        let edges = edges.unwrap_or(1);
        if self.addresses.is_empty() {
            return Some(
                "no public address is given: write --address, once for each IP set".into(),
            );
        }
        if self.edges.len() < edges {
            return Some(match plan.mode {
                Mode::San => format!(
                    "{edges} certificates need as many Edges or addresses of Edges, and {} given: write --edge for further ones, \
                     or let customers have their own certificates (--per-customer), or write `explicit` to those whose partners can enter a name by hand",
                    match self.edges.len() {
                        1 => "1 is".to_owned(),
                        some => format!("{some} are"),
                    }
                ),
                Mode::PerCustomer => "no Edge is given: write --edge".into(),
            });
        }
        if plan.mode == Mode::PerCustomer && self.tls.is_none() {
            return Some("TLS ends at the gateway, and nothing says which name the Edges' own certificate has: write --edge-name".into());
        }
        None
    }

    /// Addresses that no certificate needs.
    pub fn spare(&self, plan: &Plan) -> usize {
        match plan.mode {
            Mode::San => (0..self.addresses.len())
                .filter(|set| {
                    !plan
                        .certificates
                        .iter()
                        .any(|it| it.slot.min(self.addresses.len() - 1) == *set)
                })
                .count(),
            Mode::PerCustomer => 0,
        }
    }
}
