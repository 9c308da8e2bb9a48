//! A row of a packet table: a configuration, packets in sequence, and for each what must become of it, to the last byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use sni_common::contract::{Counter, DropReason, EventKind};

use super::flows::Flows;
use super::frame::Tcp;
use super::plan::Family;
use super::rig::{Port, Rig};
use super::scene::{Action, Outcome, Program, Scene};

/// Flows that fit unless a row says otherwise.
const MAX_FLOWS: u32 = 64;

/// What must become of a packet.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Handed to the host untouched, and counted as this.
    Untouched(Counter),
    /// Sent on as this frame.
    Forwarded(Vec<u8>),
    /// Answered with this frame, for this reason.
    Answered(Vec<u8>, DropReason),
    /// Dropped for this reason.
    Dropped(DropReason),
    /// A SYN, answered with this frame.
    Greeted(Vec<u8>),
    /// Dropped, because its work is done, and counted as this.
    Kept(Counter),
    /// Made the occasion of this frame, which is sent instead. Bytes are counted as they came.
    Replaced(Vec<u8>, Counter),
}

/// One packet of a row.
#[derive(Clone)]
pub struct Step {
    port: Port,
    frame: Vec<u8>,
    linear: Option<usize>,
    behind: bool,
    fate: Fate,
    further: Vec<(&'static str, u64)>,
    events: Option<Vec<EventKind>>,
    before: Option<Change>,
    after: Option<Check>,
    finally: Option<Change>,
}

type Change = Arc<dyn Fn(&mut Scene<'_>) -> Result<()> + Send + Sync>;
type Check = Arc<dyn Fn(&Flows) -> Result<()> + Send + Sync>;

impl Step {
    /// A frame that arrives at an interface, and its fate.
    #[must_use]
    pub fn new(port: Port, frame: Vec<u8>, fate: Fate) -> Self {
        Self {
            port,
            frame,
            linear: None,
            behind: false,
            fate,
            further: Vec::new(),
            events: None,
            before: None,
            after: None,
            finally: None,
        }
    }

    /// A TCP packet that is sent on as another one.
    #[must_use]
    pub fn forwarded(port: Port, packet: &Tcp, out: &Tcp) -> Self {
        Self::new(port, packet.frame(), Fate::Forwarded(out.frame()))
    }

    /// A TCP packet that is answered.
    #[must_use]
    pub fn answered(port: Port, packet: &Tcp, answer: Vec<u8>, reason: DropReason) -> Self {
        Self::new(port, packet.frame(), Fate::Answered(answer, reason))
    }

    /// A TCP packet that is dropped.
    #[must_use]
    pub fn dropped(port: Port, packet: &Tcp, reason: DropReason) -> Self {
        Self::new(port, packet.frame(), Fate::Dropped(reason))
    }

    /// A frame that is left alone.
    #[must_use]
    pub fn untouched(port: Port, frame: Vec<u8>, counter: Counter) -> Self {
        Self::new(port, frame, Fate::Untouched(counter))
    }

    /// A further counter that rises, by one.
    #[must_use]
    pub fn counts(mut self, counter: Counter) -> Self {
        self.further.push((counter.name(), 1));
        self
    }

    /// The frame arrives in two buffers, the first of `linear` bytes; left out where the kernel can't test that.
    #[must_use]
    pub fn split_at(mut self, linear: usize) -> Self {
        self.linear = Some(linear);
        self
    }

    /// The frame arrives at the program behind, which the first one has let it pass to.
    #[must_use]
    pub fn behind(mut self) -> Self {
        self.behind = true;
        self
    }

    /// What the agent is told, in order. Without this, events are not looked at.
    #[must_use]
    pub fn tells(mut self, events: &[EventKind]) -> Self {
        self.events = Some(events.to_vec());
        self
    }

    /// What is done to the scene before the packet arrives.
    #[must_use]
    pub fn after_change(
        mut self,
        change: impl Fn(&mut Scene<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.before = Some(Arc::new(change));
        self
    }

    /// What must hold for the flows after the packet.
    #[must_use]
    pub fn leaves(mut self, check: impl Fn(&Flows) -> Result<()> + Send + Sync + 'static) -> Self {
        self.after = Some(Arc::new(check));
        self
    }

    /// What must hold for the scene's other maps after the packet.
    #[must_use]
    pub fn and_then(
        mut self,
        check: impl Fn(&mut Scene<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.finally = Some(Arc::new(check));
        self
    }

    /// Lets the packet arrive in a scene, and compares.
    ///
    /// # Errors
    /// Something is not as expected.
    pub fn run(self, scene: &mut Scene<'_>) -> Result<()> {
        if let Some(change) = &self.before {
            change(scene)?;
        }
        let program = if self.behind {
            Program::Tc
        } else {
            scene.program()
        };
        let outcome = match (self.linear, program) {
            _ if self.behind => Some(scene.send_behind(self.port, &self.frame)?),
            (None, _) => scene.send_short(self.port, &self.frame)?,
            (Some(linear), Program::Xdp) => scene.send_split(self.port, &self.frame, linear)?,
            // A test run of traffic control makes no packet of several buffers.
            (Some(_), Program::Tc) => None,
        };
        let Some(outcome) = outcome else {
            return Ok(());
        };
        self.fate.check(program, &self.frame, &outcome)?;
        let mut expected = self.fate.counts(&self.frame);
        for (name, by) in self.further {
            *expected.entry(name).or_default() += by;
        }
        ensure!(
            outcome.counts == expected,
            "counters rose by {:?} instead of {expected:?}",
            outcome.counts
        );
        if let Some(kinds) = self.events {
            let told: Vec<_> = outcome
                .events
                .iter()
                .map(|event| EventKind::try_from(event.kind))
                .collect::<Result<_, _>>()?;
            ensure!(told == kinds, "the agent was told {told:?}, not {kinds:?}");
        }
        let flows = scene.flows()?;
        if let Some(check) = self.after {
            check(&flows).with_context(|| format!("with {flows:#?}"))?;
        }
        if let Some(check) = self.finally {
            check(scene)?;
        }
        Ok(())
    }
}

impl Fate {
    fn check(&self, program: Program, frame: &[u8], outcome: &Outcome) -> Result<()> {
        let (action, bytes) = match self {
            Self::Untouched(_) => (Action::Pass, Some(frame)),
            Self::Forwarded(out)
            | Self::Answered(out, _)
            | Self::Greeted(out)
            | Self::Replaced(out, _) => (Action::Redirect, Some(&out[..])),
            // What is dropped may have been half written.
            Self::Dropped(_) | Self::Kept(_) => (Action::Drop, None),
        };
        ensure!(
            outcome.action == action,
            "the verdict is {:?} instead of {action:?} (counters {:?})",
            outcome.action,
            outcome.counts
        );
        match bytes {
            Some(bytes) => same_frame(program, bytes, &outcome.frame),
            None => Ok(()),
        }
    }

    fn counts(&self, frame: &[u8]) -> BTreeMap<&'static str, u64> {
        let counts = match self {
            Self::Untouched(counter) => vec![(counter.name(), 1)],
            Self::Forwarded(out) => vec![
                (Counter::Forwarded.name(), 1),
                (Counter::ForwardedBytes.name(), ip_length(out)),
            ],
            Self::Answered(_, reason) => vec![(Counter::Answered.name(), 1), (reason.name(), 1)],
            Self::Dropped(reason) => vec![(Counter::Dropped.name(), 1), (reason.name(), 1)],
            Self::Greeted(_) => vec![(Counter::Cookies.name(), 1)],
            Self::Kept(counter) => vec![(counter.name(), 1)],
            Self::Replaced(_, counter) => vec![
                (Counter::Forwarded.name(), 1),
                (Counter::ForwardedBytes.name(), ip_length(frame)),
                (counter.name(), 1),
            ],
        };
        counts.into_iter().collect()
    }
}

/// Whether a program has left a frame as it should be, to the last byte.
///
/// # Errors
/// It has not; with both frames.
pub fn same_frame(program: Program, expected: &[u8], found: &[u8]) -> Result<()> {
    if expected != found
        && !(program == Program::Tc && without_outer_tag(expected).as_deref() == Some(found))
    {
        bail!("{}", difference(expected, found));
    }
    Ok(())
}

/// What a test run shows of a packet with VLAN tags that traffic control has written: the outer one stands beside the packet, until a device sends it.
fn without_outer_tag(frame: &[u8]) -> Option<Vec<u8>> {
    match frame.get(12..14)? {
        [0x81, 0x00] | [0x88, 0xa8] => Some([&frame[..12], &frame[16..]].concat()),
        _ => None,
    }
}

/// The length of a frame's IP packet by its own header, which padding behind it does not change.
fn ip_length(frame: &[u8]) -> u64 {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    let ip = &frame[at + 2..];
    let field = |at: usize| u64::from(u16::from_be_bytes([ip[at], ip[at + 1]]));
    if ip[0] >> 4 == 4 {
        field(2)
    } else {
        40 + field(4)
    }
}

/// Both frames as hexadecimal text, and where they part.
fn difference(expected: &[u8], found: &[u8]) -> String {
    let at = expected
        .iter()
        .zip(found)
        .position(|(a, b)| a != b)
        .unwrap_or(expected.len().min(found.len()));
    let mut text = format!("the frame differs from byte {at} on\n");
    for (name, frame) in [("expected", expected), ("found", found)] {
        let _ = writeln!(text, "  {name} ({} bytes)", frame.len());
        for (i, line) in frame.chunks(16).enumerate() {
            let bytes: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let mark = if at / 16 == i { ">" } else { " " };
            let _ = writeln!(text, "  {mark} {:04x}  {}", i * 16, bytes.join(" "));
        }
    }
    text
}

/// A row: packets through a datapath without a past.
#[derive(Clone)]
pub struct Row {
    name: String,
    configuration: String,
    max_flows: u32,
    setup: Option<Change>,
    steps: Vec<Step>,
}

impl Row {
    /// A row over a configuration.
    #[must_use]
    pub fn new(name: impl Into<String>, configuration: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            configuration: configuration.into(),
            max_flows: MAX_FLOWS,
            setup: None,
            steps: Vec::new(),
        }
    }

    /// With the address family before its name.
    #[must_use]
    pub fn named_for(mut self, family: Family) -> Self {
        self.name = format!("{}, {}", family.name(), self.name);
        self
    }

    /// With room for fewer or more flows.
    #[must_use]
    pub fn max_flows(mut self, flows: u32) -> Self {
        self.max_flows = flows;
        self
    }

    /// With something done to the scene after its configuration.
    #[must_use]
    pub fn setup(
        mut self,
        change: impl Fn(&mut Scene<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.setup = Some(Arc::new(change));
        self
    }

    /// With a further packet.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// With further packets.
    #[must_use]
    pub fn steps(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }

    fn run<'a>(self, rig: &'a Rig, program: Program, last: &mut Option<Scene<'a>>) -> Result<()> {
        let mut scene = match last.take() {
            Some(mut scene)
                if (scene.max_flows(), scene.program()) == (self.max_flows, program) =>
            {
                scene.reset(&self.name)?;
                scene
            }
            other => {
                drop(other);
                Scene::at(rig, &self.name, self.max_flows, program)?
            }
        };
        scene.configure(&self.configuration)?;
        if let Some(setup) = self.setup {
            setup(&mut scene)?;
        }
        for (number, step) in self.steps.into_iter().enumerate() {
            step.run(&mut scene)
                .with_context(|| format!("packet {}", number + 1))?;
        }
        // After a row that failed the next one starts with a new datapath.
        *last = Some(scene);
        Ok(())
    }
}

/// Runs a table as a test, at both hooks, or skips it, saying so, where labs are not asked for.
///
/// # Panics
/// At the end, with every row that failed.
pub fn packet_table(name: &str, rows: Vec<Row>) {
    packet_test(name, |rig| {
        let mut failures = String::new();
        let mut failed = 0;
        let mut scene = None;
        for program in Program::BOTH {
            for row in rows.clone() {
                let row_name = row.name.clone();
                if let Err(error) = row.run(rig, program, &mut scene) {
                    failed += 1;
                    let _ = writeln!(failures, "\nrow \"{row_name}\" at {program:?}: {error:#}");
                }
            }
        }
        let count = rows.len() * Program::BOTH.len();
        ensure!(failed == 0, "{failed} of {count} rows failed\n{failures}");
        Ok(())
    });
}

/// Runs a test inside a rig, or skips it, saying so, where labs are not asked for.
///
/// # Panics
/// The rig could not be made, or the test failed.
pub fn packet_test(name: &str, body: impl FnOnce(&Rig) -> Result<()> + Send) {
    if !wanted(name) {
        return;
    }
    let result = Rig::idle_or_new().and_then(|rig| {
        rig.run(body)?;
        rig.leave();
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error:#}");
    }
}

/// As for the lab: `cargo xtask test` asks for it by setting `SNIGATE_LAB=1`, and in continuous integration nothing is skipped.
fn wanted(name: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|v| v == value);
    assert!(
        root || !is("CI", "true"),
        "{name} cannot run: packet tables load the datapath and need root; run this job as root"
    );
    let wanted = root && is("SNIGATE_LAB", "1");
    if !wanted {
        // Past the test harness, which hides what a passing test prints.
        let line = format!("skipped: {name} needs the kernel; run `cargo xtask test` as root\n");
        std::io::stderr()
            .write_all(line.as_bytes())
            .expect("standard error takes a line");
    }
    wanted
}
