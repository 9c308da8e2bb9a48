//! An Edge answers a bound connection: the flow is made, and the ClientHello sent.
//!
//! The answer to a SYN-ACK is longer than that, and few drivers leave room behind a frame at XDP. So the answers of Edges are handed to the program at
//! the ingress of traffic control, on whichever hook the rest is: there is room for any length, and a packet can be sent more than once.

use aya_ebpf::{
    bindings::{BPF_ANY, TC_ACT_UNSPEC},
    helpers::generated::{bpf_clone_redirect, bpf_skb_store_bytes},
    programs::TcContext,
};
use sni_common::{
    contract::{
        CONTROL_GENERATION, Counter, DropReason, Flow, FlowKey, Hook, Pool, Stage, client_options,
        limits::MAX_POOLS,
    },
    tcp::{self, ACK, PSH, RST, SYN, state},
    translate::{self, Leg, Timestamps},
};

use super::{EDGES_TRIED, cookie, give_back, outgoing, stream};
use crate::{
    answer::HOPS,
    capture,
    finish::finish,
    flow::move_to_flows,
    forward,
    frame::Frame as _,
    maps::{EDGES, FLOWS, HALF_OPEN, HELLOS, PENDING, POOLS, control},
    packet::{Kind, Packet, Segment, parse},
    scratch::{copy, scratch},
    verdict::{Outcome, Step},
};

/// Segments that a hello is sent in at most: its longest, in the smallest segments that every host takes (RFC 9293, 3.7.1).
const SEGMENTS: u32 = 6;
/// The smallest segment that a hello is cut into, a multiple of four: sums are over whole words.
const MIN_SEGMENT: u32 = 512;

/// How long an Edge that has answered without timestamps is taken to have none, in seconds: then a client finds out again.
const NO_TIMESTAMPS_S: u64 = 60;

/// What of a hello is yet to be sent; part of SCRATCH.
#[repr(C, align(8))]
pub struct Delivery {
    at: u32,
    left: u32,
    segment: u32,
    padding: u32,
}

/// An Edge's packet to an established flow whose hello is still kept: the step where it is a SYN-ACK, which comes again. Anything else says that the Edge
/// has the hello, or will be sent it by the client.
#[inline(always)]
pub fn early(segment: &Segment, entry: &mut Flow) -> Option<Step> {
    if segment.flags & (SYN | ACK) == SYN | ACK {
        return Some(Step::Pass(Counter::EdgeAnswers));
    }
    // Nobody else's word is taken for it.
    if !tcp::plausible(segment.seq, entry.next_seq) {
        return None;
    }
    entry.state &= !state::HELLO_KEPT;
    let client = entry.rewrite.reversed();
    let _ = PENDING.remove(&client);
    let _ = HELLOS.remove(&client);
    None
}

/// The answer of an Edge, as the program before has left it.
#[inline(always)]
pub fn answer(ctx: &TcContext) -> i32 {
    let Some(scratch) = scratch() else {
        return TC_ACT_UNSPEC;
    };
    let packet = &mut scratch.packet;
    if !matches!(parse(ctx, packet), Kind::Tcp) {
        return TC_ACT_UNSPEC;
    }
    capture::begin(ctx, packet, Hook::Behind);
    let mut outcome = if stream::is_damaged(ctx, packet) != 0 {
        Outcome::drop(DropReason::BadChecksum)
    } else {
        edge_answers(ctx, packet)
    };
    if outcome.is(Outcome::AGAIN) {
        outcome = send(ctx, packet);
    }
    let verdict = outcome.verdict(ctx, packet);
    finish(ctx, packet, verdict)
}

