//! What was found, for people and for monitoring.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use super::{
    finding::{Finding, Kind, Severity},
    gauge::Counted,
    lookups::NoAnswer,
};
use crate::{config::HostName, tls::Facts};

/// What was found of all domains.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The DNS servers that were asked.
    pub resolver: String,
    /// In the order in which they were asked for.
    pub domains: Vec<Examined>,
    /// In numbers.
    pub summary: Summary,
    /// What it took.
    pub work: Work,
}

/// What was found of a domain.
#[derive(Debug, Serialize)]
pub struct Examined {
    /// The SIP domain.
    pub domain: HostName,
    /// The host that its SRV record names.
    pub target: Option<String>,
    /// The port there.
    pub port: Option<u16>,
    /// Of the target.
    pub addresses: Vec<IpAddr>,
    /// Versions of TLS that are offered at any of them.
    pub tls: Vec<&'static str>,
    /// The certificate that is shown.
    pub certificate: Option<Shown>,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// What is kept of a certificate: not its names, of which a hoster's has hundreds, for each of them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The common name, or the whole subject where it has none.
    pub subject: String,
    /// Likewise.
    pub issuer: String,
    /// How many DNS names are in it.
    pub names: usize,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Such as `RSA 2048`.
    pub key: String,
    /// SHA-256 of the whole, in hexadecimal with colons.
    pub fingerprint: String,
}

impl From<Facts> for Shown {
    fn from(facts: Facts) -> Self {
        Self {
            subject: facts.subject,
            issuer: facts.issuer,
            names: facts.names.len(),
            not_after: facts.not_after,
            key: facts.key,
            fingerprint: facts.fingerprint,
        }
    }
}

/// Numbers of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Domains.
    pub domains: usize,
    /// Those without errors and warnings.
    pub good: usize,
    /// Findings by severity.
    pub errors: usize,
    /// Likewise.
    pub warnings: usize,
    /// Likewise.
    pub notes: usize,
    /// Domains by the names of findings.
    pub findings: BTreeMap<&'static str, usize>,
}

/// What a check took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Domains.
    pub domains: Counted,
    /// Questions to DNS servers.
    pub queries: Counted,
    /// Connections to targets.
    pub connections: Counted,
    /// Revocation lists.
    pub revocation_lists: Counted,
}

impl Examined {
    pub(super) fn new(domain: HostName) -> Self {
        Self {
            domain,
            target: None,
            port: None,
            addresses: Vec::new(),
            tls: Vec::new(),
            certificate: None,
            findings: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, kind: Kind, message: impl Into<String>) {
        let target = self.target.as_deref();
        self.findings
            .push(Finding::new(kind, message, &self.domain, target));
    }

    pub(super) fn extend(&mut self, said: impl IntoIterator<Item = (Kind, String)>) {
        for (kind, message) in said {
            self.add(kind, message);
        }
    }

    pub(super) fn offers(&mut self, versions: &[&'static str]) {
        self.tls.extend(versions);
        self.tls.sort_unstable();
        self.tls.dedup();
    }

    pub(super) fn unanswered(&mut self, name: &str, kind: &str, reason: &NoAnswer, asked: &str) {
        match reason {
            NoAnswer::Nothing => {}
            NoAnswer::Silent(reason) => {
                self.add(
                    Kind::DnsSilent,
                    format!("{asked} does not say what {kind} records {name} has: {reason}"),
                );
            }
            NoAnswer::Failed(reason) => {
                self.add(
                    Kind::DnsFailed,
                    format!("{asked} can't say what {kind} records {name} has: {reason}"),
                );
            }
        }
    }

    /// The worst first, each once, and without those of kinds that nobody wants to hear of.
    pub(super) fn settle(&mut self, ignored: &[Kind]) {
        self.findings
            .retain(|finding| !ignored.contains(&finding.kind));
        self.findings.sort();
        self.findings.dedup();
    }

    /// Whether anything of this severity, or worse, was found.
    pub fn has(&self, severity: Severity) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity <= severity)
    }
}

impl Summary {
    pub(super) fn of(domains: &[Examined]) -> Self {
        let mut summary = Self {
            domains: domains.len(),
            ..Self::default()
        };
        for domain in domains {
            summary.good += usize::from(!domain.has(Severity::Warning));
            let mut kinds: Vec<_> = domain.findings.iter().map(|it| it.kind).collect();
            kinds.dedup();
            for kind in kinds {
                *summary.findings.entry(kind.id()).or_default() += 1;
            }
            for finding in &domain.findings {
                *match finding.severity {
                    Severity::Error => &mut summary.errors,
                    Severity::Warning => &mut summary.warnings,
                    Severity::Note => &mut summary.notes,
                } += 1;
            }
        }
        summary
    }
}
