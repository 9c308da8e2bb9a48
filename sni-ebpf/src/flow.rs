//! Packets of a known flow: its state, its promotion when the handshake is complete, and its end.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    programs::XdpContext,
};
use sni_common::{
    contract::{Counter, DropReason, EventKind, Flow},
    tcp::{self, ACK, RST, SYN, state},
};

use crate::{
    finish::{count, emit},
    maps::{FLOWS, HALF_OPEN},
    packet::{Packet, Segment},
    steer,
    verdict::Step,
};

/// A packet of an established flow.
#[inline(always)]
pub fn established(ctx: &XdpContext, packet: &Packet, flow: *mut Flow) -> Step {
    let segment = match packet.segment(ctx) {
        Ok(segment) => segment,
        Err(reason) => return Step::Drop(reason),
    };
    // SAFETY: a live map value.
    let entry = unsafe { &mut *flow };
    if segment.flags & (SYN | RST) != 0 {
        let other = FLOWS.get_ptr_mut(entry.rewrite.reversed());
        if segment.flags & RST != 0 {
            reset(packet, &segment, entry, other);
        } else if segment.flags & ACK == 0 && is_over(entry, other) {
            // The client uses its port again: the old flow ends here, and the SYN is as good as any other.
            let reverse = entry.rewrite.reversed();
            let _ = FLOWS.remove(&packet.key);
            let _ = FLOWS.remove(&reverse);
            return steer::again(ctx, packet);
        }
        // A SYN in the middle of a live flow goes to the Edge like everything else: its challenge ACK (RFC 5961, 4) makes a client
        // that has really forgotten the connection reset it.
    } else {
        note(entry, &segment);
        let before = entry.state;
        entry.state = tcp::advance(before, segment.flags);
        if entry.state & !before & state::FIN != 0 {
            let other = FLOWS.get_ptr_mut(entry.rewrite.reversed());
            if is_over(entry, other) {
                closing(packet, entry);
            }
        }
    }
    Step::send(flow, Counter::Forwarded)
}

/// Marks a flow when its receiver would take the RST; a forged one goes on its way and marks nothing.
#[inline(always)]
fn reset(packet: &Packet, segment: &Segment, entry: &mut Flow, other: Option<*mut Flow>) {
    let receiver_ack = match other {
        // SAFETY: a live map value.
        Some(other) => unsafe { (*other).last_ack },
        None => entry.next_seq,
    };
    if tcp::reset_is_acceptable(segment.seq, entry.next_seq, receiver_ack) {
        entry.state |= state::RST;
        closing(packet, entry);
    } else {
        count(Counter::StrayResets, 1);
    }
}

#[inline(always)]
fn is_over(entry: &Flow, other: Option<*mut Flow>) -> bool {
    // SAFETY: a live map value.
    let other = other.map_or(state::FIN, |other| unsafe { (*other).state });
    (entry.state | other) & state::RST != 0 || entry.state & other & state::FIN != 0
}

/// Keeps the highest sequence number sent and the last acknowledgement.
#[inline(always)]
fn note(entry: &mut Flow, segment: &Segment) {
    let next = segment.seq.wrapping_add(segment.len);
    if tcp::after(next, entry.next_seq) {
        entry.next_seq = next;
    }
    if segment.flags & ACK != 0 {
        entry.last_ack = segment.ack;
    }
}

#[inline(always)]
fn closing(packet: &Packet, entry: &Flow) {
    emit(EventKind::FlowClosing, 0, &packet.key, 0, entry.edge.into());
}

