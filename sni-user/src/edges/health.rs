//! Whether an Edge is up: by checks that fail and succeed in a row, and by the operator.

use std::time::Instant;

use sni_common::contract::EdgeState;

use crate::config;

/// What is known of an Edge's health. It changes by what it is told, and does nothing by itself.
#[derive(Clone, Debug)]
pub struct Health {
    up: bool,
    /// Since when it is up or down.
    since: Instant,
    /// Why it is down.
    why: Option<String>,
    /// Since when it is drained, if it is.
    drained: Option<Instant>,
    /// Results in a row that speak against what it is taken for.
    against: u8,
    last: Option<Checked>,
}

/// A check that was made.
#[derive(Clone, Debug)]
struct Checked {
    at: Instant,
    /// What it found, or what was wrong.
    result: Result<String, String>,
}

impl Health {
    /// What an earlier agent has left, or of a new Edge, which is taken to be up.
    pub fn new(state: EdgeState, now: Instant) -> Self {
        let down = "it was down before this agent started, and has not been found well again yet";
        Self {
            up: state != EdgeState::Down,
            since: now,
            why: (state == EdgeState::Down).then(|| down.to_owned()),
            drained: (state == EdgeState::Draining).then_some(now),
            against: 0,
            last: None,
        }
    }

    /// Whether it gets new connections.
    pub fn state(&self) -> EdgeState {
        match (self.drained, self.up) {
            (Some(_), _) => EdgeState::Draining,
            (None, true) => EdgeState::Up,
            (None, false) => EdgeState::Down,
        }
    }

    /// A check has found this, or that wrong. Whether it changes anything.
    pub fn checked(
        &mut self,
        result: Result<String, String>,
        limits: &config::Health,
        now: Instant,
    ) -> bool {
        let good = result.is_ok();
        let why = result.as_ref().err().cloned();
        self.last = Some(Checked { at: now, result });
        if good == self.up {
            self.against = 0;
            if !good {
                self.why = why;
            }
            return false;
        }
        self.against = self.against.saturating_add(1);
        let enough = if self.up { limits.fall } else { limits.rise };
        self.against >= enough && self.turn(good, why, now)
    }

    /// Connects to it have failed. Whether it changes anything.
    pub fn failed(&mut self, why: String, now: Instant) -> bool {
        self.up && self.turn(false, Some(why), now)
    }

    /// It is not checked, or no longer. Whether it changes anything.
    pub fn unchecked(&mut self, now: Instant) -> bool {
        self.last = None;
        self.against = 0;
        !self.up && self.turn(true, None, now)
    }

    /// It gets no new connections from now on, whatever checks say. Whether that is new.
    pub fn drain(&mut self, now: Instant) -> bool {
        let new = self.drained.is_none();
        self.drained.get_or_insert(now);
        new
    }

    /// Checks decide again. Whether that is new.
    pub fn enable(&mut self) -> bool {
        self.drained.take().is_some()
    }

    /// Since when its state is what it is.
    pub fn since(&self) -> Instant {
        self.drained.unwrap_or(self.since)
    }

    /// When it was checked last.
    pub fn last_checked(&self) -> Option<Instant> {
        self.last.as_ref().map(|last| last.at)
    }

    /// What there is to say about its state, if anything.
    pub fn why(&self) -> Option<String> {
        let down = self.why.clone().filter(|_| !self.up);
        if self.drained.is_some() {
            let also = down.map_or_else(String::new, |why| format!("; and it is down: {why}"));
            return Some(format!("drained by command{also}"));
        }
        down.or_else(|| match self.last.as_ref()?.result.clone() {
            Ok(found) => Some(found),
            Err(wrong) => Some(format!("its last check has failed: {wrong}")),
        })
    }

    fn turn(&mut self, up: bool, why: Option<String>, now: Instant) -> bool {
        self.up = up;
        self.since = now;
        self.why = why;
        self.against = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: config::Health = config::Health {
        tls: false,
        options: false,
        interval: Duration::from_secs(5),
        fall: 3,
        rise: 2,
    };

    fn good() -> Result<String, String> {
        Ok("it answers".into())
    }

    fn bad() -> Result<String, String> {
        Err("no answer".into())
    }

    /// What it is taken for after each of these results.
    fn states(health: &mut Health, results: &[Result<String, String>]) -> Vec<EdgeState> {
        let state = |result: &Result<String, String>| {
            health.checked(result.clone(), &LIMITS, Instant::now());
            health.state()
        };
        results.iter().map(state).collect()
    }

    #[test]
    fn only_results_in_a_row_count() {
        use EdgeState::{Down, Up};
        let mut health = Health::new(Up, Instant::now());
        let flapping = [bad(), bad(), good(), bad(), good(), bad(), bad()];
        assert_eq!(states(&mut health, &flapping), [Up; 7]);
        let failing = health.why().expect("a word");
        assert!(failing.contains("last check has failed"), "{failing}");
        assert_eq!(states(&mut health, &[bad()]), [Down]);
        assert_eq!(health.why().as_deref(), Some("no answer"));
        let flapping = [good(), bad(), good(), bad()];
        assert_eq!(states(&mut health, &flapping), [Down; 4]);
        assert_eq!(states(&mut health, &[good(), good()]), [Down, Up]);
        assert_eq!(health.why().as_deref(), Some("it answers"));
    }

    #[test]
    fn the_operator_has_the_last_word() {
        let now = Instant::now();
        let mut health = Health::new(EdgeState::Up, now);
        assert!(health.drain(now) && !health.drain(now));
        assert_eq!(
            states(&mut health, &[bad(), bad(), bad()]),
            [EdgeState::Draining; 3]
        );
        let why = health.why().expect("a reason");
        assert_eq!(why, "drained by command; and it is down: no answer");
        assert!(health.enable() && !health.enable());
        assert_eq!(health.state(), EdgeState::Down);
        states(&mut health, &[good(), good()]);
        assert_eq!(health.state(), EdgeState::Up);
    }

    #[test]
    fn what_an_earlier_agent_has_left_holds() {
        let now = Instant::now();
        let drained = Health::new(EdgeState::Draining, now);
        assert_eq!(drained.state(), EdgeState::Draining);
        let mut down = Health::new(EdgeState::Down, now);
        assert_eq!(states(&mut down, &[good()]), [EdgeState::Down]);
        assert_eq!(states(&mut down, &[good()]), [EdgeState::Up]);
        // Nobody would find an Edge well again that is not checked.
        let mut down = Health::new(EdgeState::Down, now);
        assert!(down.unchecked(now) && !down.unchecked(now));
        assert_eq!(down.state(), EdgeState::Up);
    }

    #[test]
    fn connects_that_fail_bring_it_down_at_once() {
        let mut health = Health::new(EdgeState::Up, Instant::now());
        assert!(health.failed("refused".into(), Instant::now()));
        assert!(!health.failed("refused".into(), Instant::now()));
        assert_eq!(health.state(), EdgeState::Down);
    }
}
