//! What is found on the way, and what it comes to.

use std::fmt;

use serde::Serialize;

/// A way through the tables.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Trace {
    pub(super) steps: Vec<Step>,
    pub(super) outcome: Outcome,
    /// The outcome, in a sentence.
    pub(super) because: String,
    pub(super) pool: Option<String>,
    pub(super) edge: Option<String>,
}

/// One question that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    /// The map that answered, or `configuration`.
    pub(super) map: &'static str,
    pub(super) says: String,
}

/// What becomes of a packet or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// It is not the gateway's.
    Untouched,
    /// It belongs to a flow, and is translated and forwarded.
    Forwarded,
    /// The address decides: a flow to an Edge is opened.
    Steered,
    /// The agent gets it, and the ClientHello decides.
    Inspected,
    /// It is passed through to an Edge.
    Passed,
    /// TLS ends at the gateway.
    Terminated,
    /// It gets no further.
    Refused,
    /// It depends on what was not said.
    Depends,
}

/// Collects steps.
#[derive(Default)]
pub(super) struct Steps {
    steps: Vec<Step>,
    pool: Option<String>,
    edge: Option<String>,
}

impl Steps {
    pub(super) fn add(&mut self, map: &'static str, says: impl Into<String>) {
        let says = says.into();
        self.steps.push(Step { map, says });
    }

    pub(super) fn pool(&mut self, name: &str) {
        self.pool = Some(name.to_owned());
    }

    pub(super) fn edge(&mut self, name: &str) {
        self.edge = Some(name.to_owned());
    }

    pub(super) fn end(self, outcome: Outcome, because: impl Into<String>) -> Trace {
        Trace {
            steps: self.steps,
            outcome,
            because: because.into(),
            pool: self.pool,
            edge: self.edge,
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in (1..).zip(&self.steps) {
            let Step { map, says } = step;
            writeln!(formatter, "{number:>2}  {map:<13}  {says}")?;
        }
        writeln!(formatter, "=>  {}", self.because)
    }
}
