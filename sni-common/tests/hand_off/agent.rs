//! The agent: it relays, and at some moment begins to hand the connection off, step by step as `sni-user`'s `proxy/hand_off` does.

use sni_common::tcp::{after, state};

use crate::{
    datapath::{Datapath, Entry, NEVER},
    ends::{Byte, Socket, Tcp},
    scene::{Bounds, SIDES, State},
};

/// Where the agent is with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Agent {
    /// It carries bytes from socket to socket.
    Relaying,
    /// It has asked the client's socket.
    Asked { client: Facts },
    /// It has asked both, and gives the datapath one entry after the other.
    Giving { facts: [Facts; 2], given: u8 },
    /// It waits until neither socket has anything left to do.
    Finishing { sides: [Side; 2], at: Step },
    /// Neither has; the entries of HANDING_OFF go.
    Ending { gone: u8 },
    /// Its sockets take what is still on its way to them.
    Lingering,
    /// The connection is the datapath's.
    Done,
    /// The datapath has refused the second entry, or a peer has reset its connection: the flow is taken back, step by step. It goes on relaying or, at the
    /// end, resets both sides.
    TakingBack { gone: u8, relays: bool },
    /// It has reset both sides.
    Broken,
    /// It was killed.
    Killed,
}

/// What a socket tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    sent: u8,
    acknowledged: u8,
    received: u8,
}

/// What the agent knows of a socket during a hand-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Side {
    /// Offset after all that the socket has sent, or will have with its outbox; and the same, as the datapath knows it.
    end: u8,
    announced: u8,
    /// What the socket is still to be given.
    outbox: Outbox,
}

/// Bytes of the other side's stream: how many, and the first one's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Outbox {
    first: u8,
    count: u8,
}

impl Outbox {
    /// With those that were read behind them.
    fn and(self, read: Self) -> Self {
        if self.count == 0 {
            return read;
        }
        assert_eq!(
            read.first,
            self.first + self.count,
            "read twice, or left out"
        );
        Self {
            count: self.count + read.count,
            ..self
        }
    }
}

/// The next step of the loop that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Reading what this side's socket has received.
    Read(usize),
    /// A FIN has come that way: the flow's entry was read, and is to be written back with it.
    NoteEnd(usize, Option<Entry>),
    /// Telling the datapath of what this side's socket is about to send.
    Need(usize),
    /// Giving it to the socket.
    Write(usize),
    Silence(usize),
    /// All was given: are the peers' acknowledgements there?
    Ask,
    Deafen(usize),
    /// Both are deaf: has anything come just before?
    Check,
    /// Nothing to do until something comes, or all is acknowledged.
    Wait,
}

/// What the agent may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AgentStep {
    /// Carries what a socket has received to the other one.
    Relay(usize),
    /// Begins to hand off.
    HandOff,
    /// Goes on with what it does.
    GoOn,
    /// Gives the datapath the second entry, which does not take it.
    Refused,
    /// Hears of a reset, and resets the other side.
    Break,
    /// Is killed.
    Die,
}

impl Agent {
    pub(crate) fn is_handing_off(&self) -> bool {
        matches!(self, Self::Giving { .. } | Self::Finishing { .. })
    }

    /// Whether it is about to do something by itself.
    pub(crate) fn is_busy(&self, state: &State, bounds: &Bounds) -> bool {
        let steps = self.steps(state, bounds);
        let by_itself = |step: &AgentStep| {
            matches!(
                step,
                AgentStep::Relay(_) | AgentStep::GoOn | AgentStep::Break
            )
        };
        steps.iter().any(by_itself)
    }

    pub(crate) fn steps(&self, state: &State, bounds: &Bounds) -> Vec<AgentStep> {
        let mut steps = Vec::new();
        match self {
            Self::Relaying if is_reset(state) => steps.push(AgentStep::Break),
            Self::Relaying => {
                let news = SIDES
                    .into_iter()
                    .filter(|side| socket(state, *side).has_news());
                steps.extend(news.map(AgentStep::Relay));
                // After a refusal it waits, until what has passed by was sent again: then all is as at the start.
                if !state.refused
                    && may_be_asked(state, bounds, 0)
                    && may_be_asked(state, bounds, 1)
                {
                    steps.push(AgentStep::HandOff);
                }
            }
            Self::Finishing {
                sides,
                at: Step::Wait,
            } => {
                if has_news(state)
                    || is_reset(state)
                    || state.datapath.is_over()
                    || is_quiet(state, sides)
                {
                    steps.push(AgentStep::GoOn);
                }
            }
            Self::Giving { given: 3, .. } if bounds.refuse && !state.refused => {
                steps.extend([AgentStep::GoOn, AgentStep::Refused]);
            }
            Self::Done | Self::Broken | Self::Killed => {}
            Self::Asked { .. }
            | Self::Giving { .. }
            | Self::Finishing { .. }
            | Self::Ending { .. }
            | Self::TakingBack { .. }
            | Self::Lingering => {
                steps.push(AgentStep::GoOn);
            }
        }
        if bounds.kill && !matches!(self, Self::Done | Self::Killed) {
            steps.push(AgentStep::Die);
        }
        steps
    }
}

