//! The datapath: FLOWS and HANDING_OFF, and what becomes of a packet, as in `sni-ebpf`'s `flow.rs` and `splice.rs`.

use sni_common::{
    contract::Flow,
    expiry::{self, Timeouts},
    tcp::{self, state},
};

use crate::{ends::Segment, scene::SIDES};

/// A packet of a flow that a processor has found, before it asks whether the flow is being handed off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct InDatapath {
    pub(crate) side: usize,
    pub(crate) segment: Segment,
    /// The state that it has read, where it is about to write it again.
    pub(crate) state: Option<u8>,
}

/// What of a flow's entry matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) state: u8,
    pub(crate) next_seq: u8,
    pub(crate) last_ack: u8,
}

/// The maps, by the side whose packets they are keyed by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Datapath {
    pub(crate) flows: [Option<Entry>; 2],
    /// `need_ack`, or [`NEVER`].
    pub(crate) handing_off: [Option<u8>; 2],
}

/// An acknowledgement that does not come.
pub(crate) const NEVER: u8 = u8::MAX;

impl Datapath {
    pub(crate) fn has_flow(&self, side: usize) -> bool {
        self.flows[side].is_some()
    }

    /// Whether the flow has ended, by a RST or because it was removed.
    pub(crate) fn is_over(&self) -> bool {
        self.flows
            .iter()
            .any(|entry| entry.is_none_or(|entry| entry.state & state::RST != 0))
    }

    /// Whether a packet of a flow goes on to the other side's end; else it goes up to the socket. `fin` is the offset of the side's FIN, where it has one.
    pub(crate) fn forwards(
        &mut self,
        packet: InDatapath,
        fin: Option<u8>,
        has_socket: bool,
    ) -> bool {
        let InDatapath {
            side,
            segment,
            state: loaded,
        } = packet;
        let other_ack = self.flows[1 - side].map(|entry| entry.last_ack);
        // Removed meanwhile: the processor still has the value.
        let Some(entry) = &mut self.flows[side] else {
            return true;
        };
        let mut state = loaded.unwrap_or(entry.state);
        let receiver_ack = |entry: &Entry| u32::from(other_ack.unwrap_or(entry.next_seq));
        if segment.is_rst() {
            let receiver_ack = receiver_ack(entry);
            let next = entry.next_seq.into();
            if tcp::reset_is_acceptable(segment.seq.into(), next, receiver_ack) {
                entry.state = state | state::RST;
            }
            return true;
        }
        let next = segment.seq + segment.len();
        if tcp::plausible(next.into(), entry.next_seq.into()) {
            entry.next_seq = next;
        }
        if tcp::plausible(segment.ack.into(), entry.last_ack.into()) {
            entry.last_ack = segment.ack;
        }
        if state & state::HANDING_OFF != 0 {
            match self.handing_off[side] {
                None => {
                    state &= !state::HANDING_OFF;
                    entry.state = state;
                }
                Some(need_ack) if tcp::plausible(segment.ack.into(), need_ack.into()) => {}
                Some(need_ack) => {
                    let is_before = tcp::after(need_ack.into(), segment.ack.into());
                    if is_before && segment.len() == 0 && has_socket {
                        return false;
                    }
                }
            }
        }
        if segment.len() == 1 && Some(segment.seq) == fin {
            if tcp::plausible(next.into(), receiver_ack(entry)) {
                entry.state = tcp::advance(state, tcp::FIN);
            }
        } else {
            entry.state = tcp::advance(state, 0);
        }
        true
    }

    /// Whether a sweep finds the flow over, when nothing has come for so many seconds.
    pub(crate) fn is_swept(&self, seconds: u64) -> bool {
        const SECOND: u64 = 1_000_000_000;
        let timeouts = Timeouts::with_idle(7200 * SECOND);
        let flow = |side: usize| {
            self.flows[side].map(|entry| Flow {
                state: entry.state,
                ..Flow::default()
            })
        };
        SIDES.into_iter().any(|side| {
            let over = |own| {
                expiry::established(&own, flow(1 - side).as_ref(), seconds * SECOND, &timeouts)
            };
            flow(side).and_then(over).is_some()
        })
    }

    pub(crate) fn sweep(&mut self, seconds: u64) {
        if self.is_swept(seconds) {
            self.flows = [None, None];
        }
    }
}
