//! What was sent so far: to be repeated without what a failure does not need.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{Counter, DropReason, EdgeState};
use snigate_tests::deadline::Deadline;
use snigate_tests::packets::{Action, Besides, Outcome, Port, Scene};

use super::frames::segment;
use super::rules::{Rules, Sent};
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
    /// The flow tables are read: each entry has its other direction, its Edge, its next hop.
    Look,
}

/// How long a frame may take to the other end of its link.
const PATIENCE: Duration = Duration::from_secs(2);
/// Attempts to do without a part of it.
const ATTEMPTS: usize = 300;
/// Events that are printed of what is left.
const PRINTED: usize = 12;

/// All of it, and the rules.
pub(super) struct History<'l> {
    table: Table,
    lines: &'l Lines,
    rules: Rules,
    events: Vec<Event>,
    pub(super) seen: Seen,
}

/// What the programs send besides the packets that they are given, at every interface.
pub(super) struct Lines(Vec<(Port, Besides)>);

impl Lines {
    pub(super) fn listen(scene: &Scene<'_>) -> Result<Self> {
        let listen = |port| Ok((port, scene.listen(port)?));
        let ports = [Port::Wan0, Port::Wan1, Port::Lan0, Port::Lan1];
        Ok(Self(ports.into_iter().map(listen).collect::<Result<_>>()?))
    }

    fn frames(&self) -> Result<Vec<(Port, Vec<u8>)>> {
        let mut all = Vec::new();
        for (port, line) in &self.0 {
            let frames = line.frames()?.into_iter();
            // The host itself tells its groups to its links.
            let frames = frames.filter(|frame| frame.first().is_none_or(|byte| byte & 1 == 0));
            all.extend(frames.map(|frame| (*port, frame)));
        }
        Ok(all)
    }

    /// Those of one packet, which carry so many bytes at least: a busy machine brings them a moment later.
    fn of_packet(&self, bytes: usize) -> Result<Vec<(Port, Vec<u8>)>> {
        let mut all = self.frames()?;
        let carried = |all: &[(Port, Vec<u8>)]| -> usize {
            let segments = all.iter().filter_map(|(_, frame)| segment(frame));
            segments.map(|tcp| tcp.payload().len()).sum()
        };
        let deadline = Deadline::after(PATIENCE);
        // What does not come the rules will miss.
        while carried(&all) < bytes && !deadline.expired() {
            thread::yield_now();
            all.extend(self.frames()?);
        }
        Ok(all)
    }
}

impl<'l> History<'l> {
    pub(super) fn new(table: Table, lines: &'l Lines) -> Self {
        Self {
            table,
            lines,
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
                self.rules.edge_is(name, *state);
                return Ok(None);
            }
            Event::Forget => {
                self.table.prepare(scene)?;
                self.rules.forget();
                return Ok(None);
            }
            Event::HandOff(flow) => {
                flow.install(scene)?;
                self.rules.meet(&flow.path);
                return Ok(None);
            }
            Event::Look => {
                scene.flows()?;
                return Ok(None);
            }
        };
        let Some(outcome) = outcome else {
            return Ok(None);
        };
        let sent = Sent {
            frame,
            behind: matches!(event, Event::Behind(..)),
            outcome: &outcome,
            besides: &self.lines.of_packet(self.rules.sent_before(&outcome))?,
        };
        self.seen.note(&sent);
        self.rules
            .check(&sent)
            .with_context(|| format!("{}\n{outcome:?}", shown(&event)))?;
        Ok(Some((event, outcome)))
    }

    /// The failure with as few events before it as do.
    pub(super) fn shortened(
        mut self,
        scene: &mut Scene<'_>,
        mut error: anyhow::Error,
        again: &str,
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
                    // Another failure would be another defect's.
                    Some((length, same)) if is_same(&same, &error) => {
                        fewer.truncate(length);
                        (self.events, error) = (fewer, same);
                    }
                    _ => at += size,
                }
            }
            size /= 2;
        }
        let first = self.events.len().saturating_sub(PRINTED);
        let steps: Vec<_> = self.events[first..].iter().map(shown).collect();
        error.context(format!(
            "`{again}` repeats it; {} events are left of it, the last of them:\n{}\n",
            self.events.len(),
            steps.join("\n")
        ))
    }

    /// How many of these events it takes to fail, and how they do.
    fn fails_with(
        &self,
        scene: &mut Scene<'_>,
        events: &[Event],
    ) -> Option<(usize, anyhow::Error)> {
        self.table.prepare(scene).ok()?;
        let mut again = Self::new(self.table, self.lines);
        events.iter().enumerate().find_map(|(number, event)| {
            let error = again.apply(scene, event.clone()).err()?;
            Some((number + 1, error))
        })
    }
}

fn is_same(one: &anyhow::Error, other: &anyhow::Error) -> bool {
    one.root_cause().to_string() == other.root_cause().to_string()
}

fn shown(event: &Event) -> String {
    match event {
        Event::Frame(port, frame) => format!("at {}: {}", port.name(), hex(frame)),
        Event::Behind(port, frame) => format!("behind {}: {}", port.name(), hex(frame)),
        Event::Forget => "all is forgotten".to_owned(),
        Event::Edge(name, state) => format!("{name} is {state:?}"),
        Event::HandOff(flow) => format!("handed off: {:?}", flow.path),
        Event::Look => "the tables are looked at".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What has come up.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Packets that the kernel has run.
    pub(super) packets: u32,
    redirected: u32,
    /// Frames that were sent besides.
    besides: u32,
    /// Packets that have counted as this.
    counts: BTreeMap<&'static str, u32>,
}

/// What must come up for either kind of table, and how often at least, in a thousand packets.
const OF_ADDRESSES: &[(&str, u32)] = &[
    (Counter::Steered.name(), 8),
    (Counter::Opened.name(), 2),
    (Counter::IcmpTranslated.name(), 5),
    (DropReason::FlowTableFull.name(), 3),
    (DropReason::NoEdge.name(), 1),
    (DropReason::TtlExpired.name(), 3),
];
const OF_NAMES: &[(&str, u32)] = &[
    (Counter::HelloParts.name(), 10),
    (Counter::Bound.name(), 8),
    (Counter::HellosDelivered.name(), 7),
    (Counter::BoundForwarded.name(), 10),
    (Counter::HandedOff.name(), 30),
    (Counter::IcmpTranslated.name(), 8),
    (DropReason::BadChecksum.name(), 3),
    (DropReason::FlowTableFull.name(), 2),
    (DropReason::NoEdge.name(), 1),
];

impl Seen {
    fn note(&mut self, sent: &Sent<'_>) {
        self.packets += 1;
        self.redirected += u32::from(sent.outcome.action == Action::Redirect);
        self.besides += sent.besides.len() as u32;
        for name in sent.outcome.counts.keys() {
            *self.counts.entry(name).or_default() += 1;
        }
    }

    /// Whether a run was worth something.
    pub(super) fn is_enough(&self, table: Table) -> Result<()> {
        let least = |often: u32| self.packets * often / 1000;
        ensure!(
            self.redirected > least(50),
            "too few packets were sent: {self:?}"
        );
        let wanted = match table.by {
            By::Address => OF_ADDRESSES,
            By::Name => {
                ensure!(
                    self.besides > least(2),
                    "too few hellos were sent in parts: {self:?}"
                );
                OF_NAMES
            }
        };
        for (name, often) in wanted {
            let times = self.counts.get(name).copied().unwrap_or(0);
            ensure!(times > least(*often), "too little of {name}: {self:?}");
        }
        Ok(())
    }
}
