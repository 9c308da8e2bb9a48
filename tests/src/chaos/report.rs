//! One line for each scenario.

use std::fmt::Write as _;

use super::{Outcome, Way};

/// The table's head: for each way, how many connections have completed of those that were opened.
#[must_use]
pub fn head() -> String {
    let mut line = format!("{:20} {:>3}", "scenario", "s");
    for way in Way::ALL {
        let _ = write!(line, " {:>10}", way.name());
    }
    line + "  lost, and why"
}

/// A scenario's line, no longer than the terminal is wide.
#[must_use]
pub fn line(outcome: &Outcome) -> String {
    let mut line = format!("{:20} {:>3}", outcome.name, outcome.took.as_secs());
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
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    if let Some(width) = width.filter(|width| line.chars().count() > *width) {
        line = line
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect();
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
        let _ = writeln!(text, "  {}", loss.sentence());
    }
    for (reason, count) in outcome.reasons() {
        let _ = writeln!(text, "  {count} lost: {reason}");
    }
    for note in &outcome.notes {
        let _ = writeln!(text, "  {note}");
    }
    Some(text)
}
