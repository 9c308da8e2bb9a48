//! What it takes to carry bytes between partner and Edge: by the datapath, by proxies, and by routing alone.

use anyhow::Result;

use super::rounds::{self, Bench, Measured, Options, Subject, subject};
use super::stand::Terms;
use super::work::Kind;
use crate::peers::Size;

const SUBJECTS: [Subject; 4] = [
    subject(
        "ping",
        "a kilobyte there and back, 1 connection",
        Kind::Pings,
    ),
    subject(
        "messages",
        "a kilobyte there and back, 32 connections at once",
        Kind::Messages { connections: 32 },
    ),
    subject(
        "bulk-1",
        "bulk, 1 connection",
        Kind::Bulk { connections: 1 },
    ),
    subject(
        "bulk-8",
        "bulk, 8 connections",
        Kind::Bulk { connections: 8 },
    ),
];

/// Measures.
///
/// # Errors
/// Something does not start, or a single connection fails.
pub fn run(options: &Options, progress: impl FnMut(&str)) -> Result<Measured> {
    let bench = Bench {
        purpose: "bench-relay",
        subjects: &SUBJECTS,
        // What carries a bound connection once it stands is the same program as after a hand-off.
        compares: |system| !system.binds(),
        terms: Terms::plain(Size::of(options.workers)),
    };
    rounds::run(&bench, options, progress)
}
