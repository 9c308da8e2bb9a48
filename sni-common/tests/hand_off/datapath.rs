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

    /// Whether a packet of a flow goes on to the other side's end; else it goes up to the socket. `fin` is the offset of the side's FIN.
    pub(crate) fn forwards(
        &mut self,
        side: usize,
        segment: Segment,
        fin: u8,
        has_socket: bool,
    ) -> bool {
        let other_ack = self.flows[1 - side].map(|entry| entry.last_ack);
        // Removed meanwhile: the processor still has the value.
        let Some(entry) = &mut self.flows[side] else {
            return true;
        };
        let next = segment.seq + segment.len;
        if tcp::plausible(next.into(), entry.next_seq.into()) {
            entry.next_seq = next;
        }
        if tcp::plausible(segment.ack.into(), entry.last_ack.into()) {
            entry.last_ack = segment.ack;
        }
        if entry.state & state::HANDING_OFF != 0 {
            match self.handing_off[side] {
                None => entry.state &= !state::HANDING_OFF,
                Some(need_ack) if tcp::plausible(segment.ack.into(), need_ack.into()) => {}
                Some(need_ack) => {
                    let is_before = tcp::after(need_ack.into(), segment.ack.into());
                    if is_before && segment.len == 0 && has_socket {
                        return false;
                    }
                }
            }
        }
        let receiver_ack = other_ack.unwrap_or(entry.next_seq);
        if segment.len == 1 && segment.seq == fin {
            if tcp::plausible(next.into(), receiver_ack.into()) {
                entry.state = tcp::advance(entry.state, tcp::FIN);
            }
        } else {
            entry.state = tcp::advance(entry.state, 0);
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
