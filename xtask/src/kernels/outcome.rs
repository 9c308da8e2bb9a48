//! What came of a kernel, for people and for machines.

use std::fs;

use serde_json::{Value, json};

use super::{
    budget::{self, Budget},
    guest::{Accelerator, Logs},
    release::Kernel,
    steps::{STEPS, Step, title},
};

/// How much of a failed step is shown.
const SHOWN_LINES: usize = 40;

/// What came of a kernel.
pub(super) struct Outcome {
    line: &'static str,
    version: String,
    accelerator: Accelerator,
    steps: Vec<Step>,
    /// What the guest reports of programs and hooks.
    report: Value,
    programs: Vec<Program>,
    /// Where its logs are, for the sentence about a failure.
    console: String,
    log: String,
}

/// A program of the datapath, as the verifier took it.
struct Program {
    name: String,
    /// How many it took; `None` where the kernel does not tell, or the guest has not told.
    instructions: Option<u64>,
    budget: Option<u32>,
}

impl Program {
    /// Those that a guest has told of, and those that it should have.
    fn all(report: &Value, budget: &Budget, line: &str) -> Vec<Self> {
        let listed = report["programs"].as_array();
        let told: Vec<_> = listed
            .into_iter()
            .flatten()
            .filter_map(|it| {
                // What walks through no instruction was not counted.
                let taken = it["verified_instructions"].as_u64().filter(|it| *it > 0);
                Some((it["name"].as_str()?, taken))
            })
            .collect();
        let untold = budget
            .programs(line)
            .filter(|name| told.iter().all(|(other, _)| other != name))
            .map(|name| (name, None));
        let all = told.iter().copied().chain(untold);
        all.map(|(name, instructions)| Self {
            name: name.to_owned(),
            instructions,
            budget: budget.of(name, line),
        })
        .collect()
    }

    /// What is wrong with it.
    fn failure(&self) -> Option<String> {
        let name = &self.name;
        Some(match (self.instructions, self.budget) {
            (None, _) => format!("nobody has told how many instructions {name} took"),
            (Some(taken), Some(budget)) if taken <= u64::from(budget) => return None,
            (Some(taken), Some(budget)) => format!(
                "{name} took {taken} instructions, and its budget is {budget}: find out why, or raise the budget in {}",
                budget::FILE
            ),
            (Some(taken), None) => {
                format!(
                    "{name} took {taken} instructions, and has no budget in {}",
                    budget::FILE
                )
            }
        })
    }

    /// Its cell: what it took, and what it may take.
    fn cell(&self) -> String {
        match (self.instructions, self.budget) {
            (Some(taken), Some(budget)) if taken <= u64::from(budget) => {
                format!("{taken} of {budget}")
            }
            (Some(taken), Some(budget)) => format!("{taken} OVER {budget}"),
            (Some(taken), None) => format!("{taken} of ?"),
            (None, _) => "NOT TOLD".to_owned(),
        }
    }
}

impl Outcome {
    pub(super) fn new(
        kernel: &Kernel,
        accelerator: Accelerator,
        steps: Vec<Step>,
        logs: &Logs,
        budget: &Budget,
    ) -> Self {
        let report = steps.iter().find_map(Step::report).unwrap_or_default();
        Self {
            line: kernel.line,
            version: kernel.version.clone(),
            accelerator,
            programs: Program::all(&report, budget, kernel.line),
            report,
            steps,
            console: logs.console.display().to_string(),
            log: logs.steps.display().to_string(),
        }
    }

