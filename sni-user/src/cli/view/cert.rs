//! Certificates: what for, for which names, by whom, until when.

use std::{
    fmt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::UnixTime;
use serde::Serialize;

use crate::{
    acme::{Outcome, Renewal, Wanted},
    cli::table::{Column, Row},
    tls::{Facts, Kept, Purpose, date},
};

/// A line of `cert ls`.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct CertLine {
    #[serde(flatten)]
    kept: Kept,
    /// Whole days; negative ones since it has expired. `None` where it can't be read.
    days_left: Option<i64>,
    state: State,
    /// How it is renewed, where it comes by ACME.
    #[serde(skip_serializing_if = "Option::is_none")]
    renewal: Option<Renewal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Valid,
    ExpiresSoon,
    Expired,
    NotYetValid,
    /// It, or its key, can't be used.
    Broken,
    /// It comes by ACME, and has not come yet.
    Awaited,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::ExpiresSoon => "expires soon",
            Self::Expired => "EXPIRED",
            Self::NotYetValid => "not yet valid",
            Self::Broken => "broken",
            Self::Awaited => "no certificate yet",
        }
    }
}

/// In days; the same as the agent warns in.
const SOON: i64 = 30;

/// The lines, in the inventory's order.
pub(in crate::cli) fn lines(inventory: Vec<Kept>, now: UnixTime) -> Vec<CertLine> {
    inventory.into_iter().map(|kept| line(kept, now)).collect()
}

/// One of them.
pub(in crate::cli) fn line(kept: Kept, now: UnixTime) -> CertLine {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let left = kept.facts.as_ref().map(|facts| facts.not_after - now);
    let state = match (&kept.facts, left) {
        (Some(facts), Some(left)) if kept.problem.is_none() => match left {
            _ if facts.not_before > now => State::NotYetValid,
            ..0 => State::Expired,
            left if left < SOON * 86_400 => State::ExpiresSoon,
            _ => State::Valid,
        },
        _ => State::Broken,
    };
    CertLine {
        kept,
        days_left: left.map(|left| left.div_euclid(86_400)),
        state,
        renewal: None,
    }
}

impl CertLine {
    /// The file with it.
    pub(in crate::cli) fn file(&self) -> &Path {
        &self.kept.file
    }

    /// Adds how it is renewed.
    pub(in crate::cli) fn renewed(&mut self, renewal: Option<Renewal>) {
        self.renewal = renewal;
        if self.renewal.is_some() && !self.kept.file.exists() {
            self.state = State::Awaited;
            self.kept.problem = None;
        }
    }

    fn renewal_text(&self) -> String {
        let Some(renewal) = &self.renewal else {
            return "-".to_owned();
        };
        let when = match (renewal.not_before, renewal.due) {
            (Some(until), _) => format!("again in {}", until_text(until)),
            (None, Some(due)) if due > now() => date(i64::try_from(due).unwrap_or(i64::MAX)),
            (None, _) => "due".to_owned(),
        };
        let failed = renewal.failures;
        match &renewal.error {
            Some(error) => format!(
                "{} {when} (failed {failed} times: {error})",
                renewal.challenge
            ),
            None => format!("{} {when}", renewal.challenge),
        }
    }

    /// What there is to say about it alone.
    pub(in crate::cli) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("file", self.kept.file.display().to_string())];
        if let (Some(facts), Some(days)) = (&self.kept.facts, self.days_left) {
            let expires = format!("{} ({days} days)", date(facts.not_after));
            lines.extend([
                ("subject", facts.subject.clone()),
                ("expires", expires),
                ("key", facts.key.clone()),
                ("SHA-256", facts.fingerprint.clone()),
            ]);
        }
        lines.push(("state", self.text()));
        lines
    }

    fn text(&self) -> String {
        let problem = self.kept.problem.clone();
        problem.unwrap_or_else(|| self.state.text().to_owned())
    }

    /// Whether it, or its key, can't be used.
    pub(in crate::cli) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken | State::Awaited)
    }
}