/// What an answer means; [`Outcome::AGAIN`] where the hello is to be sent. A function of its own, for the sake of the stack.
#[inline(never)]
fn edge_answers(ctx: &TcContext, packet: &Packet) -> Outcome {
    let (Ok(segment), Some(scratch)) = (packet.segment(ctx), scratch()) else {
        return Outcome::drop(DropReason::Truncated);
    };
    let half_open = HALF_OPEN.get_ptr_mut(&packet.key);
    let Some(entry) = half_open.or_else(|| FLOWS.get_ptr_mut(&packet.key)) else {
        return Outcome::drop(DropReason::NoFlow);
    };
    // SAFETY: a live map value.
    let client = unsafe { (*entry).rewrite.reversed() };
    let Some(pending) = PENDING.get_ptr(&client) else {
        return Outcome::drop(DropReason::LateAnswer);
    };
    // SAFETY: a live map value.
    copy(&mut scratch.pending, unsafe { &*pending });
    let is_ours =
        segment.flags & ACK != 0 && segment.ack == scratch.pending.client_isn.wrapping_add(1);
    let is_syn_ack = is_ours && segment.flags & SYN != 0;
    if is_syn_ack
        && (cookie::load_header(ctx, packet, scratch).is_err()
            || cookie::read_syn(ctx, packet).is_err())
    {
        return Outcome::drop(DropReason::BadDataOffset);
    }
    if half_open.is_none() {
        // The hello, or its acknowledgement, was lost.
        return if is_syn_ack {
            Outcome::AGAIN
        } else {
            Outcome::drop(DropReason::NoFlow)
        };
    }
    if segment.flags & RST != 0 {
        return if is_ours {
            refused(ctx, packet, &client)
        } else {
            Outcome::drop(DropReason::NoFlow)
        };
    }
    if segment.flags & ACK == 0 {
        return Outcome::drop(DropReason::NoFlow);
    }
    if !is_syn_ack {
        // A socket that is left of an earlier connection (RFC 9293, 3.10.7.4 and 3.5.2). The client's next repetition finds it gone.
        return Outcome::reset(DropReason::StaleEdge);
    }
    match establish(ctx, packet, &client) {
        Ok(()) => Outcome::AGAIN,
        // The agent takes the client's next repetition.
        Err(reason) => {
            if let Some(scratch) = self::scratch() {
                scratch.pending.stage = Stage::Agent as u8;
                let _ = PENDING.insert(&client, &scratch.pending, BPF_ANY.into());
            }
            let _ = HELLOS.remove(&client);
            let _ = HALF_OPEN.remove(&client);
            let _ = HALF_OPEN.remove(&packet.key);
            give_back(&client.source);
            Outcome::reset(reason)
        }
    }
}

/// The handshake with the Edge is complete: makes the flow. The SYN-ACK's options stand in SCRATCH's `syn`.
#[inline(never)]
fn establish(ctx: &TcContext, packet: &Packet, client: &FlowKey) -> Result<(), DropReason> {
    let segment = packet.segment(ctx)?;
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let to_client = HALF_OPEN
        .get_ptr_mut(&packet.key)
        .ok_or(DropReason::NoFlow)?;
    let to_edge = HALF_OPEN.get_ptr_mut(client).ok_or(DropReason::NoFlow)?;
    // SAFETY: live map values.
    let (to_client_entry, to_edge_entry) = unsafe { (&mut *to_client, &mut *to_edge) };
    let (pending, syn) = (&scratch.pending, &scratch.syn);
    let both = pending.options & syn.options;
    let has_timestamps = pending.options & client_options::TIMESTAMPS != 0;
    if has_timestamps && both & client_options::TIMESTAMPS == 0 {
        if let Some(edge) = EDGES.get_ptr_mut(to_edge_entry.edge.into()) {
            // SAFETY: a live map value; one word.
            unsafe {
                (*edge).no_timestamps_until_s = (forward::now_s() + NO_TIMESTAMPS_S) as u32;
            }
        }
        // All systems but Linux would drop what the Edge sends (RFC 7323, 3.2).
        if pending.options & client_options::LINUX == 0 {
            return Err(DropReason::NoTimestamps);
        }
    }
    let is_scaled = pending.options & client_options::SCALE != 0;
    // On one leg alone they are as good as on none.
    let has_both = both & client_options::TIMESTAMPS != 0;
    // Not `then_some`: the verifier would see what is in none of the cases read.
    let timestamps = |own, peer| {
        if has_both {
            Some(Timestamps { own, peer })
        } else {
            None
        }
    };
    let client_leg = Leg {
        write_seq: pending.cookie.wrapping_add(1),
        read_seq: pending.client_isn.wrapping_add(1),
        timestamps: timestamps(pending.ts_echo, pending.ts_value),
        sack: pending.options & client_options::SACK != 0,
        peer_scale: if is_scaled { pending.scale } else { 0 },
        own_scale: if is_scaled { pending.own_scale } else { 0 },
    };
    let edge_is_scaled = both & client_options::SCALE != 0;
    let edge_leg = Leg {
        write_seq: pending.client_isn.wrapping_add(1),
        read_seq: segment.seq.wrapping_add(1),
        timestamps: timestamps(pending.ts_value, syn.ts_value),
        sack: both & client_options::SACK != 0,
        peer_scale: if edge_is_scaled { syn.scale } else { 0 },
        own_scale: if edge_is_scaled { pending.scale } else { 0 },
    };
    (to_edge_entry.translation, to_client_entry.translation) =
        translate::bound(&client_leg, &edge_leg);
    to_client_entry.state = state::HELLO_KEPT;
    to_client_entry.next_seq = segment.seq.wrapping_add(1);
    to_client_entry.last_ack = segment.ack;
    to_client_entry.last_seen_ns = forward::now();
    to_edge_entry.next_seq = pending
        .client_isn
        .wrapping_add(1)
        .wrapping_add(pending.received.into());
    to_edge_entry.last_ack = pending.cookie.wrapping_add(1);
    move_to_flows(ctx, packet, to_client)?;
    scratch.pending.stage = Stage::Delivered as u8;
    let _ = PENDING.insert(client, &scratch.pending, BPF_ANY.into());
    give_back(&client.source);
    Ok(())
}