    /// Shows the end of the first step that failed, or of what the kernel said where it came to none.
    pub(super) fn explain(&self) {
        let failed = self.steps.iter().find(|step| !step.passed());
        let (of, lines) = match failed {
            Some(step) => (title(&step.name), step.lines.clone()),
            None if self.steps.is_empty() => ("the kernel's console", self.console()),
            None => return,
        };
        eprintln!("--- Linux {}: {of}", self.version);
        for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
            eprintln!("{line}");
        }
        eprintln!("---");
    }

    fn console(&self) -> Vec<String> {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// A sentence for each thing that is not as it must be.
    pub(super) fn failures(&self) -> Vec<String> {
        let version = &self.version;
        let mut failures = Vec::new();
        for (name, title) in STEPS {
            let sentence = match self.step(name) {
                Some(step) if step.passed() => continue,
                Some(Step {
                    status: Some(status),
                    ..
                }) => format!("failed with status {status}"),
                Some(_) => "did not come to an end".to_owned(),
                None => "was not begun".to_owned(),
            };
            failures.push(format!(
                "Linux {version}: {title} {sentence}; see {} and {}",
                self.log, self.console
            ));
        }
        let wrong = self.programs.iter().filter_map(Program::failure);
        failures.extend(wrong.map(|what| format!("Linux {version}: {what}")));
        failures
    }

    fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    pub(super) fn as_json(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            let tests = step.tests();
            json!({
                "name": step.name,
                "passed": step.passed(),
                "seconds": step.seconds,
                "tests": tests.map(|(passed, failed)| json!({"passed": passed, "failed": failed})),
            })
        });
        let steps: Vec<_> = steps.collect();
        let programs = self.programs.iter().map(|program| {
            json!({
                "name": program.name,
                "verified_instructions": program.instructions,
                "budget": program.budget,
            })
        });
        let programs: Vec<_> = programs.collect();
        json!({
            "line": self.line,
            "version": self.version,
            "release": self.report["kernel"],
            "accelerator": self.accelerator.name(),
            "programs": programs,
            "attached": self.report["attached"],
            "lacks": self.report["lacks"],
            "steps": steps,
            "failures": self.failures(),
        })
    }

    /// The cell of a program.
    fn verified(&self, name: &str) -> String {
        let program = self.programs.iter().find(|program| program.name == name);
        program.map_or_else(|| "-".to_owned(), Program::cell)
    }

    /// The cell of a step.
    fn came_to(&self, name: &str) -> String {
        let Some(step) = self.step(name) else {
            return "-".to_owned();
        };
        match (step.tests(), step.passed()) {
            (Some((passed, 0)), true) => format!("{passed} passed"),
            (Some((passed, failed)), _) => format!("{failed} of {} FAILED", passed + failed),
            (None, true) => "ok".to_owned(),
            (None, false) => "FAILED".to_owned(),
        }
    }

    fn strings(&self, field: &str) -> Vec<&str> {
        let all = self.report[field].as_array();
        all.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }
}

/// A column for each kernel; within 80 characters with three of them.
pub(super) fn print(outcomes: &[Outcome]) {
    let row = |title: &str, cell: &dyn Fn(&Outcome) -> String| {
        let cells: String = outcomes
            .iter()
            .map(|outcome| format!("{:>20}", cell(outcome)))
            .collect();
        println!("{title:<17}{cells}");
    };
    row("Linux", &|it| it.version.clone());
    println!("verified instructions, of the budget");
    let mut names: Vec<&str> = Vec::new();
    for program in outcomes.iter().flat_map(|outcome| &outcome.programs) {
        if !names.contains(&program.name.as_str()) {
            names.push(&program.name);
        }
    }
    for name in names {
        row(
            &format!("  {}", name.trim_start_matches("snigate_")),
            &|it| it.verified(name),
        );
    }
    println!("attached, and detached again");
    for hook in ["xdp", "xdp-generic", "tcx", "clsact"] {
        row(&format!("  {hook}"), &|it| {
            let has = it.strings("attached").contains(&hook);
            if has { "ok".to_owned() } else { "-".to_owned() }
        });
    }
    println!("run there");
    for (name, label) in [
        ("packets", "  packet tables"),
        ("xdp", "  main job, XDP"),
        ("traffic-control", "  main job, TC"),
        ("refusal", "  without JIT"),
    ] {
        row(label, &|it| it.came_to(name));
    }
    for outcome in outcomes {
        for lack in outcome.strings("lacks") {
            println!("\nLinux {}: {lack}", outcome.version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_tells_nothing_is_within_no_budget() {
        let budget = Budget::parse("program 6.1\na 100\nb 100\nc 100\nd 100\n").unwrap();
        let report = json!({"programs": [
            {"name": "a", "verified_instructions": 100},
            {"name": "b", "verified_instructions": 101},
            {"name": "c", "verified_instructions": 0},
            {"name": "e", "verified_instructions": 1},
        ]});
        let programs = Program::all(&report, &budget, "6.1");
        let cells: Vec<_> = programs.iter().map(Program::cell).collect();
        assert_eq!(
            cells,
            [
                "100 of 100",
                "101 OVER 100",
                "NOT TOLD",
                "1 of ?",
                "NOT TOLD"
            ]
        );
        let wrong: Vec<_> = programs.iter().filter_map(Program::failure).collect();
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        assert_eq!(Program::all(&Value::Null, &budget, "6.1").len(), 4);
    }
}
