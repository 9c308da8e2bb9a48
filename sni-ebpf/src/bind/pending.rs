//! A packet of a client to a service whose connections the datapath begins by itself, as long as no flow is known: from the SYN to the ClientHello.
//!
//! Nothing is kept before a cookie has come back. What can't be bound goes to the host untouched, from the ClientHello's first segment on, and the host
//! completes the connection from the cookie.

use aya_ebpf::bindings::BPF_ANY;
use sni_common::{
    contract::{Announced, CONTROL_ANNOUNCED, Counter, DropReason, HELLO_ROOM, Pending, Stage},
    hello::Answer,
    tcp::{FIN, HEADER_LEN, Opening, opening},
};

use super::{cookie, outgoing, stream};
use crate::{
    finish::count,
    frame::Frame,
    lookup::Inspecting,
    maps::{FLOWS, HELLOS, PENDING, control},
    packet::{Packet, Segment},
    scratch::{copy, scratch},
    socket, splice,
    steer::admit_source,
    verdict::{Outcome, Verdict},
};

/// Bytes that timestamps take in a header, with the NOPs before them.
const TIMESTAMPS: u32 = 12;

/// A packet that no flow claims.
#[inline(always)]
pub fn packet(ctx: &impl Frame, packet: &Packet, service: &Inspecting, announced: u64) -> Verdict {
    // What is malformed is for the host to judge: no Edge sees it.
    let Ok(segment) = packet.segment(ctx) else {
        return Verdict::Pass(Counter::Inspected);
    };
    match opening(segment.flags) {
        Opening::Syn => syn(ctx, packet, announced),
        Opening::MidStream => mid_stream(ctx, packet, service).verdict(ctx, packet),
        Opening::Reset => {
            forget(packet);
            Verdict::Pass(Counter::Inspected)
        }
        Opening::Invalid => Verdict::Pass(Counter::Inspected),
    }
}

#[inline(always)]
fn syn(ctx: &impl Frame, packet: &Packet, announced: u64) -> Verdict {
    if let Err(reason) = admit_source(&packet.key.source) {
        return Verdict::Drop(reason);
    }
    // What a SYN offers holds for as long as its connection.
    if stream::is_damaged(ctx, packet) != 0 {
        return Verdict::Drop(DropReason::BadChecksum);
    }
    // The client begins anew.
    if PENDING.get_ptr(&packet.key).is_some() {
        forget(packet);
    }
    // A socket with this very tuple knows better what a SYN means to it (RFC 9293, 3.10.7.4).
    let has_socket = socket::state(ctx.as_ptr(), &packet.key).is_some();
    if !has_socket && cookie::answer(ctx, packet, announced).is_ok() {
        return Verdict::Greet(Counter::Cookies);
    }
    splice::client_syn(ctx, packet);
    Verdict::Pass(Counter::Inspected)
}

/// Forgets what is pending of a client.
#[inline(always)]
pub fn forget(packet: &Packet) {
    let _ = PENDING.remove(&packet.key);
    let _ = HELLOS.remove(&packet.key);
}

