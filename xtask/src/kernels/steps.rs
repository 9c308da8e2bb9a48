//! The steps of a guest: told as they begin and end, and what each of them came to.

use std::time::{Duration, Instant};

use serde_json::Value;

/// What a guest does, by its own words and ours.
pub(super) const STEPS: [(&str, &str); 5] = [
    ("programs", "loading and attaching"),
    ("packets", "packet tables"),
    ("xdp", "the main job by XDP"),
    ("traffic-control", "the main job by traffic control"),
    ("refusal", "refused and said without JIT"),
];

/// A step, and what it printed.
pub(super) struct Step {
    pub(super) name: String,
    /// Its exit status, if it came to an end.
    pub(super) status: Option<i32>,
    pub(super) seconds: f64,
    pub(super) lines: Vec<String>,
}

impl Step {
    pub(super) fn passed(&self) -> bool {
        self.status == Some(0)
    }

    /// The report of the programs.
    pub(super) fn report(&self) -> Option<Value> {
        let line = self.lines.iter().find(|line| line.starts_with('{'))?;
        serde_json::from_str(line).ok()
    }

    /// How many tests passed and failed, as libtest says it.
    pub(super) fn tests(&self) -> Option<(u32, u32)> {
        let line = self.lines.iter().rev();
        let mut line = line.filter_map(|line| line.strip_prefix("test result: "));
        let words: Vec<_> = line.next()?.split_whitespace().collect();
        let before = |word: &str| {
            let at = words
                .iter()
                .position(|it| it.trim_end_matches(';') == word)?;
            words.get(at.checked_sub(1)?)?.parse().ok()
        };
        Some((before("passed")?, before("failed")?))
    }
}

/// What a step is called where people read it.
pub(super) fn title(name: &str) -> &str {
    let known = STEPS.iter().find(|(known, _)| *known == name);
    known.map_or(name, |(_, title)| title)
}

/// A guest's steps so far.
pub(super) struct Progress {
    guest: String,
    steps: Vec<Step>,
    began: Instant,
}

impl Progress {
    pub(super) fn new(guest: &str) -> Self {
        eprintln!("xtask: Linux {guest}: booting ...");
        Self {
            guest: guest.to_owned(),
            steps: Vec::new(),
            began: Instant::now(),
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        !self.steps.is_empty()
    }

    /// A line of the guest.
    pub(super) fn hear(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("@begin ") {
            self.begin(name);
        } else if let Some(end) = line.strip_prefix("@end ") {
            let status = end
                .rsplit(' ')
                .next()
                .and_then(|status| status.parse().ok());
            self.finish(status);
        } else if let Some(step) = self.steps.last_mut() {
            step.lines.push(line.to_owned());
        }
    }

    fn begin(&mut self, name: &str) {
        eprintln!("xtask: Linux {}: {} ...", self.guest, title(name));
        self.began = Instant::now();
        self.steps.push(Step {
            name: name.to_owned(),
            status: None,
            seconds: 0.0,
            lines: Vec::new(),
        });
    }

    fn finish(&mut self, status: Option<i32>) {
        let Some(step) = self.steps.last_mut() else {
            return;
        };
        step.status = status;
        step.seconds = self.began.elapsed().as_secs_f64();
        let ended = if step.passed() { "done" } else { "FAILED" };
        eprintln!(
            "xtask: Linux {}: {}: {ended} in {:.1} s",
            self.guest,
            title(&step.name),
            step.seconds
        );
    }

    pub(super) fn give_up(&self, limit: Duration) {
        eprintln!(
            "xtask: Linux {}: FAILED: not at its end after {} s",
            self.guest,
            limit.as_secs()
        );
    }

    pub(super) fn end(self) -> Vec<Step> {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_words() {
        let mut progress = Progress::new("6.1");
        for line in [
            "a line of nobody's",
            "@begin programs",
            "{\"kernel\":\"6.1\"}",
            "@end programs 0",
            "@begin packets",
            "test a ... ok",
            "test result: FAILED. 82 passed; 1 failed; 0 ignored; 0 measured",
            "@end packets 101",
            "@begin xdp",
        ] {
            progress.hear(line);
        }
        let steps = progress.end();
        let status: Vec<_> = steps.iter().map(|step| step.status).collect();
        assert_eq!(status, [Some(0), Some(101), None]);
        assert_eq!(steps[0].report().unwrap()["kernel"], "6.1");
        assert_eq!(steps[1].tests(), Some((82, 1)));
        assert_eq!(steps[2].tests(), None);
    }
}