/// Neither its peer nor the other one has closed its direction, as far as this socket knows.
fn may_be_asked(state: &State, bounds: &Bounds, side: usize) -> bool {
    let tcp = &socket(state, side).tcp;
    let has_ended = |stream: usize, bytes| bounds.fins[stream] && bytes == bounds.total(stream);
    !tcp.reset && !has_ended(side, tcp.received) && !has_ended(1 - side, tcp.sent)
}

fn is_reset(state: &State) -> bool {
    SIDES.into_iter().any(|side| socket(state, side).tcp.reset)
}

fn socket(state: &State, side: usize) -> &Socket {
    state.sockets[side]
        .as_ref()
        .expect("the agent has its sockets")
}

fn has_news(state: &State) -> bool {
    SIDES.into_iter().any(|side| socket(state, side).has_news())
}

/// Whether the peers have acknowledged all, as the socket knows or, where the acknowledgement came with data, the datapath.
fn is_quiet(state: &State, sides: &[Side; 2]) -> bool {
    SIDES.into_iter().all(|side| {
        let tcp = &socket(state, side).tcp;
        let by_flow = state.datapath.flows[side]
            .is_some_and(|entry| !after(sides[side].end.into(), entry.last_ack.into()));
        tcp.acknowledged == tcp.sent || by_flow
    })
}

fn facts(tcp: &Tcp) -> Facts {
    Facts {
        sent: tcp.sent,
        acknowledged: tcp.acknowledged,
        received: tcp.received,
    }
}

impl AgentStep {
    pub(crate) fn take(self, state: &mut State, bounds: &Bounds) {
        match self {
            Self::Relay(side) => {
                let read = read(state, side);
                give(state, 1 - side, read);
            }
            Self::Refused => {
                state.refused = true;
                state.datapath.handing_off[0] = None;
                state.agent = Agent::TakingBack {
                    gone: 0,
                    relays: true,
                };
            }
            Self::Break => reset_both(state),
            Self::HandOff => {
                let client = facts(&socket(state, 0).tcp);
                state.agent = Agent::Asked { client };
            }
            Self::GoOn => go_on(state, bounds),
            Self::Die => die(state),
        }
    }
}

/// Reads all that a socket has received.
fn read(state: &mut State, side: usize) -> Outbox {
    let socket = state.sockets[side].as_mut().expect("a socket");
    let read = Outbox {
        first: socket.read,
        count: socket.tcp.received - socket.read,
    };
    socket.read = socket.tcp.received;
    read
}

/// Has a socket send bytes of the other side's stream.
fn give(state: &mut State, side: usize, Outbox { first, count }: Outbox) {
    let socket = state.sockets[side].as_mut().expect("a socket");
    for at in first..first + count {
        let of = (1 - side) as u8;
        state.leaving[side].insert(socket.tcp.send(Byte { of, at }));
    }
}

/// Closes both sockets with a RST to each side that has not sent one itself.
fn reset_both(state: &mut State) {
    for side in SIDES {
        if let Some(socket) = &mut state.sockets[side]
            && !socket.tcp.reset
        {
            state.leaving[side].insert(socket.tcp.abort());
        }
    }
    state.sockets = [None, None];
    state.agent = Agent::Broken;
}

fn go_on(state: &mut State, bounds: &Bounds) {
    if let Agent::TakingBack {
        gone: 4,
        relays: false,
    } = state.agent
    {
        return reset_both(state);
    }
    state.agent = match state.agent {
        Agent::Asked { client } => {
            if may_be_asked(state, bounds, 1) {
                let facts = [client, facts(&socket(state, 1).tcp)];
                Agent::Giving { facts, given: 0 }
            } else {
                Agent::Relaying
            }
        }
        Agent::Giving { facts, given } => give_entry(&mut state.datapath, facts, given),
        Agent::Finishing { sides, at } => finish(state, bounds, sides, at),
        Agent::TakingBack { gone: 4, .. } => Agent::Relaying,
        Agent::TakingBack { gone, relays } => {
            let side = usize::from(gone / 2);
            if gone.is_multiple_of(2) {
                state.datapath.flows[side] = None;
            } else {
                state.datapath.handing_off[side] = None;
            }
            Agent::TakingBack {
                gone: gone + 1,
                relays,
            }
        }
        Agent::Ending { gone } => {
            state.datapath.handing_off[usize::from(gone)] = None;
            if gone == 1 {
                give_up(state);
                Agent::Lingering
            } else {
                Agent::Ending { gone: gone + 1 }
            }
        }
        Agent::Lingering => {
            state.sockets = [None, None];
            Agent::Done
        }
        other @ (Agent::Relaying | Agent::Done | Agent::Broken | Agent::Killed) => other,
    };
}

