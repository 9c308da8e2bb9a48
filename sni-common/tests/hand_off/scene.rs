//! The whole of it: a state, what may happen next, and what must hold.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
};

use stateright::{Model, Property};

use crate::{
    agent::{Agent, AgentStep},
    datapath::{Datapath, InDatapath},
    ends::{Byte, Load, Segment, Socket, Tcp, answer_of_nobody},
};

/// How many repetitions an end tries before it gives the connection up: more than any run needs that goes well.
const TRIES: u8 = 6;
/// How many more than another one that tries.
const AHEAD: u8 = 2;

/// The two sides of a connection: 0 is the client's, 1 the Edge's.
pub(crate) const SIDES: [usize; 2] = [0, 1];

/// How large a run may get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes that the client and the Edge send.
    pub(crate) bytes: [u8; 2],
    /// Whether a FIN follows them.
    pub(crate) fins: [bool; 2],
    /// Packets that get lost between the gateway and an end.
    pub(crate) losses: u8,
    /// Packets that arrive twice.
    pub(crate) doubles: u8,
    /// Whether the agent may be killed.
    pub(crate) kill: bool,
    /// Whether the datapath may refuse the second entry, once.
    pub(crate) refuse: bool,
    /// Whether one of the ends may reset the connection.
    pub(crate) abort: bool,
    /// Whether somebody else may send a RST in an end's name, whose number is none of the stream's.
    pub(crate) forge: bool,
    /// Whether a processor may do something between another one's reading and writing of an entry's state.
    pub(crate) torn: bool,
}

impl Bounds {
    /// Two FINs, and nothing goes wrong.
    pub(crate) const FINS: Self = Self {
        bytes: [0, 0],
        fins: [true, true],
        losses: 0,
        doubles: 0,
        kill: false,
        refuse: false,
        abort: false,
        forge: false,
        torn: false,
    };

    /// What the end of a side sends in all; its FIN counts like a byte, as in sequence numbers.
    pub(crate) fn total(&self, side: usize) -> u8 {
        self.bytes[side] + u8::from(self.fins[side])
    }

    /// The place of its FIN.
    fn fin(&self, side: usize) -> Option<u8> {
        self.fins[side].then_some(self.bytes[side])
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
    /// The datapath has refused an entry.
    pub(crate) refused: bool,
    /// A RST was forged.
    pub(crate) forged: bool,
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
    /// It reads the state of the flow's entry.
    Load(InDatapath),
    /// It ends with it.
    Finish(InDatapath),
    /// An end resets the connection, or somebody else tries to.
    Abort(usize),
    Forge(usize),
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
            refused: false,
            forged: false,
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

    /// Who may send again. Their timers double, so nobody is far ahead of the others.
    fn repetitions(&self) -> Vec<Action> {
        let ends = SIDES.map(|side| (Action::Repeat(side), Some(self.ends[side])));
        let sockets = SIDES.map(|side| {
            let tcp = self.sockets[side].map(|socket| socket.tcp);
            (Action::RepeatBySocket(side), tcp)
        });
        let may_repeat: Vec<_> = ends
            .into_iter()
            .chain(sockets)
            .filter_map(|(action, tcp)| Some((action, tcp?.may_repeat(TRIES)?)))
            .collect();
        let least = may_repeat.iter().map(|(_, times)| *times).min();
        let near = |times: u8| least.is_some_and(|least| times < least + AHEAD);
        may_repeat
            .into_iter()
            .filter(|(_, times)| near(*times))
            .map(|(action, _)| action)
            .collect()
    }

    /// Whether both streams have arrived whole, and their senders know it.
    fn is_complete(&self, bounds: &Bounds) -> bool {
        SIDES.into_iter().all(|side| {
            let (own, other) = (&self.ends[side], &self.ends[1 - side]);
            own.acknowledged == bounds.total(side) && other.received == bounds.total(side)
        })
    }

    /// Whether no flow is left.
    fn is_gone(&self) -> bool {
        !SIDES.into_iter().any(|side| self.datapath.has_flow(side))
    }

    /// Whether an end has reset the connection, or was reset.
    fn is_reset(&self) -> bool {
        self.ends.iter().any(|end| end.reset)
    }

    /// Whether all is as it must be when nothing more can happen.
    fn is_well(&self, bounds: &Bounds) -> bool {
        // A RST that comes to nobody is like one that was lost: who has not heard of it finds out when it says something. And a segment that the RST has
        // overtaken takes its mark back, as if it were a forged one: the flow is swept when it has been idle for long.
        self.is_reset()
            || self.is_complete(bounds) && (self.is_gone() || bounds.fins != [true, true])
    }
}

impl Scene {
    /// Whether nothing more can happen.
    fn is_at_its_end(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        let mut states = actions.into_iter().map(|it| self.next_state(state, it));
        states.all(|next| next.is_none())
    }

