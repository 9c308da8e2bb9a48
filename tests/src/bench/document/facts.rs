//! What is said of the run itself.

use super::super::machine::QUIET;
use super::super::results::{Results, Spread};
use crate::plot::figure;

/// The text of a directive without argument; `None` where there is none of this name.
pub(super) fn of(results: &Results, word: &str) -> Option<String> {
    let text = match word {
        "machine" => machine(results),
        "programs" => programs(results),
        "run" => run(results),
        "warnings" => warnings(results),
        "left-out" => left_out(results),
        "micro" => micro(results),
        _ => return None,
    };
    Some(text)
}

fn machine(results: &Results) -> String {
    let machine = &results.machine;
    format!(
        "{} CPUs ({}), {} GiB of memory, Linux {}",
        machine.cpus,
        machine.processor,
        figure(machine.memory_gib),
        machine.kernel
    )
}

fn programs(results: &Results) -> String {
    let versions = results.versions.iter();
    let versions: Vec<_> = versions
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    versions.join(", ")
}

fn run(results: &Results) -> String {
    let how = &results.how;
    let mut text = format!(
        "Made on {} from {} in {:.0} minutes: {} rounds of {} ms for most figures, {} threads or processes for each proxy.",
        how.date, how.commit, how.minutes, how.rounds, how.sample_ms, how.workers
    );
    if let Some(busy) = Spread::of(&results.background) {
        text += &format!(
            " While nothing was measured, {:.1} % of the CPUs' time was used (at most {:.1} %).",
            busy.median * 100.0,
            busy.high * 100.0
        );
    }
    if !how.amended.is_empty() {
        text += &format!(" Measured again later: {}.", how.amended.join(", "));
    }
    text
}

/// Why these figures are none to rely on.
fn warnings(results: &Results) -> String {
    let how = &results.how;
    let busy = Spread::of(&results.background).map_or(0.0, |busy| busy.median);
    let warnings = [
        (how.quick, "a quick run, for whether everything works"),
        (!how.release, "not built in release"),
        (busy > QUIET, "the machine had other work to do"),
    ];
    let mut said = warnings
        .into_iter()
        .filter_map(|(is, what)| is.then_some(what));
    let Some(first) = said.next() else {
        return String::new();
    };
    let rest: String = said.map(|what| format!("; {what}")).collect();
    format!("**No figures to rely on: {first}{rest}.**")
}

/// As it was printed.
fn micro(results: &Results) -> String {
    if results.micro.is_empty() {
        return super::NOTHING.to_owned();
    }
    format!("```text\n{}\n```", results.micro.trim_end())
}

fn left_out(results: &Results) -> String {
    if results.left_out.is_empty() {
        return "Nothing was left out.".to_owned();
    }
    let lines = results.left_out.iter().map(|what| format!("- {what}\n"));
    format!("Left out:\n\n{}", lines.collect::<String>())
}
