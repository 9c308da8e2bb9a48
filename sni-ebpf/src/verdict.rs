//! What a stage can end in. `finish` alone turns it into counts, events and the hook's action.

use sni_common::contract::{Counter, DropReason, Fate, Flow};

use crate::{answer, frame::Frame, packet::Packet};

/// What becomes of a TCP packet, as the stages about flows see it; sending happens in one place.
pub enum Step {
    /// Translated by this entry and sent; the counter says what the packet was. After the `last` one a half-open flow is gone.
    Send {
        flow: *mut Flow,
        counter: Counter,
        last: bool,
    },
    /// No flow's: what was known of it is over or lost. Looked up once more, without it.
    Anew,
    /// Answered with a reset.
    Reset(DropReason),
    /// The host's.
    Pass(Counter),
    /// Dropped.
    Drop(DropReason),
}

impl Step {
    /// A packet of a flow that goes on.
    #[inline(always)]
    pub fn send(flow: *mut Flow, counter: Counter) -> Self {
        Self::Send {
            flow,
            counter,
            last: false,
        }
    }
}

/// What a stage about connections that the datapath begins has come to, in one number: functions that are not inlined can't return a [`Step`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Outcome(u32);

impl Outcome {
    const PASS: u32 = 0x100;
    const KEEP: u32 = 0x200;
    const SENT: u32 = 0x300;
    const DROP: u32 = 0x400;
    const RESET: u32 = 0x500;
    /// [`Step::Anew`].
    pub const ANEW: Self = Self(0x600);
    /// There is more to be done: `bind::again` or `deliver::send` has the outcome.
    pub const AGAIN: Self = Self(0x800);
    /// [`Step::Send`], for the last time.
    pub const LAST: Self = Self(0x700);

    #[inline(always)]
    pub const fn pass(counter: Counter) -> Self {
        Self(Self::PASS | counter as u32)
    }

    #[inline(always)]
    pub const fn keep(counter: Counter) -> Self {
        Self(Self::KEEP | counter as u32)
    }

    #[inline(always)]
    pub const fn sent(counter: Counter) -> Self {
        Self(Self::SENT | counter as u32)
    }

    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self(Self::DROP | reason as u32)
    }

    #[inline(always)]
    pub const fn reset(reason: DropReason) -> Self {
        Self(Self::RESET | reason as u32)
    }

    /// Whether it is `other`.
    #[inline(always)]
    pub const fn is(self, other: Self) -> bool {
        self.0 == other.0
    }

    /// The packet's fate, where it is none of [`Outcome::ANEW`], [`Outcome::AGAIN`] and [`Outcome::LAST`].
    #[inline(always)]
    pub fn verdict(self, ctx: &impl Frame, packet: &Packet) -> Verdict {
        let number = self.0 & 0xff;
        let counter = Counter::try_from(number).unwrap_or(Counter::Inspected);
        let reason = DropReason::try_from(number).unwrap_or(DropReason::Incoherent);
        match self.0 & !0xff {
            Self::PASS => Verdict::Pass(counter),
            Self::KEEP => Verdict::Keep(counter),
            Self::SENT => Verdict::Forward(counter),
            Self::RESET => answer::reset(ctx, packet, reason),
            _ => Verdict::Drop(reason),
        }
    }
}

/// The fate of a packet.
///
/// Functions that are not inlined return neither this nor a [`Step`]: the unused part of an enum in a register has never been written,
/// and the verifier does not let it be read.
pub enum Verdict {
    /// The host's, untouched; the counter says why.
    Pass(Counter),
    /// Translated, and redirected to [`crate::packet::Packet::leaves_by`].
    Forward(Counter),
    /// Turned into an answer to its sender and redirected to where it came from.
    Answer(DropReason),
    /// Turned into the answer to a SYN, and redirected to where it came from.
    Greet(Counter),
    /// Dropped, because its work is done.
    Keep(Counter),
    /// Dropped.
    Drop(DropReason),
}

impl Verdict {
    /// A [`Fate`] and, in the lowest byte, the number of the counter or drop reason: as a function takes it that is not inlined.
    #[inline(always)]
    pub const fn number(&self) -> u32 {
        let (fate, number) = match self {
            Self::Pass(counter) => (Fate::Passed, *counter as u32),
            Self::Forward(counter) => (Fate::Forwarded, *counter as u32),
            Self::Answer(reason) => (Fate::Answered, *reason as u32),
            Self::Greet(counter) => (Fate::Greeted, *counter as u32),
            Self::Keep(counter) => (Fate::Kept, *counter as u32),
            Self::Drop(reason) => (Fate::Dropped, *reason as u32),
        };
        (fate as u32) << 8 | number
    }
}
