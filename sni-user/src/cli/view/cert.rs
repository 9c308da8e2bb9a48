//! Certificates: what for, for which names, by whom, until when.

use rustls::pki_types::UnixTime;
use serde::Serialize;

use crate::{
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
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::ExpiresSoon => "expires soon",
            Self::Expired => "EXPIRED",
            Self::NotYetValid => "not yet valid",
            Self::Broken => "broken",
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
    }
}

impl CertLine {
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
        self.state == State::Broken
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
        ]
    }
}
