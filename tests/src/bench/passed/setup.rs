//! What it takes to set a connection up: by the datapath alone, by the agent, by proxies, and by routing alone.

use anyhow::Result;

use super::rounds::{self, Bench, Measured, Options, Subject, subject};
use super::stand::{Source, Terms};
use super::work::Kind;
use crate::peers::Size;

/// A sample takes a port for each of its connections, and each port rests for a minute.
const PARTNERS: u8 = 8;

const SUBJECTS: [Subject; 3] = [
    subject(
        "parallel-1",
        "connections, one after the other",
        Kind::Setups { parallel: 1 },
    ),
    subject(
        "parallel-16",
        "connections, 16 at once",
        Kind::Setups { parallel: 16 },
    ),
    subject(
        "parallel-64",
        "connections, 64 at once",
        Kind::Setups { parallel: 64 },
    ),
];

/// Measures.
///
/// # Errors
/// Something does not start, or a single connection fails.
pub fn run(options: &Options, progress: impl FnMut(&str)) -> Result<Measured> {
    let bench = Bench {
        purpose: "bench-setup",
        subjects: &SUBJECTS,
        compares: |_| true,
        terms: Terms {
            size: Size::of(options.workers),
            source: Source::Preserve,
            partners: PARTNERS,
        },
    };
    rounds::run(&bench, options, progress)
}
