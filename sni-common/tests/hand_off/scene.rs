//! The whole of it: a state, what may happen next, and what must hold.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::{
    agent::{Agent, AgentStep},
    datapath::{Datapath, InDatapath},
    ends::{Segment, Socket, Tcp},
};

/// How many repetitions an end tries before it gives the connection up: more than any run needs that goes well.
const TRIES: u8 = 6;

/// The two sides of a connection: 0 is the client's, 1 the Edge's.
pub(crate) const SIDES: [usize; 2] = [0, 1];

/// How large a run may get.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    /// Bytes that the client and the Edge send, before their FINs.
    pub(crate) bytes: [u8; 2],
    /// Packets that get lost between the gateway and an end.
    pub(crate) losses: u8,
    /// Packets that arrive twice.
    pub(crate) doubles: u8,
    /// Whether the agent may be killed.
    pub(crate) kill: bool,
}

impl Bounds {
    /// What the end of a side sends in all; its FIN counts like a byte, as in sequence numbers.
    pub(crate) fn total(&self, side: usize) -> u8 {
        self.bytes[side] + 1
    }
}

/// The model.
pub(crate) struct Scene(pub(crate) Bounds);

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The client and the Edge.
    pub(crate) ends: [Tcp; 2],
    /// The agent's sockets toward them, as long as it has them.
    pub(crate) sockets: [Option<Socket>; 2],
    pub(crate) agent: Agent,
    pub(crate) datapath: Datapath,
    /// Packets from an end that have not come to the gateway's datapath.
    pub(crate) arriving: [BTreeSet<Segment>; 2],
    /// Packets that a processor of the gateway has before it.
    pub(crate) processors: BTreeSet<InDatapath>,
    /// Packets that are past the datapath, on their way up the host to a socket.
    pub(crate) rising: [BTreeSet<Segment>; 2],
    /// Packets to an end.
    pub(crate) leaving: [BTreeSet<Segment>; 2],
    pub(crate) losses: u8,
    pub(crate) doubles: u8,
    /// The host had no socket for a packet and has answered it with a RST.
    pub(crate) host_reset: bool,
    /// The agent was killed where that is known to end the connection, or to lose what only it had.
    pub(crate) excused: bool,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// An end sends its next byte, or its FIN.
    Send(usize),
    /// An end, or the agent's socket toward it, sends again what is not acknowledged.
    Repeat(usize),
    RepeatBySocket(usize),
    /// A processor begins with a packet: is there a flow?
    Begin(usize, Segment),
    /// It ends with it.
    Finish(InDatapath),
    /// A packet comes up to the agent's socket.
    Rise(usize, Segment),
    /// A packet comes to an end.
    Arrive(usize, Segment),
    LoseArriving(usize, Segment),
    LoseLeaving(usize, Segment),
    /// A packet comes to an end and is still on its way, too.
    Double(usize, Segment),
    Agent(AgentStep),
    /// The flow is idle for a minute, and swept if it has ended.
    Sweep,
}

impl State {
    fn new() -> Self {
        Self {
            ends: [Tcp::default(); 2],
            sockets: [Some(Socket::default()); 2],
            agent: Agent::Relaying,
            datapath: Datapath::default(),
            arriving: Default::default(),
            processors: BTreeSet::new(),
            rising: Default::default(),
            leaving: Default::default(),
            losses: 0,
            doubles: 0,
            host_reset: false,
            excused: false,
        }
    }

    /// Whether no packet is anywhere.
    fn is_silent(&self) -> bool {
        let queues = self
            .arriving
            .iter()
            .chain(&self.rising)
            .chain(&self.leaving);
        self.processors.is_empty() && queues.into_iter().all(BTreeSet::is_empty)
    }

    /// Whether nothing but timers goes on.
    fn is_at_rest(&self, bounds: &Bounds) -> bool {
        self.is_silent() && !self.agent.is_busy(self, bounds)
    }

    fn repetitions(&self) -> impl Iterator<Item = Action> {
        let ends = SIDES
            .into_iter()
            .filter(|side| self.ends[*side].may_repeat(TRIES))
            .map(Action::Repeat);
        let sockets = SIDES
            .into_iter()
            .filter(|side| self.sockets[*side].is_some_and(|socket| socket.tcp.may_repeat(TRIES)));
        ends.chain(sockets.map(Action::RepeatBySocket))
    }

    /// Whether both streams have arrived whole, and their senders know it.
    fn is_complete(&self, bounds: &Bounds) -> bool {
        SIDES.into_iter().all(|side| {
            let (own, other) = (&self.ends[side], &self.ends[1 - side]);
            own.acknowledged == bounds.total(side) && other.received == bounds.total(side)
        })
    }
}

