//! What was sent so far: to be repeated without what a failure does not need.

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{Counter, EdgeState};
use snigate_tests::packets::{Action, Outcome, Port, Scene};

use super::rules::Rules;
use super::{By, Table};
use crate::spliced::Spliced;

/// Something that happens to a datapath.
#[derive(Clone)]
pub(super) enum Event {
    /// A frame arrives.
    Frame(Port, Vec<u8>),
    /// A frame arrives at the program behind.
    Behind(Port, Vec<u8>),
    /// All flows are gone, and every Edge is up.
    Forget,
    /// An Edge's state changes.
    Edge(&'static str, EdgeState),
    /// A flow is handed off.
    HandOff(Box<Spliced>),
}

/// Attempts to do without a part of it.
const ATTEMPTS: usize = 300;
/// Events that are printed of what is left.
const PRINTED: usize = 12;

/// All of it, and the rules.
pub(super) struct History {
    table: Table,
    rules: Rules,
    events: Vec<Event>,
    pub(super) seen: Seen,
}

impl History {
    pub(super) fn new(table: Table) -> Self {
        Self {
            table,
            rules: Rules::new(table),
            events: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// Lets something happen, and judges it. `None` where the kernel can't have it happen.
    pub(super) fn apply(
        &mut self,
        scene: &mut Scene<'_>,
        event: Event,
    ) -> Result<Option<(Event, Outcome)>> {
        self.events.push(event.clone());
        let (frame, outcome) = match &event {
            Event::Frame(port, frame) => (frame, scene.send_short(*port, frame)?),
            Event::Behind(port, frame) => (frame, scene.send_behind_short(*port, frame)?),
            Event::Edge(name, state) => {
                scene.set_edge(name, *state)?;
                return Ok(None);
            }
            Event::Forget => {
                self.table.prepare(scene)?;
                return Ok(None);
            }
            Event::HandOff(flow) => {
                flow.install(scene)?;
                self.rules.meet(flow.path.client.ip());
                return Ok(None);
            }
        };
        let Some(outcome) = outcome else {
            return Ok(None);
        };
        self.seen.note(&outcome);
        self.rules
            .check(frame, &outcome, matches!(event, Event::Behind(..)))
            .with_context(|| format!("{}\n{outcome:?}", shown(&event)))?;
        Ok(Some((event, outcome)))
    }

    /// Judges a frame that was sent besides.
    pub(super) fn check_aside(&self, frame: &[u8], port: Port) -> Result<()> {
        self.rules
            .check_aside(frame, port)
            .with_context(|| format!("sent by {}: {}", port.name(), hex(frame)))
    }

    /// The failure with as few events before it as do.
    pub(super) fn shortened(
        mut self,
        scene: &mut Scene<'_>,
        error: anyhow::Error,
        seed: u64,
    ) -> anyhow::Error {
        let mut attempts = 0;
        let mut size = self.events.len() / 2;
        while size > 0 && attempts < ATTEMPTS {
            let mut at = 0;
            while at + size < self.events.len() && attempts < ATTEMPTS {
                attempts += 1;
                let mut fewer = self.events.clone();
                fewer.drain(at..at + size);
                match self.fails_with(scene, &fewer) {
                    Some(length) => {
                        fewer.truncate(length);
                        self.events = fewer;
                    }
                    None => at += size,
                }
            }
            size /= 2;
        }
        let first = self.events.len().saturating_sub(PRINTED);
        let steps: Vec<_> = self.events[first..].iter().map(shown).collect();
        error.context(format!(
            "`cargo xtask fuzz datapath --seed {seed}` repeats it; {} events are left of it, the last of them:\n{}\n",
            self.events.len(),
            steps.join("\n")
        ))
    }

    /// How many of these events it takes to fail again.
    fn fails_with(&self, scene: &mut Scene<'_>, events: &[Event]) -> Option<usize> {
        self.table.prepare(scene).ok()?;
        let mut again = Self::new(self.table);
        let failed = events
            .iter()
            .position(|event| again.apply(scene, event.clone()).is_err());
        failed.map(|last| last + 1)
    }
}

fn shown(event: &Event) -> String {
    match event {
        Event::Frame(port, frame) => format!("at {}: {}", port.name(), hex(frame)),
        Event::Behind(port, frame) => format!("behind {}: {}", port.name(), hex(frame)),
        Event::Forget => "all is forgotten".to_owned(),
        Event::Edge(name, state) => format!("{name} is {state:?}"),
        Event::HandOff(flow) => format!("handed off: {:?}", flow.path),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How much of what matters has come up.
#[derive(Debug, Default)]
pub(super) struct Seen {
    redirected: u32,
    bound: u32,
    delivered: u32,
    bound_forwarded: u32,
    handed_off: u32,
}

impl Seen {
    fn note(&mut self, outcome: &Outcome) {
        let rose = |counter: Counter| u32::from(outcome.counts.contains_key(counter.name()));
        self.redirected += u32::from(outcome.action == Action::Redirect);
        self.bound += rose(Counter::Bound);
        self.delivered += rose(Counter::HellosDelivered);
        self.bound_forwarded += rose(Counter::BoundForwarded);
        self.handed_off += rose(Counter::HandedOff);
    }

    /// Whether a run with so many packets was worth something.
    pub(super) fn is_enough(&self, table: Table, cases: u32) -> Result<()> {
        let mut enough = self.redirected > cases / 20;
        if table.by == By::Name {
            let least = cases / 1000;
            enough &= [
                self.bound,
                self.delivered,
                self.bound_forwarded,
                self.handed_off,
            ]
            .into_iter()
            .all(|count| count > least);
        }
        ensure!(
            enough,
            "too little of {cases} packets came to something: {self:?}"
        );
        Ok(())
    }
}
