//! A plan as people and programs read it.

use std::{fs, path::Path, time::Instant};

use serde::Serialize;

use super::{
    super::{
        table::{Column, Row},
        units,
    },
    files::Outcome,
};
use crate::{
    config::Name,
    plan::{Certificate, Federation, Issue, Placement, Reason, Writing},
};

/// A plan, and what became of it.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) domains: usize,
    /// Of these, how many need no name.
    pub(super) explicit: usize,
    pub(super) provider: usize,
    pub(super) certificates: Vec<CertificateLine<'a>>,
    /// No plan for the list has fewer certificates than this.
    pub(super) lower_bound: usize,
    /// How many certificates there are above the bound.
    pub(super) gap: usize,
    /// Certificates that have to be issued.
    pub(super) to_issue: Vec<&'a Name>,
    /// Those of them that were there before.
    pub(super) reissued: Vec<&'a Name>,
    /// Former certificates that nothing is left of.
    pub(super) dropped: &'a [Name],
    /// Public addresses that no certificate needs.
    pub(super) spare_addresses: usize,
    /// Why there is no configuration.
    pub(super) lacks: Option<&'a str>,
    pub(super) written: Vec<&'a Path>,
    pub(super) statistics: Statistics,
    #[serde(skip)]
    pub(super) stable: bool,
    #[serde(skip)]
    writing: &'a Writing<'a>,
}

/// What the planning took.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Statistics {
    pub(super) seconds: f64,
    /// Of the whole process, as far as the system says.
    pub(super) peak_memory_bytes: Option<u64>,
}

impl Statistics {
    pub(super) fn since(started: Instant) -> Self {
        Self {
            seconds: started.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory(),
        }
    }
}

/// The most memory that this process has had, from proc_pid_status(5).
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[derive(Serialize)]
pub(super) struct CertificateLine<'a> {
    #[serde(flatten)]
    pub(super) certificate: &'a Certificate,
    names: Vec<String>,
    addresses: Vec<String>,
    /// Whether the server name decides at these addresses.
    by_name: bool,
    edges: Option<&'a Name>,
}

impl Row for CertificateLine<'_> {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("CERTIFICATE"),
        Column::right("NAMES"),
        Column::right("SAN BYTES"),
        Column::wrapping("ADDRESSES").spare(2),
        Column::wrapping("EDGES").spare(1),
        Column::left("ISSUE"),
    ];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
        let it = self.certificate;
        vec![
            it.name.to_string(),
            self.names.len().to_string(),
            it.san_bytes.to_string(),
            or_dash(self.addresses.join(" ")),
            self.edges.map_or_else(|| "-".into(), ToString::to_string),
            match it.issue {
                Issue::New => "new".into(),
                Issue::Again => format!("again: {}", units::counted(it.gains, "new name")),
                Issue::Trim => format!("may drop {}", units::counted(it.loses, "name")),
                Issue::No => "-".into(),
            },
        ]
    }
}

/// The report, with sentences on each domain that was asked for.
#[derive(Serialize)]
pub(super) struct Explained<'a> {
    #[serde(flatten)]
    report: &'a Report<'a>,
    placements: Vec<Explanation<'a>>,
}

#[derive(Serialize)]
struct Explanation<'a> {
    domain: &'a str,
    customer: &'a str,
    federation: Federation,
    certificate: Option<&'a Name>,
    reason: Reason,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sentences: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        writing: &'a Writing<'a>,
        stable: bool,
        outcome: &'a Outcome,
        statistics: Statistics,
    ) -> Self {
        let plan = writing.plan;
        let count = |federation| {
            let placements = plan.placements.iter();
            placements.filter(|it| it.federation == federation).count()
        };
        let named = |wanted: &dyn Fn(Issue) -> bool| {
            let wanted = plan.certificates.iter().filter(|it| wanted(it.issue));
            wanted.map(|it| &it.name).collect()
        };
        Self {
            domains: plan.placements.len(),
            explicit: count(Federation::Explicit),
            provider: count(Federation::Provider),
            certificates: plan
                .certificates
                .iter()
                .map(|it| Self::line(writing, it))
                .collect(),
            lower_bound: plan.lower_bound,
            gap: plan.certificates.len() - plan.lower_bound,
            to_issue: named(&Issue::is_needed),
            reissued: named(&|issue| issue == Issue::Again),
            dropped: &plan.dropped,
            spare_addresses: writing.site.spare(plan),
            lacks: outcome.lacks.as_deref(),
            written: outcome.written.iter().map(AsRef::as_ref).collect(),
            statistics,
            stable,
            writing,
        }
    }

    fn line(writing: &'a Writing<'a>, certificate: &'a Certificate) -> CertificateLine<'a> {
        let way = writing.site.way(writing.plan, certificate);
        CertificateLine {
            certificate,
            names: certificate.names().map(|name| name.to_string()).collect(),
            addresses: way.addresses.iter().map(ToString::to_string).collect(),
            by_name: way.by_name,
            edges: way.edges.map(|edges| &edges.name),
        }
    }

    /// All domains, with sentences on those of `explained`.
    pub(super) fn with_explanations(&'a self, explained: &[&Placement]) -> Explained<'a> {
        let plan = self.writing.plan;
        let mut asked = explained.iter().peekable();
        let explanation = |placement: &'a Placement| {
            // Both are in alphabetical order.
            let is_asked = asked
                .next_if(|next| next.domain == placement.domain)
                .is_some();
            Explanation {
                domain: placement.domain.as_str(),
                customer: &placement.customer,
                federation: placement.federation,
                certificate: placement.certificate.map(|it| &plan.certificates[it].name),
                reason: placement.reason,
                sentences: match is_asked {
                    true => self.writing.explain(placement),
                    false => Vec::new(),
                },
            }
        };
        Explained {
            report: self,
            placements: plan.placements.iter().map(explanation).collect(),
        }
    }
}