/// A packet of a flow whose handshake is not complete.
#[inline(always)]
pub fn half_open(ctx: &XdpContext, packet: &Packet, flow: *mut Flow) -> Step {
    let segment = match packet.segment(ctx) {
        Ok(segment) => segment,
        Err(reason) => return Step::Drop(reason),
    };
    // SAFETY: a live map value.
    let entry = unsafe { &mut *flow };
    let to_edge = entry.direction == sni_common::contract::Direction::ToEdge as u8;
    if segment.flags & RST != 0 {
        return Step::Send {
            flow,
            counter: Counter::Forwarded,
            last: true,
        };
    }
    if segment.flags & SYN != 0 {
        if to_edge {
            if segment.flags & ACK != 0 {
                return Step::Drop(DropReason::BadFlags);
            }
            // Every SYN is charged to its source, or one half-open flow would be a free pass for a flood.
            if let Err(reason) = steer::admit_source(&packet.key.source) {
                return Step::Drop(reason);
            }
        } else {
            entry.state |= state::SYN_ACKED;
        }
        // A SYN counts anew: a client may have restarted with another initial sequence number.
        entry.next_seq = segment.seq.wrapping_add(segment.len);
        entry.last_ack = segment.ack;
        return Step::send(flow, Counter::Forwarded);
    }
    note(entry, &segment);
    // The segment that completes a handshake, or brings a lost flow back, may be the one that ends its direction.
    entry.state = tcp::advance(entry.state, segment.flags);
    let complete = if to_edge {
        completes_handshake(entry, &segment)
    } else {
        entry.state & state::RECOVERED != 0
    };
    if complete {
        return promote(ctx, packet, flow);
    }
    Step::send(flow, Counter::Forwarded)
}

/// Whether this is the client's ACK of the Edge's SYN-ACK: only a client that has seen that number can send it.
#[inline(always)]
fn completes_handshake(entry: &Flow, segment: &Segment) -> bool {
    match HALF_OPEN.get_ptr_mut(entry.rewrite.reversed()) {
        // SAFETY: a live map value.
        Some(other) => unsafe {
            (*other).state & state::SYN_ACKED != 0
                && segment.flags & ACK != 0
                && segment.ack == (*other).next_seq
        },
        None => false,
    }
}

#[inline(always)]
fn promote(ctx: &XdpContext, packet: &Packet, flow: *mut Flow) -> Step {
    // SAFETY: a live map value.
    let recovered = unsafe { (*flow).state } & state::RECOVERED != 0;
    match move_to_flows(ctx, packet, flow) {
        Ok(()) => match FLOWS.get_ptr_mut(&packet.key) {
            Some(flow) => Step::send(
                flow,
                if recovered {
                    Counter::Recovered
                } else {
                    Counter::Opened
                },
            ),
            None => Step::Drop(DropReason::NoFlow),
        },
        // The half-open entries stay: the Edge repeats its SYN-ACK, the client answers it with an RST, and both sides are clean.
        Err(DropReason::FlowTableFull) => Step::Reset(DropReason::FlowTableFull),
        Err(reason) => Step::Drop(reason),
    }
}

/// Moves both entries of a flow from HALF_OPEN to FLOWS. Nobody is evicted: when FLOWS is full, the client is told.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
fn move_to_flows(ctx: &XdpContext, packet: &Packet, flow: *mut Flow) -> Result<(), DropReason> {
    let key = &packet.key;
    // SAFETY: a live map value.
    let entry = unsafe { &*flow };
    let reverse = entry.rewrite.reversed();
    let other = HALF_OPEN.get_ptr_mut(&reverse).ok_or(DropReason::NoFlow)?;
    // SAFETY: a live map value.
    let other = unsafe { &*other };
    if other.rewrite.reversed() != *key {
        return Err(DropReason::NoFlow);
    }
    // NOEXIST: another CPU may be promoting the same flow, and a tuple of the Edge leg has one owner (see `port`).
    if FLOWS.insert(&reverse, other, BPF_NOEXIST.into()).is_err() {
        return match FLOWS.get_ptr_mut(key) {
            // Promoted by another CPU a moment ago.
            Some(_) => Ok(()),
            None => Err(DropReason::FlowTableFull),
        };
    }
    if FLOWS.insert(key, entry, BPF_ANY.into()).is_err() {
        let _ = FLOWS.remove(&reverse);
        return Err(DropReason::FlowTableFull);
    }
    emit(
        EventKind::FlowOpened,
        0,
        key,
        ctx.ingress_ifindex() as u32,
        entry.edge.into(),
    );
    // After the last use of the entries: the LRU map hands a removed one to the next flow at once.
    let _ = HALF_OPEN.remove(key);
    let _ = HALF_OPEN.remove(&reverse);
    Ok(())
}

/// Forgets a half-open flow, after its last packet has been sent.
#[inline(never)]
pub fn forget(packet: &Packet, flow: *mut Flow) -> u32 {
    // SAFETY: a live map value.
    let reverse = unsafe { (*flow).rewrite.reversed() };
    let _ = HALF_OPEN.remove(&packet.key);
    let _ = HALF_OPEN.remove(&reverse);
    0
}