/// Turns an Edge's SYN-ACK, whose options stand in SCRATCH's `syn`, into the segments that acknowledge it and carry the hello.
#[inline(never)]
fn send(ctx: &TcContext, packet: &mut Packet) -> Outcome {
    let (Ok(segment), Some(scratch), Some(entry)) =
        (packet.segment(ctx), scratch(), FLOWS.get_ptr(&packet.key))
    else {
        return Outcome::drop(DropReason::NoFlow);
    };
    // SAFETY: a live map value.
    let client = &unsafe { (*entry).rewrite.reversed() };
    let Some(flow) = FLOWS.get_ptr_mut(client) else {
        return Outcome::drop(DropReason::NoFlow);
    };
    // SAFETY: a live map value.
    let flow = unsafe { &mut *flow };
    if !stream::recall(client) || !outgoing::begin(ctx, packet, &mut scratch.outgoing) {
        // The client repeats it.
        return Outcome::drop(DropReason::LateAnswer);
    }
    let (pending, syn, out) = (&scratch.pending, &scratch.syn, &mut scratch.outgoing);
    let both = pending.options & syn.options;
    copy(&mut out.key, &flow.rewrite);
    out.seq = pending.client_isn.wrapping_add(1);
    out.ack = segment.seq.wrapping_add(1);
    out.hops = HOPS.into();
    let scale = if both & client_options::SCALE != 0 {
        pending.scale & 15
    } else {
        0
    };
    out.window = (pending.window >> scale).min(u16::MAX.into());
    out.options
        .of_segment(both, (pending.ts_value, syn.ts_value));
    let headers = if packet.v4 { 40 } else { 60 };
    let mut largest = u32::from(syn.mss);
    let mtu = flow.next_hop.mtu;
    if mtu > headers && mtu - headers < largest {
        largest = mtu - headers;
    }
    let segment_size = (largest.saturating_sub(out.options.length) & !3).max(MIN_SEGMENT);
    scratch.delivery = Delivery {
        at: 0,
        left: pending.received.into(),
        segment: segment_size,
        padding: 0,
    };
    let mut number = 0;
    while number < SEGMENTS {
        number += 1;
        if let Err(reason) = write(ctx) {
            return Outcome::drop(reason);
        }
        if let Err(reason) = ctx.set_ethernet(packet, &flow.next_hop) {
            return Outcome::drop(reason);
        }
        flow.packets += 1;
        flow.bytes += u64::from(headers + scratch.outgoing.options.length);
        if packet.tags != flow.next_hop.tags {
            // The outer one is the kernel's, beside the frame.
            packet.tags = flow.next_hop.tags;
            let inner = u32::from(packet.tags[1].protocol_be != 0) * 4;
            scratch.outgoing.network = 14 + inner;
        }
        if scratch.delivery.left == 0 {
            break;
        }
        // SAFETY: a valid context. What can't be sent the client repeats.
        unsafe { bpf_clone_redirect(ctx.skb.skb, flow.next_hop.ifindex, 0) };
    }
    flow.bytes += u64::from(pending.received);
    flow.last_seen_ns = forward::now();
    packet.leaves_by.set(flow.next_hop.ifindex);
    Outcome::sent(Counter::HellosDelivered)
}

