//! Why there is no certificate.

use std::{io, path::PathBuf};

use instant_acme::{Error, Problem};
use serde::{Deserialize, Serialize};

/// Why an attempt has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcmeError {
    /// The authority has said no.
    #[error("{what}: {}", said(.problem))]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        problem: Box<Problem>,
    },
    /// It could not prove a name.
    #[error("the authority could not prove the names: {0}")]
    NotProven(String),
    /// What it has given is not what was asked for.
    #[error("the authority's certificate can't be used: {0}")]
    Unfit(String),
    /// It has had enough for now.
    #[error("{what}: the authority has a limit on that: {}", said(.problem))]
    RateLimited {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        problem: Box<Problem>,
    },
    /// It can't be reached, or is out of order.
    #[error("{what}: {reason}")]
    Unreachable {
        /// What was asked for.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// It is not done yet.
    #[error("{what}: the authority is not done yet")]
    Pending {
        /// With what.
        what: &'static str,
    },
    /// It answers what RFC 8555 does not have.
    #[error("{what}: the authority's answer is not understood: {reason}")]
    Protocol {
        /// What was asked for.
        what: &'static str,
        /// What it is.
        reason: String,
    },
    /// What is to prove a name could not be published.
    #[error("{0}")]
    Hook(String),
    /// A file.
    #[error("{what} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Something of this host.
    #[error("{0}")]
    Local(String),
}

/// What kind of failure, for the count and for how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// It is about this domain: trying again soon would only use up the authority's limits.
    Refused,
    /// The authority has said when to come again.
    RateLimited,
    /// It is about the authority, and so about every domain.
    Unreachable,
    /// The authority needs more time.
    Pending,
    /// It is about this host.
    Local,
}

impl AcmeError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Refused { .. } | Self::NotProven(_) | Self::Unfit(_) => Kind::Refused,
            Self::RateLimited { .. } => Kind::RateLimited,
            Self::Unreachable { .. } | Self::Protocol { .. } => Kind::Unreachable,
            Self::Pending { .. } => Kind::Pending,
            Self::Hook(_) | Self::File { .. } | Self::Local(_) => Kind::Local,
        }
    }

    /// An error of the library, while `what` was done.
    pub(super) fn of(what: &'static str, error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(what, problem),
            Error::Timeout(_) => Self::Pending { what },
            Error::Json(error) => Self::Protocol {
                what,
                reason: error.to_string(),
            },
            other => Self::Unreachable {
                what,
                reason: with_causes(&other),
            },
        }
    }

    fn of_problem(what: &'static str, problem: Problem) -> Self {
        let kind = problem.r#type.as_deref().unwrap_or_default();
        let kind = kind.rsplit(':').next().unwrap_or_default();
        let status = problem.status.unwrap_or_default();
        if kind == "rateLimited" || status == 429 {
            return Self::RateLimited {
                what,
                problem: problem.into(),
            };
        }
        // A nonce that is refused again and again is no affair of the domain's.
        if matches!(kind, "serverInternal" | "badNonce") || (500..600).contains(&status) {
            let reason = said(&problem);
            return Self::Unreachable { what, reason };
        }
        Self::Refused {
            what,
            problem: problem.into(),
        }
    }

    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

/// What a problem document says (RFC 7807), in one line: others may write what they like into it.
pub(super) fn said(problem: &Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_default();
    for part in &problem.subproblems {
        text.push_str(&format!("; {part}"));
    }
    if let Some(kind) = &problem.r#type {
        text.push_str(&format!(" ({kind})"));
    }
    one_line(&text)
}

/// At most a few hundred characters, without control characters.
pub(super) fn one_line(text: &str) -> String {
    const LONGEST: usize = 600;
    let clean = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = clean.take(LONGEST).collect();
    if text.chars().count() > LONGEST {
        line.push('…');
    }
    line
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(&format!(": {words}"));
        }
        next = cause.source();
    }
    one_line(&text)
}