/// A segment behind the SYN. A function of its own, for the sake of the stack.
#[inline(never)]
fn mid_stream(ctx: &impl Frame, packet: &Packet, service: &Inspecting) -> Outcome {
    let host = Outcome::pass(Counter::Inspected);
    let (Ok(segment), Some(scratch)) = (packet.segment(ctx), scratch()) else {
        return host;
    };
    match PENDING.get_ptr(&packet.key) {
        // SAFETY: a live map value.
        Some(pending) => copy(&mut scratch.pending, unsafe { &*pending }),
        None => {
            // A connection of the agent's, or one that is over.
            if socket::state(ctx.as_ptr(), &packet.key).is_some() {
                return host;
            }
            if accept(ctx, packet, &segment).is_err() {
                return Outcome::pass(Counter::BadCookies);
            }
            // Numbers that are wrong by one to three pass for the cookie of another segment size.
            if stream::is_damaged(ctx, packet) != 0 {
                return Outcome::drop(DropReason::BadChecksum);
            }
            scratch.pending.ip_set = service.ip_set;
            if segment.flags & FIN == 0 {
                save(packet, &scratch.pending);
            }
        }
    }
    let stage = scratch.pending.stage;
    if (stage == Stage::Bound as u8 || stage == Stage::Delivered as u8)
        && FLOWS.get_ptr(&packet.key).is_some()
    {
        // The Edge's answer has made the flow on another processor, between this one's looks at FLOWS and HALF_OPEN. The client repeats what it said.
        return Outcome::drop(DropReason::EarlyData);
    }
    if segment.flags & FIN != 0 {
        // The client gives up. The host answers, or the agent hears of it.
        forget(packet);
        return host;
    }
    if scratch.pending.stage == Stage::Host as u8 {
        // Its socket knows the rest, once it is there.
        if socket::state(ctx.as_ptr(), &packet.key).is_some() {
            forget(packet);
        }
        return host;
    }
    if scratch.pending.stage == Stage::Agent as u8 {
        return left(ctx, packet, &segment, Counter::Inspected);
    }
    if segment.len == 0 {
        return Outcome::keep(Counter::CookieAcks);
    }
    match collect(ctx, packet, &segment) {
        Collected::Bindable => super::begin(ctx, packet, service),
        Collected::Part => Outcome::keep(Counter::HelloParts),
        Collected::Left => leave(ctx, packet, &segment, Counter::LeftHello),
        Collected::Unknown => leave(ctx, packet, &segment, Counter::LeftName),
        Collected::Damaged => Outcome::drop(DropReason::BadChecksum),
        Collected::Beyond => Outcome::drop(DropReason::EarlyData),
    }
}

/// Whether a segment acknowledges a cookie, as the first one of the client's stream, or as the second one, which has overtaken the first: the host would
/// answer that with a reset. The first one is as long as we have announced.
#[inline(always)]
fn accept(ctx: &impl Frame, packet: &Packet, segment: &Segment) -> Result<(), DropReason> {
    let slot = control(CONTROL_ANNOUNCED);
    let first = cookie::accept(ctx, packet, slot, 0);
    if first.is_ok() || segment.len == 0 {
        return first;
    }
    let announced = Announced::from_slot(slot).ok_or(DropReason::Incoherent)?;
    let mss = if packet.v4 {
        announced.mss_v4
    } else {
        announced.mss_v6
    };
    // Timestamps are in every segment or in none; what else there may be is in this one.
    let options = if packet.header_length(ctx)? >= HEADER_LEN as u32 + TIMESTAMPS {
        TIMESTAMPS
    } else {
        0
    };
    cookie::accept(ctx, packet, slot, u32::from(mss).wrapping_sub(options))
}

/// Writes what is pending.
#[inline(always)]
pub fn save(packet: &Packet, pending: &Pending) {
    let _ = PENDING.insert(&packet.key, pending, BPF_ANY.into());
}

/// Leaves a connection to the agent: this segment, if it is the stream's first one, and all that come after it. What was kept of it the client sends
/// again.
#[inline(always)]
pub fn leave(ctx: &impl Frame, packet: &Packet, segment: &Segment, counter: Counter) -> Outcome {
    if let Some(scratch) = scratch() {
        scratch.pending.stage = Stage::Agent as u8;
        save(packet, &scratch.pending);
        let _ = HELLOS.remove(&packet.key);
    }
    left(ctx, packet, segment, counter)
}

/// A segment of a connection that is the agent's.
#[inline(always)]
fn left(ctx: &impl Frame, packet: &Packet, segment: &Segment, counter: Counter) -> Outcome {
    let host = Outcome::pass(counter);
    let Some(scratch) = scratch() else {
        return host;
    };
    if cookie::stream_offset(segment, &scratch.pending) == 0 {
        // The host makes a socket of this one, before it looks at what comes right behind it.
        if cookie::note(ctx, packet).is_ok() {
            cookie::remember(&packet.key, &scratch.pending);
        }
        scratch.pending.stage = Stage::Host as u8;
        save(packet, &scratch.pending);
        return host;
    }
    // The host would answer it with a reset, as long as there is no socket.
    if socket::state(ctx.as_ptr(), &packet.key).is_some() {
        return host;
    }
    // Left by this one, although an earlier one is what passes.
    if counter as u32 != Counter::Inspected as u32 {
        count(counter, 1);
    }
    Outcome::drop(DropReason::EarlyData)
}

