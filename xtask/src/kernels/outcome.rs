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
    instructions: u64,
    budget: Option<u32>,
}

impl Program {
    fn is_within(&self) -> bool {
        self.budget
            .is_some_and(|budget| self.instructions <= u64::from(budget))
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
        let listed = report["programs"].as_array().cloned().unwrap_or_default();
        let program = |it: &Value| {
            let name = it["name"].as_str()?;
            Some(Program {
                name: name.to_owned(),
                instructions: it["verified_instructions"].as_u64()?,
                budget: budget.of(name, kernel.line),
            })
        };
        Self {
            line: kernel.line,
            version: kernel.version.clone(),
            accelerator,
            programs: listed.iter().filter_map(program).collect(),
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
        for program in self.programs.iter().filter(|it| !it.is_within()) {
            let Program {
                name,
                instructions,
                budget,
            } = program;
            failures.push(match budget {
                Some(budget) => format!(
                    "Linux {version}: {name} took {instructions} instructions, and its budget is {budget}: find out why, \
                     or raise the budget in {}",
                    budget::FILE
                ),
                None => format!(
                    "Linux {version}: {name} took {instructions} instructions, and has no budget in {}",
                    budget::FILE
                ),
            });
        }
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

    /// The cell of a program: what it took, and what it may take.
    fn verified(&self, name: &str) -> String {
        let program = self.programs.iter().find(|program| program.name == name);
        match program {
            None => "-".to_owned(),
            Some(program) => match program.budget {
                Some(budget) if program.is_within() => {
                    format!("{} of {budget}", program.instructions)
                }
                Some(budget) => format!("{} OVER {budget}", program.instructions),
                None => format!("{} of ?", program.instructions),
            },
        }
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