impl Row for CertLine {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("FOR"),
        Column::wrapping("NAMES"),
        Column::wrapping("ISSUER").spare(3),
        Column::left("EXPIRES"),
        Column::right("DAYS"),
        Column::left("KEY").spare(1),
        Column::wrapping("FILE").spare(2),
        Column::wrapping("STATE"),
        Column::wrapping("RENEWAL").spare(1),
    ];

    fn cells(&self) -> Vec<String> {
        let Self {
            kept, days_left, ..
        } = self;
        let purpose = match kept.purpose {
            Purpose::Domain => kept.domains.join(" "),
            Purpose::Gateway => "the gateway".to_owned(),
            Purpose::MirrorCa => "mirrored partners".to_owned(),
        };
        let of = |cell: &dyn Fn(&Facts) -> String| {
            kept.facts.as_ref().map_or_else(|| "-".to_owned(), cell)
        };
        vec![
            purpose,
            of(&|facts| facts.names.join(" ")),
            of(&|facts| facts.issuer.clone()),
            of(&|facts| date(facts.not_after)),
            days_left.map_or_else(|| "-".to_owned(), |days| days.to_string()),
            of(&|facts| facts.key.clone()),
            kept.file.display().to_string(),
            self.text(),
            self.renewal_text(),
        ]
    }
}

/// What has come of asking for a certificate.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct Attempted {
    sip_domain: String,
    result: Answer,
    /// Until when a pause is kept, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    file: std::path::PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Issued,
    Renewed,
    NotDue,
    Paused,
    Busy,
    Failed,
}

impl Attempted {
    pub(in crate::cli) fn new(wanted: &Wanted, outcome: &Outcome) -> Self {
        let (result, until, error) = match outcome {
            Outcome::Issued { renewal: false } => (Answer::Issued, None, None),
            Outcome::Issued { renewal: true } => (Answer::Renewed, None, None),
            Outcome::NotDue => (Answer::NotDue, None, None),
            Outcome::Busy => (Answer::Busy, None, None),
            Outcome::Paused { until, error } => (Answer::Paused, Some(*until), error.clone()),
            Outcome::Failed { error, until } => {
                (Answer::Failed, Some(*until), Some(error.to_string()))
            }
        };
        Self {
            sip_domain: wanted.sip_domain.to_string(),
            result,
            until,
            error,
            file: wanted.file.clone(),
        }
    }

    /// Whether the certificate that was asked for is not there.
    pub(in crate::cli) fn has_failed(&self) -> bool {
        matches!(self.result, Answer::Failed | Answer::Paused | Answer::Busy)
    }
}

impl fmt::Display for Attempted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sip_domain, file, ..
        } = self;
        let file = file.display();
        let error = self.error.as_deref().unwrap_or("of an earlier failure");
        let until = self.until.map(until_text).unwrap_or_default();
        match self.result {
            Answer::Issued => write!(formatter, "{sip_domain}: issued, in {file}"),
            Answer::Renewed => write!(formatter, "{sip_domain}: renewed, in {file}"),
            Answer::NotDue => write!(
                formatter,
                "{sip_domain}: there is a certificate, and its time has not come (--force asks all the same)"
            ),
            Answer::Busy => write!(
                formatter,
                "{sip_domain}: the agent, or another gateway, is asking for it right now"
            ),
            Answer::Paused => write!(
                formatter,
                "{sip_domain}: not asked for another {until}, because: {error} (--force asks all the same)"
            ),
            Answer::Failed => write!(
                formatter,
                "{sip_domain}: {error}; the agent tries again in {until}"
            ),
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// How long from now.
fn until_text(second: u64) -> String {
    let left = std::time::Duration::from_secs(second.saturating_sub(now()));
    humantime::format_duration(left).to_string()
}
