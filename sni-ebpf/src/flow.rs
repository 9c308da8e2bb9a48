//! Packets of a known flow: its state, its promotion when the handshake is complete, and its end.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use sni_common::{
    contract::{
        CONTROL_TELL, Counter, Direction, DropReason, EventKind, Flow, FlowKey, TELL_FLOWS, Way,
    },
    tcp::{self, ACK, FIN, RST, SYN, state},
};

use crate::{
    account,
    bind::deliver,
    finish::{count, emit},
    frame::Frame,
    maps::{FLOWS, HALF_OPEN, control},
    packet::{Packet, Segment},
    splice, steer,
    verdict::Step,
};

/// A packet of an established flow.
#[inline(always)]
pub fn established(ctx: &impl Frame, packet: &Packet, flow: *mut Flow) -> Step {
    let segment = match packet.segment(ctx) {
        Ok(segment) => segment,
        Err(reason) => return Step::Drop(reason),
    };
    // SAFETY: a live map value.
    let entry = unsafe { &mut *flow };
    if entry.state & state::HELLO_KEPT != 0
        && let Some(step) = deliver::early(&segment, entry)
    {
        return step;
    }
    if segment.flags & (SYN | RST) != 0 {
        let other = FLOWS.get_ptr_mut(entry.rewrite.reversed());
        if segment.flags & RST != 0 {
            reset(packet, &segment, entry, other);
        } else if entry.way == Way::Bound as u8 && !is_to_edge(entry) {
            // An Edge's SYN-ACK again, whose hello is kept no longer. The client would make nothing of it.
            return Step::Drop(DropReason::LateAnswer);
        } else if segment.flags & ACK == 0 && is_to_edge(entry) && is_over(entry, other) {
            // The client uses its port again: the old flow ends here, and the SYN is as good as any other.
            account::end(&packet.key, entry, other);
            return Step::Anew;
        }
        // A SYN in the middle of a live flow goes to the Edge like everything else: its challenge ACK (RFC 5961, 4) makes a client
        // that has really forgotten the connection reset it.
    } else {
        note(entry, &segment);
        if entry.state & state::HANDING_OFF != 0
            && let Some(step) = splice::for_socket(ctx, packet, &segment, entry)
        {
            return step;
        }
        if segment.flags & FIN != 0 {
            fin(packet, &segment, entry);
        } else {
            entry.state = tcp::advance(entry.state, 0);
        }
    }
    let counter = match entry.way {
        way if way == Way::HandedOff as u8 => Counter::HandedOff,
        way if way == Way::Bound as u8 => Counter::BoundForwarded,
        _ => Counter::Forwarded,
    };
    Step::send(flow, counter)
}

/// Notes the end of one direction, unless its receiver could not yet have come so far: a forged FIN goes on its way and marks nothing.
#[inline(always)]
fn fin(packet: &Packet, segment: &Segment, entry: &mut Flow) {
    let other = FLOWS.get_ptr_mut(entry.rewrite.reversed());
    // SAFETY: a live map value.
    let receiver_ack = other.map_or(entry.next_seq, |other| unsafe { (*other).acknowledged() });
    if !tcp::plausible(segment.seq.wrapping_add(segment.len), receiver_ack) {
        return;
    }
    let before = entry.state;
    entry.state = tcp::advance(before, segment.flags);
    if before & state::FIN == 0 && is_over(entry, other) {
        closing(packet, entry);
    }
}

/// Marks a flow when its receiver would take the RST; a forged one goes on its way and marks nothing.
#[inline(always)]
fn reset(packet: &Packet, segment: &Segment, entry: &mut Flow, other: Option<*mut Flow>) {
    let receiver_ack = match other {
        // SAFETY: a live map value.
        Some(other) => unsafe { (*other).acknowledged() },
        None => entry.next_seq,
    };
    if tcp::reset_is_acceptable(segment.seq, entry.next_seq, receiver_ack) {
        if entry.state & state::RST == 0 {
            closing(packet, entry);
        }
        entry.state |= state::RST;
    } else {
        count(Counter::StrayResets, 1);
    }
}

