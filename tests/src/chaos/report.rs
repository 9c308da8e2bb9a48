//! One line for each scenario.

use std::fmt::Write as _;

use super::{Outcome, Way};

/// What a line may take, where a terminal is no wider than most.
const WIDTH: usize = 110;

/// The table's head: for each way, how many connections have completed of those that were opened.
#[must_use]
pub fn head() -> String {
    let mut line = format!("{:24} {:>4}", "scenario", "s");
    for way in Way::ALL {
        let _ = write!(line, " {:>10}", way.name());
    }
    line + "  lost, and why"
}

/// A scenario's line.
#[must_use]
pub fn line(outcome: &Outcome) -> String {
    let mut line = format!("{:24} {:>4}", outcome.name, outcome.took.as_secs());
    for tally in &outcome.ways {
        let cell = format!("{}/{}", tally.completed, tally.opened);
        let _ = write!(line, " {cell:>10}");
    }
    line += "  ";
    if !outcome.is_well() {
        line += "FAILED ";
    }
    let reasons = outcome.reasons();
    let reasons = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"));
    line += &reasons.collect::<Vec<_>>().join(", ");
    if line.chars().count() > WIDTH {
        line = line.chars().take(WIDTH - 1).chain(['…']).collect();
    }
    line.trim_end().to_owned()
}

/// What is to be told of one that has failed, beside its line.
#[must_use]
pub fn failure(outcome: &Outcome) -> Option<String> {
    if outcome.is_well() {
        return None;
    }
    let mut text = format!("{} with seed {}:\n", outcome.name, outcome.seed);
    if let Some(error) = &outcome.error {
        let _ = writeln!(text, "  {error}");
    }
    for loss in &outcome.inexcusable {
        let client = loss
            .client
            .map_or_else(String::new, |it| format!(" of {it}"));
        let _ = writeln!(
            text,
            "  {} connection{client}, {:?}: {}",
            loss.way.name(),
            loss.phase,
            loss.symptom
        );
    }
    for (reason, count) in outcome.reasons() {
        let _ = writeln!(text, "  {count} lost: {reason}");
    }
    for note in &outcome.notes {
        let _ = writeln!(text, "  {note}");
    }
    Some(text)
}