/// What a segment with data has come to.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Collected {
    /// The whole ClientHello is there, and it has a name.
    Bindable,
    /// More of it must come.
    Part,
    /// It is not one that is read here.
    Left,
    /// Its name can't be bound.
    Unknown,
    /// Its checksum is wrong.
    Damaged,
    /// It lies where no hello is.
    Beyond,
}

/// Takes the bytes of a segment. A function of its own, for the sake of the stack.
#[inline(never)]
fn collect(ctx: &impl Frame, packet: &Packet, segment: &Segment) -> Collected {
    let Some(scratch) = scratch() else {
        return Collected::Left;
    };
    let length = segment.len;
    let offset = cookie::stream_offset(segment, &scratch.pending);
    if offset >= HELLO_ROOM as u32 {
        return Collected::Beyond;
    }
    if offset + length > HELLO_ROOM as u32 {
        return if offset == 0 {
            Collected::Left
        } else {
            Collected::Beyond
        };
    }
    if !outgoing::begin(ctx, packet, &mut scratch.outgoing) || cookie::note(ctx, packet).is_err() {
        return Collected::Left;
    }
    let received = u32::from(scratch.pending.received);
    let ahead = u32::from(scratch.pending.ahead);
    if offset != 0 && offset < received {
        return Collected::Part;
    }
    // What is there already is needed, too.
    let recalled = (received == 0 && ahead == 0) || stream::recall(&packet.key);
    if !recalled {
        scratch.pending.received = 0;
        scratch.pending.ahead = 0;
    }
    if stream::load(ctx, packet, offset, length).is_err() {
        return Collected::Left;
    }
    if stream::verify(packet, offset, length).is_err() {
        return Collected::Damaged;
    }
    let pending = &mut scratch.pending;
    if offset != 0 && offset != u32::from(pending.received) {
        // It has overtaken what comes before it.
        pending.ahead = offset as u16;
        pending.ahead_length = length as u16;
        return part(packet);
    }
    let mut end = offset + length;
    if pending.ahead != 0 && u32::from(pending.ahead) == end {
        end += u32::from(pending.ahead_length);
    }
    pending.received = end as u16;
    match stream::walk(end) {
        Answer::Found => Collected::Bindable,
        Answer::Incomplete { named: true, .. } if super::is_known(packet) => part(packet),
        Answer::Incomplete { named: true, .. } => Collected::Unknown,
        _ => Collected::Left,
    }
}

/// Keeps what has come so far.
#[inline(always)]
fn part(packet: &Packet) -> Collected {
    let Some(scratch) = scratch() else {
        return Collected::Left;
    };
    scratch.pending.stage = Stage::Hello as u8;
    save(packet, &scratch.pending);
    if stream::keep(&packet.key) {
        Collected::Part
    } else {
        Collected::Left
    }
}

/// Keeps what a client sends behind its hello, as far as there is room: the window that it was given has as much. `false` where it does not follow at once
/// on what there is.
#[inline(never)]
pub fn append(ctx: &impl Frame, packet: &Packet, offset: u32, length: u32) -> bool {
    let Some(scratch) = scratch() else {
        return false;
    };
    if offset != u32::from(scratch.pending.received)
        || offset + length > HELLO_ROOM as u32
        || !stream::recall(&packet.key)
        || stream::load(ctx, packet, offset, length).is_err()
        || stream::verify(packet, offset, length).is_err()
        || !stream::keep(&packet.key)
    {
        return false;
    }
    scratch.pending.received += length as u16;
    save(packet, &scratch.pending);
    true
}