/// The Edge's packets first, and HANDING_OFF before FLOWS.
fn give_entry(datapath: &mut Datapath, facts: [Facts; 2], given: u8) -> Agent {
    let side = if given < 2 { 1 } else { 0 };
    if given.is_multiple_of(2) {
        datapath.handing_off[side] = Some(NEVER);
    } else {
        datapath.flows[side] = Some(Entry {
            state: state::HANDING_OFF,
            next_seq: facts[side].received,
            last_ack: facts[side].acknowledged,
        });
    }
    if given < 3 {
        return Agent::Giving {
            facts,
            given: given + 1,
        };
    }
    let side = |facts: Facts| Side {
        end: facts.sent,
        announced: NEVER,
        outbox: Outbox::default(),
    };
    Agent::Finishing {
        sides: facts.map(side),
        at: Step::Read(0),
    }
}

/// A peer is gone: the hand-off is broken off.
const GONE: Agent = Agent::TakingBack {
    gone: 0,
    relays: false,
};

fn finish(state: &mut State, bounds: &Bounds, mut sides: [Side; 2], at: Step) -> Agent {
    let next = match at {
        // A system call on such a socket fails.
        Step::Read(side) | Step::Write(side) if socket(state, side).tcp.reset => return GONE,
        Step::Read(side) => {
            let after = if side == 0 {
                Step::Read(1)
            } else {
                Step::Need(0)
            };
            if socket(state, side).has_news() {
                for socket in state.sockets.iter_mut().flatten() {
                    socket.silent = false;
                }
                let bytes = read(state, side);
                let to = &mut sides[1 - side];
                to.outbox = to.outbox.and(bytes);
                to.end += bytes.count;
                if bounds.fins[side] && socket(state, side).read == bounds.total(side) {
                    Step::NoteEnd(side, state.datapath.flows[side])
                } else {
                    after
                }
            } else {
                after
            }
        }
        Step::NoteEnd(side, entry) => {
            if let Some(entry) = entry {
                state.datapath.flows[side] = Some(Entry {
                    state: entry.state | state::FIN,
                    next_seq: entry.next_seq + 1,
                    ..entry
                });
            }
            if side == 0 {
                Step::Read(1)
            } else {
                Step::Need(0)
            }
        }
        Step::Need(side) => {
            if sides[side].announced != sides[side].end {
                state.datapath.handing_off[side] = Some(sides[side].end);
                sides[side].announced = sides[side].end;
            }
            Step::Write(side)
        }
        Step::Write(side) => {
            give(state, side, sides[side].outbox);
            sides[side].outbox = Outbox::default();
            if side == 0 {
                Step::Need(1)
            } else {
                Step::Silence(0)
            }
        }
        Step::Silence(side) => {
            state.sockets[side].as_mut().expect("a socket").silent = true;
            if side == 0 {
                Step::Silence(1)
            } else {
                Step::Ask
            }
        }
        Step::Ask => {
            if state.datapath.is_over() {
                return Agent::Ending { gone: 0 };
            }
            if is_reset(state) {
                return GONE;
            }
            if is_quiet(state, &sides) {
                Step::Deafen(0)
            } else {
                Step::Wait
            }
        }
        Step::Deafen(side) => {
            state.sockets[side].as_mut().expect("a socket").deaf = true;
            if side == 0 {
                Step::Deafen(1)
            } else {
                Step::Check
            }
        }
        Step::Check => {
            if !has_news(state) {
                return Agent::Ending { gone: 0 };
            }
            for socket in state.sockets.iter_mut().flatten() {
                socket.deaf = false;
            }
            Step::Read(0)
        }
        Step::Wait => Step::Read(0),
    };
    Agent::Finishing { sides, at: next }
}

/// A socket that has not seen itself that all was acknowledged is closed at once: it would repeat it.
fn give_up(state: &mut State) {
    for socket in &mut state.sockets {
        if socket.is_some_and(|it| it.tcp.acknowledged < it.tcp.sent) {
            *socket = None;
        }
    }
}

/// The agent is killed. What is not silent ends the connection; what is, loses what the agent alone had.
fn die(state: &mut State) {
    let is_excused = match state.agent {
        Agent::Done | Agent::Lingering | Agent::Ending { .. } => false,
        Agent::Finishing { sides, .. } => SIDES.into_iter().any(|side| {
            let socket = socket(state, side);
            let is_received = state.ends[side].received >= sides[side].end;
            !socket.silent || socket.has_news() || !is_received
        }),
        _ => true,
    };
    // The host answers what is on its way up to a socket that is gone, unless it is a flow's: the classifier stays.
    let is_lost = |side: usize| !state.rising[side].is_empty() && !state.datapath.has_flow(side);
    state.excused |= is_excused || SIDES.into_iter().any(is_lost);
    state.sockets = [None, None];
    state.agent = Agent::Killed;
}