/// Whether nothing more is to come. A flow of which one entry is gone can't go on.
#[inline(always)]
fn is_over(entry: &Flow, other: Option<*mut Flow>) -> bool {
    match other {
        None => true,
        // SAFETY: a live map value.
        Some(other) => unsafe {
            (entry.state | (*other).state) & state::RST != 0
                || entry.state & (*other).state & state::FIN != 0
        },
    }
}

#[inline(always)]
fn is_to_edge(entry: &Flow) -> bool {
    entry.direction == Direction::ToEdge as u8
}

/// Keeps the highest sequence number sent and the last acknowledgement; what is implausible may be forged, and is not believed.
#[inline(always)]
fn note(entry: &mut Flow, segment: &Segment) {
    let next = segment.seq.wrapping_add(segment.len);
    if tcp::plausible(next, entry.next_seq) {
        entry.next_seq = next;
    }
    if segment.flags & ACK != 0 && tcp::plausible(segment.ack, entry.last_ack) {
        entry.last_ack = segment.ack;
    }
}

#[inline(always)]
fn closing(packet: &Packet, entry: &Flow) {
    tell(EventKind::FlowClosing, &packet.key, 0, entry.edge.into());
}

/// Tells the agent of a flow, where somebody wants to know.
#[inline(always)]
fn tell(kind: EventKind, key: &FlowKey, ifindex: u32, edge: u32) {
    if control(CONTROL_TELL) & TELL_FLOWS != 0 {
        emit(kind, 0, key, ifindex, edge);
    }
}

/// A packet of a flow whose handshake is not complete.
#[inline(always)]
pub fn half_open(ctx: &impl Frame, packet: &Packet, flow: *mut Flow) -> Step {
    let segment = match packet.segment(ctx) {
        Ok(segment) => segment,
        Err(reason) => return Step::Drop(reason),
    };
    // SAFETY: a live map value.
    let entry = unsafe { &mut *flow };
    let Some(other) = HALF_OPEN.get_ptr_mut(entry.rewrite.reversed()) else {
        return without_other(packet, entry);
    };
    // SAFETY: a live map value.
    let other = unsafe { &mut *other };
    if is_to_edge(entry) {
        from_client(ctx, packet, &segment, flow, entry, other)
    } else {
        from_edge(ctx, packet, &segment, flow, entry, other)
    }
}

#[inline(always)]
fn from_client(
    ctx: &impl Frame,
    packet: &Packet,
    segment: &Segment,
    flow: *mut Flow,
    entry: &mut Flow,
    other: &Flow,
) -> Step {
    if segment.flags & RST != 0 {
        // The client does not want what the Edge has answered.
        return reset_half_open(flow, segment.seq == entry.next_seq);
    }
    if segment.flags & SYN == 0 {
        note(entry, segment);
        // The segment that completes a handshake may be the one that ends its direction.
        entry.state = tcp::advance(entry.state, segment.flags);
        // Only a client that has seen the Edge's initial sequence number can acknowledge it.
        let complete = other.state & state::SYN_ACKED != 0
            && segment.flags & ACK != 0
            && segment.ack == other.next_seq;
        return if complete {
            promote(ctx, packet, flow)
        } else {
            Step::send(flow, Counter::Forwarded)
        };
    }
    if segment.flags & ACK != 0 {
        return Step::Drop(DropReason::BadFlags);
    }
    // Every SYN is charged to its source, or one half-open flow would be a free pass for a flood.
    if let Err(reason) = steer::admit_source(&packet.key.source) {
        return Step::Drop(reason);
    }
    if other.state & state::SYN_ACKED == 0 && !steer::edge_is_up(entry.edge) {
        // The Edge has gone down before it answered: another one may do better.
        let reverse = entry.rewrite.reversed();
        let _ = HALF_OPEN.remove(&packet.key);
        let _ = HALF_OPEN.remove(&reverse);
        return Step::Anew;
    }
    // A SYN counts anew: a client may have restarted with another initial sequence number.
    entry.next_seq = segment.seq.wrapping_add(segment.len);
    Step::send(flow, Counter::Forwarded)
}

