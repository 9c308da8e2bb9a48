//! What a stage can end in. `finish` alone turns it into counts, events and the hook's action.

use sni_common::contract::{Counter, DropReason, Flow};

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
    /// Dropped.
    Drop(DropReason),
}
