//! Faults: scenarios that are repeatable and bounded, under connections of every way that there is. None of them may be lost to anything but the death of
//! one of their own ends, nor while they are opened, but where the scenario says so.
//!
//! What a scenario leaves to chance, how long to wait and whom to hit, follows from its seed. What the kernel's scheduler makes of it does not: a seed
//! repeats a scenario, not each packet of it.

mod load;
mod report;
mod scenarios;
mod soak;
mod stage;
mod tally;
mod way;

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use self::{
    load::Load,
    stage::{Setting, Stage},
};
pub use self::{
    report::{failure, head, line},
    soak::Soak,
    tally::{Ends, Excuse, Loss, Outcome, Phase, Symptom, WayTally},
    way::Way,
};
use crate::{Lab, Topology};

type Body = dyn Fn(&mut Play<'_, '_>) -> Result<()> + Send + Sync;

/// Something that goes wrong.
pub struct Scenario {
    /// What it is asked for by; scenarios of a kind have the same word before a slash.
    pub name: String,
    /// What goes wrong, in a sentence.
    pub about: String,
    /// Lines between the machines that can be disturbed.
    wires: bool,
    /// Ways whose connections may fail while they are opened.
    may_refuse: &'static [Way],
    setting: fn(&Lab, &Topology) -> Result<Setting>,
    body: Box<Body>,
}

/// A scenario under way.
struct Play<'p, 'lab> {
    stage: &'p Stage<'lab>,
    load: &'p Load<'p>,
    rng: fastrand::Rng,
    notes: Vec<String>,
}

/// What ends connections of which the agent is an end, and those that it was handing off.
const AGENT_DIED: &str = "agent died";
const DIED_HANDING_OFF: &str = "agent died in the hand-off";

/// All of them, in their order.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    scenarios::all()
}

impl Scenario {
    fn new(
        name: impl Into<String>,
        about: impl Into<String>,
        body: impl Fn(&mut Play<'_, '_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            wires: false,
            may_refuse: &[],
            setting: |_, _| Ok(Setting::default()),
            body: Box::new(body),
        }
    }

    fn with_setting(self, setting: fn(&Lab, &Topology) -> Result<Setting>) -> Self {
        Self { setting, ..self }
    }

    fn on_wires(self) -> Self {
        Self {
            wires: true,
            ..self
        }
    }

    fn may_refuse(self, may_refuse: &'static [Way]) -> Self {
        Self { may_refuse, ..self }
    }

    /// Whether somebody has asked for it: by its name, or by the word before the slash.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.name.split('/').next() == Some(name)
    }

    /// Plays it in a lab of its own, with the datapath at this hook.
    #[must_use]
    pub fn run(&self, seed: u64, hook: &'static str) -> Outcome {
        let began = Instant::now();
        let mut outcome = self.unplayed(seed);
        if let Err(error) = self.play_in_lab(hook, &mut outcome) {
            outcome.error = Some(format!("{error:#}"));
        }
        outcome.took = began.elapsed();
        outcome
    }

    fn unplayed(&self, seed: u64) -> Outcome {
        Outcome {
            name: self.name.clone(),
            seed,
            took: Duration::ZERO,
            ways: Default::default(),
            inexcusable: Vec::new(),
            error: None,
            notes: Vec::new(),
        }
    }

    fn play_in_lab(&self, hook: &'static str, outcome: &mut Outcome) -> Result<()> {
        let topology = Topology {
            capture: false,
            // A line would damage what has no checksum yet, and nobody could tell.
            offloads: hook == "tcx" && !self.wires,
            wan_wire: self.wires,
            lan_a_wire: self.wires,
            ..Topology::default()
        };
        let lab = Lab::new(&format!("chaos-{}", self.name.replace('/', "-")), &topology)?;
        let (stage, clients) = Stage::new(&lab, &topology, hook, (self.setting)(&lab, &topology)?)?;
        let load = Load::new(&clients);
        let mut played = thread::scope(|scope| {
            let _stop = load.start(scope);
            let mut play = Play {
                stage: &stage,
                load: &load,
                rng: self.chance(outcome.seed),
                notes: Vec::new(),
            };
            let played = play.carry_through(&*self.body);
            outcome.notes = play.notes;
            played
        });
        let tally = load.result();
        (outcome.ways, outcome.inexcusable) = tally.judge(self.may_refuse);
        played = played.and_then(|()| tally.ensure_complete());
        if played.is_err() || !outcome.inexcusable.is_empty() {
            outcome.notes.push(match lab.save_files() {
                Ok(path) => format!("logs are in {}", path.display()),
                Err(error) => format!("the logs could not be kept: {error:#}"),
            });
        }
        played
    }

    /// Another one for each scenario: one that is played alone is played as ever.
    fn chance(&self, seed: u64) -> fastrand::Rng {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        fastrand::Rng::with_seed(seed ^ hasher.finish())
    }
}

impl Play<'_, '_> {
    /// Until all connections go their ways, then what goes wrong, and until all is well again.
    fn carry_through(&mut self, body: &dyn Fn(&mut Self) -> Result<()>) -> Result<()> {
        let load = self.load;
        load.wait_for_held(|_| true).context("before the fault")?;
        self.stage.wait_until_settled(&load.clients_held())?;
        load.hold();
        load.wait_for_new(|_| true).context("before the fault")?;
        body(self)?;
        load.wait_for_held(|_| true).context("after the fault")?;
        load.wait_for_new(|_| true).context("after the fault")?;
        self.stage.ensure_alive()
    }

    /// Some time, in which connections go on.
    fn sleep(&mut self, milliseconds: std::ops::Range<u64>) {
        thread::sleep(Duration::from_millis(self.rng.u64(milliseconds)));
    }

    /// Something that has happened may take connections with it.
    fn excuse(&self, name: &'static str, when: RangeInclusive<Instant>, ends: Ends) {
        self.load.excuse(Excuse { name, when, ends });
    }

    /// The agent has died: so have those of which it is an end, and those that it was about to hand off. What the datapath has alone goes on; where a
    /// hand-off has come so far that it `survives`, also what is in the middle of it. Returns the clients of those that go on.
    fn agent_died(
        &self,
        when: RangeInclusive<Instant>,
        survives: bool,
    ) -> Result<BTreeSet<SocketAddr>> {
        self.excuse(AGENT_DIED, when.clone(), Ends::TheAgents);
        let mut handed_off = self.stage.handed_off()?;
        if !survives {
            let under_way = &handed_off.under_way;
            handed_off.all.retain(|client| !under_way.contains(client));
        }
        let but = handed_off.all.clone();
        self.excuse(DIED_HANDING_OFF, when, Ends::HandOffs { but });
        Ok(handed_off.all)
    }

    /// Without an agent, what the datapath has goes on, and what it decides alone is decided.
    fn ensure_datapath_goes_on(&self) -> Result<()> {
        let without_agent = |way: Way| !way.is_the_agents();
        self.load
            .wait_for_held(without_agent)
            .context("without an agent")?;
        let decided = |way: Way| matches!(way, Way::Steered | Way::Bound);
        self.load.wait_for_new(decided).context("without an agent")
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}