impl Model for Scene {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let bounds = &self.0;
        if state.host_reset {
            return;
        }
        for side in SIDES {
            if state.ends[side].sent < bounds.total(side) {
                actions.push(Action::Send(side));
            }
            for segment in &state.arriving[side] {
                actions.push(Action::Begin(side, *segment));
                if state.losses < bounds.losses {
                    actions.push(Action::LoseArriving(side, *segment));
                }
            }
            for segment in &state.rising[side] {
                actions.push(Action::Rise(side, *segment));
            }
            for segment in &state.leaving[side] {
                actions.push(Action::Arrive(side, *segment));
                if state.losses < bounds.losses {
                    actions.push(Action::LoseLeaving(side, *segment));
                }
                if state.doubles < bounds.doubles {
                    actions.push(Action::Double(side, *segment));
                }
            }
        }
        actions.extend(state.processors.iter().copied().map(Action::Finish));
        let steps = state.agent.steps(state, bounds);
        actions.extend(steps.into_iter().map(Action::Agent));
        if state.is_at_rest(bounds) {
            let before = actions.len();
            actions.extend(state.repetitions());
            if actions.len() == before && state.datapath.is_swept(60) {
                actions.push(Action::Sweep);
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let bounds = &self.0;
        let mut state = last.clone();
        match action {
            Action::Send(side) => {
                let segment = state.ends[side].send();
                state.arriving[side].insert(segment);
            }
            Action::Repeat(side) => {
                let segment = state.ends[side].repeat();
                state.arriving[side].insert(segment);
            }
            Action::RepeatBySocket(side) => {
                let segment = state.sockets[side].as_mut()?.tcp.repeat();
                state.leaving[side].insert(segment);
            }
            Action::Begin(side, segment) => {
                state.arriving[side].remove(&segment);
                if state.datapath.has_flow(side) {
                    state.processors.insert(InDatapath { side, segment });
                } else {
                    state.rising[side].insert(segment);
                }
            }
            Action::Finish(packet) => {
                state.processors.remove(&packet);
                let InDatapath { side, segment } = packet;
                let fin = bounds.total(side) - 1;
                let has_socket = state.sockets[side].is_some();
                if state.datapath.forwards(side, segment, fin, has_socket) {
                    state.leaving[1 - side].insert(segment);
                } else {
                    state.rising[side].insert(segment);
                }
            }
            Action::Rise(side, segment) => {
                state.rising[side].remove(&segment);
                match &mut state.sockets[side] {
                    Some(socket) if socket.deaf => {}
                    Some(socket) => {
                        if let Some(answer) = socket.tcp.receive(segment) {
                            state.leaving[side].insert(answer);
                        }
                    }
                    // The classifier has it, as long as it is a flow's.
                    None if state.datapath.has_flow(side) => {}
                    None => state.host_reset = true,
                }
            }
            Action::Arrive(side, segment) | Action::Double(side, segment) => {
                if let Action::Double(..) = action {
                    state.doubles += 1;
                } else {
                    state.leaving[side].remove(&segment);
                }
                if let Some(answer) = state.ends[side].receive(segment) {
                    state.arriving[side].insert(answer);
                }
            }
            Action::LoseArriving(side, segment) => {
                state.losses += 1;
                state.arriving[side].remove(&segment);
            }
            Action::LoseLeaving(side, segment) => {
                state.losses += 1;
                state.leaving[side].remove(&segment);
            }
            Action::Agent(step) => step.take(&mut state, bounds),
            Action::Sweep => state.datapath.sweep(60),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the host resets nobody", |_, state: &State| {
                state.excused || !state.host_reset
            }),
            Property::always("what is acknowledged is not lost", |_, state: &State| {
                let is_kept = |side: usize| {
                    let (own, other) = (&state.ends[side], &state.ends[1 - side]);
                    let held = state.sockets[side].map_or(0, |socket| socket.tcp.received);
                    own.acknowledged <= other.received.max(held)
                };
                state.excused || SIDES.into_iter().all(is_kept)
            }),
            Property::eventually(
                "all bytes arrive, and nothing remains",
                |scene: &Scene, state: &State| {
                    let is_gone = !SIDES.into_iter().any(|side| state.datapath.has_flow(side));
                    state.excused || state.is_complete(&scene.0) && is_gone
                },
            ),
            // What can't be reached is not checked.
            Property::sometimes(
                "a hand-off ends while bytes are still to come",
                |scene: &Scene, state: &State| {
                    let is_early = |side: usize| state.ends[side].sent < scene.0.total(side);
                    state.agent == Agent::Done && SIDES.into_iter().all(is_early)
                },
            ),
            Property::sometimes(
                "a FIN comes by the agent during a hand-off",
                |scene: &Scene, state: &State| {
                    let by_agent = |side: usize| {
                        state.sockets[side].is_some_and(|it| it.read == scene.0.total(side))
                    };
                    state.agent.is_handing_off() && SIDES.into_iter().any(by_agent)
                },
            ),
        ]
    }
}
