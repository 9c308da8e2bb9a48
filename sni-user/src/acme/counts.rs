//! What is counted, for the metrics.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{Outcome, error::Kind};

/// What comes of attempts.
pub(crate) const RESULTS: [&str; 7] = [
    "issued",
    "renewed",
    "refused",
    "rate-limited",
    "unreachable",
    "pending",
    "local",
];

/// What the certificates that the configuration asks for are like.
pub(crate) const STATES: [&str; 3] = ["current", "missing", "failing"];

/// Of the agent's whole life.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    attempts: [AtomicU64; RESULTS.len()],
    states: [AtomicUsize; STATES.len()],
    answered: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    /// What has come of an attempt.
    pub(super) fn attempt(&self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Issued { renewal: false } => "issued",
            Outcome::Issued { renewal: true } => "renewed",
            Outcome::Failed { error, .. } => match error.kind() {
                Kind::Refused => "refused",
                Kind::RateLimited => "rate-limited",
                Kind::Unreachable => "unreachable",
                Kind::Pending => "pending",
                Kind::Local => "local",
            },
            Outcome::NotDue | Outcome::Paused { .. } | Outcome::Busy => return,
        };
        if let Some(place) = RESULTS.iter().position(|known| *known == result) {
            self.attempts[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many certificates are in which state now, in the order of [`STATES`].
    pub(super) fn states(&self, states: [usize; STATES.len()]) {
        for (counted, now) in self.states.iter().zip(states) {
            counted.store(now, Ordering::Relaxed);
        }
    }

    /// A request at port 80.
    pub(super) fn request(&self, answered: bool) {
        let count = if answered {
            &self.answered
        } else {
            &self.refused
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Attempts, in the order of [`RESULTS`].
    pub(crate) fn attempts(&self) -> [u64; RESULTS.len()] {
        std::array::from_fn(|place| self.attempts[place].load(Ordering::Relaxed))
    }

    /// Certificates, in the order of [`STATES`].
    pub(crate) fn certificates(&self) -> [usize; STATES.len()] {
        std::array::from_fn(|place| self.states[place].load(Ordering::Relaxed))
    }

    /// Requests at port 80: those for a token that is there, and the others.
    pub(crate) fn requests(&self) -> [(&'static str, u64); 2] {
        [("answered", &self.answered), ("refused", &self.refused)]
            .map(|(result, count)| (result, count.load(Ordering::Relaxed)))
    }
}