/// Writes the next segment of the hello.
#[inline(never)]
fn write(ctx: &TcContext) -> Result<(), DropReason> {
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let Delivery {
        at, left, segment, ..
    } = scratch.delivery;
    let length = left.min(segment);
    scratch.outgoing.payload_sum = stream::sum(at, length)?;
    let out = &mut scratch.outgoing;
    out.payload = length;
    out.flags = if length == left { ACK | PSH } else { ACK }.into();
    outgoing::write(ctx)?;
    let ip = if out.key.source.is_v4() { 20 } else { 40 };
    let payload = out.network + ip + tcp::HEADER_LEN as u32 + out.options.length;
    let (from, size) = (stream::within(at), stream::within(length));
    if size == 0 {
        return Err(DropReason::Incoherent);
    }
    let size = stream::within_and_not_zero(size);
    // SAFETY: within, by the masks; a valid context.
    let answer = unsafe {
        let from = scratch.stream.as_ptr().add(from as usize);
        bpf_skb_store_bytes(ctx.skb.skb, payload, from.cast(), size as u32, 0)
    };
    if answer != 0 {
        return Err(DropReason::NoRoom);
    }
    out.seq = out.seq.wrapping_add(length);
    scratch.delivery.at = at + length;
    scratch.delivery.left = left - length;
    Ok(())
}

/// The Edge does not want the connection: the client's next repetition of its hello goes to another one; where there is none, the client is told.
#[inline(never)]
fn refused(ctx: &TcContext, packet: &Packet, client: &FlowKey) -> Outcome {
    let Some(scratch) = scratch() else {
        return Outcome::drop(DropReason::Incoherent);
    };
    let pending = &mut scratch.pending;
    let generation = control(CONTROL_GENERATION) as u32;
    let index = Pool::index(generation, pending.pool & (MAX_POOLS - 1));
    let others = POOLS.get(index).is_some_and(|pool| pool.count > 1);
    if others && pending.tries < EDGES_TRIED {
        pending.since_ns = 0;
        let _ = PENDING.insert(client, &*pending, BPF_ANY.into());
        return Outcome::drop(DropReason::EdgeRefused);
    }
    let Some(flow) = HALF_OPEN.get_ptr(&packet.key) else {
        return Outcome::drop(DropReason::NoFlow);
    };
    // SAFETY: a live map value.
    let flow = unsafe { &*flow };
    let out = &mut scratch.outgoing;
    if !outgoing::begin(ctx, packet, out) {
        return Outcome::drop(DropReason::Unanswerable);
    }
    copy(&mut out.key, &flow.rewrite);
    out.seq = pending.cookie.wrapping_add(1);
    out.ack = pending
        .client_isn
        .wrapping_add(1)
        .wrapping_add(pending.received.into());
    out.flags = (RST | ACK).into();
    out.window = 0;
    out.hops = HOPS.into();
    out.options.of_segment(0, (0, 0));
    let hop = flow.next_hop;
    if outgoing::write(ctx).is_err() || ctx.set_ethernet(packet, &hop).is_err() {
        return Outcome::drop(DropReason::NoRoom);
    }
    packet.leaves_by.set(hop.ifindex);
    give_back(&client.source);
    let _ = PENDING.remove(client);
    let _ = HELLOS.remove(client);
    let _ = HALF_OPEN.remove(client);
    let _ = HALF_OPEN.remove(&packet.key);
    // What the Edge has said goes on to the client.
    Outcome::sent(Counter::Forwarded)
}