#[inline(always)]
fn from_edge(
    ctx: &impl Frame,
    packet: &Packet,
    segment: &Segment,
    flow: *mut Flow,
    entry: &mut Flow,
    other: &mut Flow,
) -> Step {
    // Somebody on the client's side may forge what an Edge would say, and so make flows that no Edge knows.
    let ingress = ctx.interface();
    if entry.next_hop.ifindex == ingress && other.next_hop.ifindex != ingress {
        return Step::Drop(DropReason::WrongSide);
    }
    if segment.flags & RST != 0 {
        // Refused (RFC 9293, 3.10.7.3: it acknowledges the SYN), or not known to the Edge.
        let refused = segment.flags & ACK != 0 && segment.ack == other.next_seq;
        return reset_half_open(flow, refused || segment.seq == entry.next_seq);
    }
    if segment.flags & SYN != 0 {
        entry.state |= state::SYN_ACKED;
        entry.next_seq = segment.seq.wrapping_add(segment.len);
        entry.last_ack = segment.ack;
        // What the client has to acknowledge next: from here on its acknowledgements are measured by the last one.
        other.last_ack = entry.next_seq;
        return Step::send(flow, Counter::Forwarded);
    }
    note(entry, segment);
    entry.state = tcp::advance(entry.state, segment.flags);
    if entry.state & state::RECOVERED != 0 {
        return promote(ctx, packet, flow);
    }
    Step::send(flow, Counter::Forwarded)
}

/// An RST goes to the other side; when that will take it, the flow is gone.
#[inline(always)]
fn reset_half_open(flow: *mut Flow, acceptable: bool) -> Step {
    if !acceptable {
        count(Counter::StrayResets, 1);
    }
    Step::Send {
        flow,
        counter: Counter::Forwarded,
        last: acceptable,
    }
}

/// One of the two entries is gone: evicted, or promoted a moment ago by another CPU.
#[inline(always)]
fn without_other(packet: &Packet, entry: &Flow) -> Step {
    if let Some(flow) = FLOWS.get_ptr_mut(&packet.key) {
        return Step::send(flow, Counter::Forwarded);
    }
    let to_edge = is_to_edge(entry);
    let _ = HALF_OPEN.remove(&packet.key);
    if to_edge {
        Step::Anew
    } else {
        Step::Drop(DropReason::NoFlow)
    }
}

/// The flow becomes an established one.
#[inline(always)]
fn promote(ctx: &impl Frame, packet: &Packet, flow: *mut Flow) -> Step {
    // SAFETY: a live map value.
    let (recovered, to_edge) =
        unsafe { ((*flow).state & state::RECOVERED != 0, is_to_edge(&*flow)) };
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
        // An Edge that brings a lost flow back is not reset: its connection may find room when it tries again.
        Err(DropReason::FlowTableFull) if to_edge => Step::Reset(DropReason::FlowTableFull),
        Err(reason) => Step::Drop(reason),
    }
}

/// Moves both entries of a flow from HALF_OPEN to FLOWS. Nobody is evicted: when FLOWS is full, the client is told.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
pub fn move_to_flows(ctx: &impl Frame, packet: &Packet, flow: *mut Flow) -> Result<(), DropReason> {
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
        match FLOWS.get_ptr_mut(&reverse) {
            // SAFETY: a live map value.
            Some(there) if unsafe { (*there).rewrite.reversed() } == *key => {}
            Some(_) => return Err(DropReason::NoFlow),
            None => return Err(DropReason::FlowTableFull),
        }
    }
    if FLOWS.insert(key, entry, BPF_ANY.into()).is_err() {
        let _ = FLOWS.remove(&reverse);
        return Err(DropReason::FlowTableFull);
    }
    tell(
        EventKind::FlowOpened,
        key,
        ctx.interface(),
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
