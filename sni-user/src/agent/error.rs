//! Why the agent can't run, or had to stop, or keeps the configuration that it has.

use std::{fmt, io};

use crate::{
    config::Diagnostics,
    control::ControlError,
    datapath::DatapathError,
    net::{NetError, host::HostError},
    tls,
};

/// Why the agent can't run, had to stop, or refuses a configuration.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is wrong.
    #[error(transparent)]
    Configuration(#[from] Diagnostics),
    /// Files that it names are wrong.
    #[error(transparent)]
    Files(#[from] FileFindings),
    /// The datapath.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The host's network.
    #[error(transparent)]
    Network(#[from] NetError),
    /// The host itself.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Somebody else is at it.
    #[error(
        "another agent runs in this network namespace, or somebody holds its name (the abstract socket @snigate-agent, see `ss -xlp`): stop it first"
    )]
    AlreadyRunning,
    /// A change that a running agent can't make.
    #[error(
        "`gateway.{key}` can't change from {from} to {to} while the agent runs: restart it, or take the change back"
    )]
    Unchangeable {
        /// The key.
        key: &'static str,
        /// What it is.
        from: String,
        /// What it was to become.
        to: String,
    },
    /// A part of the agent has ended.
    #[error("a part of the agent has ended unexpectedly ({why}): restart it, and report this")]
    Task {
        /// What is known.
        why: String,
    },
    /// A refusal of the operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// What is wrong with files that a configuration names, a line each; warnings are among them.
#[derive(Debug)]
pub struct FileFindings(pub Vec<tls::Finding>);

impl std::error::Error for FileFindings {}

impl fmt::Display for FileFindings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(formatter, "{newline}{finding}")?;
        }
        Ok(())
    }
}

impl AgentError {
    pub(super) fn io(what: &'static str, source: io::Error) -> Self {
        Self::Io { what, source }
    }
}
