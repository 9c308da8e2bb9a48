//! What is wrong, or probably not meant, with the files that a configuration names.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

use crate::config::{HostName, Name, Severity};

/// What a file is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concern {
    /// A `[[domain]]`, by its SIP domain.
    Domain(HostName),
    /// An `[[edge]]`.
    Edge(Name),
    /// The gateway's own client certificate.
    Gateway,
    /// The private CA behind mirrored certificates.
    MirrorCa,
}

impl fmt::Display for Concern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => write!(formatter, "domain {domain}"),
            Self::Edge(edge) => write!(formatter, "Edge {edge}"),
            Self::Gateway => formatter.write_str("the gateway's certificate"),
            Self::MirrorCa => formatter.write_str("the mirror CA"),
        }
    }
}

impl Serialize for Concern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One finding about a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Errors make the configuration unusable.
    pub severity: Severity,
    /// The first that the file is there for; a file that many domains share is reported once.
    pub concern: Concern,
    /// The file.
    pub file: PathBuf,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Finding {
    /// Whether the configuration can't be used with it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    /// One line: the file first, as compilers write it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Self {
            concern,
            file,
            message,
            help,
            ..
        } = self;
        write!(
            formatter,
            "{}: {severity}: {concern}: {message}; {help}",
            file.display()
        )
    }
}

/// A finding before it is known what the file is there for.
#[derive(Clone, Debug)]
pub(super) struct Note {
    severity: Severity,
    file: PathBuf,
    message: String,
    help: String,
}

impl Note {
    pub(super) fn error(file: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            message: message.into(),
            help: help.into(),
        }
    }

    pub(super) fn warning(
        file: &Path,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(file, message, help)
        }
    }

    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// What is wrong with which file.
    pub(super) fn sentence(&self) -> String {
        format!("{}: {}", self.file.display(), self.message)
    }

    pub(super) fn concerning(self, concern: &Concern) -> Finding {
        Finding {
            severity: self.severity,
            concern: concern.clone(),
            file: self.file,
            message: self.message,
            help: self.help,
        }
    }
}
