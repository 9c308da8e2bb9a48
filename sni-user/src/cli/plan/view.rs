//! A plan as people and programs read it.

use std::{fs, path::Path, time::Instant};

use serde::Serialize;

use super::{
    super::{
        CliError, Environment,
        table::{Column, Row, show},
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
    domains: usize,
    /// Of these, how many need no name.
    explicit: usize,
    provider: usize,
    certificates: Vec<CertificateLine<'a>>,
    /// No plan for the list has fewer certificates than this.
    lower_bound: usize,
    /// How many certificates there are above the bound.
    gap: usize,
    /// Certificates that have to be issued.
    to_issue: Vec<&'a Name>,
    /// Those of them that were there before.
    reissued: Vec<&'a Name>,
    /// Former certificates that nothing is left of.
    dropped: &'a [Name],
    /// Public addresses that no certificate needs.
    spare_addresses: usize,
    /// Why there is no configuration.
    lacks: Option<&'a str>,
    written: Vec<&'a Path>,
    statistics: Statistics,
    #[serde(skip)]
    stable: bool,
    #[serde(skip)]
    writing: &'a Writing<'a>,
}

/// What the planning took.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Statistics {
    seconds: f64,
    /// Of the whole process, as far as the system says.
    peak_memory_bytes: Option<u64>,
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
struct CertificateLine<'a> {
    #[serde(flatten)]
    certificate: &'a Certificate,
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

    pub(super) fn summary(&self, environment: &mut Environment<'_>) -> Result<(), CliError> {
        let out = &mut *environment.out;
        let certificates = self.certificates.len();
        write!(
            out,
            "{} in {}",
            units::counted(self.domains, "domain"),
            units::counted(certificates, "certificate")
        )?;
        for (count, word) in [
            (self.explicit, "explicit"),
            (self.provider, "by the provider"),
        ] {
            if count > 0 {
                write!(out, ", {} {word}", units::count(count as u64))?;
            }
        }
        match self.gap {
            0 => writeln!(out, ". Fewer are impossible.")?,
            gap => writeln!(
                out,
                ". The lower bound is {}: {} above it ({}).",
                units::count(self.lower_bound as u64),
                units::count(gap as u64),
                units::share(gap as u64, self.lower_bound as u64)
            )?,
        }
        self.issues(environment)?;
        writeln!(environment.out)?;
        show(environment, false, &self.certificates_shown())?;
        writeln!(environment.out)?;
        let out = &mut *environment.out;
        if self.spare_addresses > 0 {
            writeln!(
                out,
                "{} not needed.",
                match self.spare_addresses {
                    1 => "1 --address is".to_owned(),
                    some => format!("{some} of --address are"),
                }
            )?;
        }
        if let Some(lacks) = self.lacks {
            writeln!(out, "There is no configuration yet: {lacks}.")?;
        }
        for path in self.written.iter().take(SHOWN) {
            writeln!(out, "wrote {}", path.display())?;
        }
        if let Some(more @ 1..) = self.written.len().checked_sub(SHOWN) {
            writeln!(out, "wrote {} more", units::counted(more, "file"))?;
        }
        let Statistics {
            seconds,
            peak_memory_bytes,
        } = self.statistics;
        let memory = peak_memory_bytes
            .map_or_else(String::new, |peak| format!(", with {}", units::bytes(peak)));
        writeln!(out, "Planned in {seconds:.2} s{memory}.")?;
        Ok(())
    }

    fn issues(&self, environment: &mut Environment<'_>) -> Result<(), CliError> {
        let out = &mut *environment.out;
        if !self.stable {
            return Ok(());
        }
        let new = self.to_issue.len() - self.reissued.len();
        if self.to_issue.is_empty() {
            writeln!(out, "No certificate has to be issued.")?;
        } else {
            let again = match self.reissued.len() {
                1 => "1 certificate has to be issued again".to_owned(),
                many => format!(
                    "{} have to be issued again",
                    units::counted(many, "certificate")
                ),
            };
            writeln!(
                out,
                "{again}{}; {} new{}.",
                names(&self.reissued),
                units::count(new as u64),
                {
                    let new: Vec<_> = self
                        .to_issue
                        .iter()
                        .copied()
                        .filter(|it| !self.reissued.contains(it))
                        .collect();
                    names(&new)
                }
            )?;
        }
        if !self.dropped.is_empty() {
            let dropped: Vec<_> = self.dropped.iter().collect();
            writeln!(
                out,
                "Nothing is left of {}{}.",
                units::counted(dropped.len(), "former certificate"),
                names(&dropped)
            )?;
        }
        Ok(())
    }

    /// Of many, those that somebody has to do something for.
    fn certificates_shown(&self) -> Vec<&CertificateLine<'a>> {
        let many = self.certificates.len() > MANY;
        let shown = self.certificates.iter();
        let shown = shown.filter(|it| !(many && self.stable) || it.certificate.issue != Issue::No);
        shown.collect()
    }
}

/// More files than a terminal has lines for.
const SHOWN: usize = 12;
/// With more certificates, those that stay as they are are not listed.
const MANY: usize = 40;

/// Such as ` (san-1, san-2)`.
fn names(names: &[&Name]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!(" ({}{more})", shown.join(", "))
}