    /// Goes through every run, and panics if one could go on for ever; stateright goes to no state twice. Returns how many states there are.
    pub(crate) fn check_that_runs_end(&self) -> usize {
        let number = |state: &State| BuildHasherDefault::<DefaultHasher>::default().hash_one(state);
        // The run so far, with the states that are still to be gone to from each of its own.
        let mut run: Vec<(u64, Vec<State>)> = Vec::new();
        let (mut on_it, mut known) = (HashSet::new(), HashSet::new());
        let mut next = self.init_states().pop();
        loop {
            if let Some(state) = next.take() {
                let number = number(&state);
                assert!(!on_it.contains(&number), "for ever: {state:?}");
                if known.insert(number) {
                    on_it.insert(number);
                    run.push((number, self.next_states(&state)));
                }
            }
            let Some((number, states)) = run.last_mut() else {
                return known.len();
            };
            next = states.pop();
            if next.is_none() {
                on_it.remove(number);
                run.pop();
            }
        }
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
            if state.ends[side].sent < bounds.total(side) && !state.ends[side].reset {
                actions.push(Action::Send(side));
            }
            if bounds.abort && !state.is_reset() {
                actions.push(Action::Abort(side));
            }
            if bounds.forge && !state.forged {
                actions.push(Action::Forge(side));
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
        actions.extend(state.processors.iter().map(|packet| match packet.state {
            None if bounds.torn => Action::Load(*packet),
            _ => Action::Finish(*packet),
        }));
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
                let byte = Byte {
                    of: side as u8,
                    at: state.ends[side].sent,
                };
                let segment = state.ends[side].send(byte);
                state.arriving[side].insert(segment);
            }
            Action::Abort(side) => {
                let segment = state.ends[side].abort();
                state.arriving[side].insert(segment);
            }
            Action::Forge(side) => {
                state.forged = true;
                state.arriving[side].insert(Segment {
                    // Not the one after the FIN either: the agent counts that twice where an acknowledgement has overtaken it.
                    seq: bounds.total(side) + 2,
                    ack: 0,
                    load: Load::Rst,
                });
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
                    state.processors.insert(InDatapath {
                        side,
                        segment,
                        state: None,
                    });
                } else {
                    state.rising[side].insert(segment);
                }
            }
            Action::Load(packet) => {
                state.processors.remove(&packet);
                let entry = state.datapath.flows[packet.side];
                state.processors.insert(InDatapath {
                    state: Some(entry.map_or(0, |entry| entry.state)),
                    ..packet
                });
            }
            Action::Finish(packet) => {
                state.processors.remove(&packet);
                let InDatapath { side, segment, .. } = packet;
                let has_socket = state.sockets[side].is_some();
                if state
                    .datapath
                    .forwards(packet, bounds.fin(side), has_socket)
                {
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
                        if let Some(answer) = socket.tcp.receive(segment, side) {
                            state.leaving[side].insert(answer);
                        }
                    }
                    // The classifier has it, as long as it is a flow's.
                    None if state.datapath.has_flow(side) => {}
                    None if segment.is_rst() => {}
                    None => {
                        // Whoever goes on after a RST is told.
                        state.host_reset |= !state.is_reset();
                        state.leaving[side].insert(answer_of_nobody(segment));
                    }
                }
            }
            Action::Arrive(side, segment) | Action::Double(side, segment) => {
                if let Action::Double(..) = action {
                    state.doubles += 1;
                } else {
                    state.leaving[side].remove(&segment);
                }
                if let Some(answer) = state.ends[side].receive(segment, 1 - side) {
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
                state.excused || state.is_reset() || SIDES.into_iter().all(is_kept)
            }),
            Property::always("nobody gets a foreign byte", |_, state: &State| {
                let sockets = state.sockets.iter().flatten().map(|socket| &socket.tcp);
                !state.ends.iter().chain(sockets).any(|tcp| tcp.has_foreign)
            }),
            // Not `eventually`, which stateright takes for met where two ways to a state come together.
            Property::always(
                "what ends has all bytes, and leaves nothing",
                |scene: &Scene, state: &State| {
                    state.excused || !scene.is_at_its_end(state) || state.is_well(&scene.0)
                },
            ),
            // What can't be reached is not checked.
            Property::sometimes(
                "a hand-off ends while bytes are still to come",
                |scene: &Scene, state: &State| {
                    let is_early = |side: usize| {
                        let total = scene.0.total(side);
                        total == 0 || state.ends[side].sent < total
                    };
                    state.agent == Agent::Done && SIDES.into_iter().all(is_early)
                },
            ),
            Property::sometimes("a RST ends a flow", |scene: &Scene, state: &State| {
                let are_reset = state.ends.iter().all(|end| end.reset);
                !scene.0.abort || state.agent == Agent::Done && are_reset && state.is_gone()
            }),
            Property::sometimes(
                "a FIN comes by the agent during a hand-off",
                |scene: &Scene, state: &State| {
                    let by_agent = |side: usize| {
                        let has_read = |it: Socket| it.read == scene.0.total(side);
                        scene.0.fins[side] && state.sockets[side].is_some_and(has_read)
                    };
                    let has_none = scene.0.fins == [false, false];
                    has_none || state.agent.is_handing_off() && SIDES.into_iter().any(by_agent)
                },
            ),
        ]
    }
}
