//! Packets shown to whoever asks for them (`snigate capture`), each with what became of it. Nothing here decides anything about a packet.
//!
//! A packet is shown as it came in, whatever is done to it: [`note`] copies its first bytes before that, and [`tell_captured`] hands them over when its fate is
//! known. Both are functions of their own that nobody calls while nobody captures: of those who forward packets that costs one look at CONTROL.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output};
use sni_common::{
    Address,
    contract::{
        CONTROL_CAPTURE, Captured, Capturing, Counter, DropReason, Edge, FILTER_EDGES,
        FILTER_SERVICES, Fate, FlowKey, Hook, MAX_SNAP, Prefix, VlanTag, filter_bit,
    },
};

use crate::{
    finish::count,
    frame::Frame,
    lookup::{self, in_filter},
    maps::{CAPTURED, CAPTURING, CONTROL, EDGES, control},
    packet::{Packet, not_zero},
    scratch::{Scratch, copy, scratch},
    verdict::Verdict,
};

const SNAP_MASK: u32 = MAX_SNAP as u32 - 1;

/// A packet as it came in; part of SCRATCH.
#[repr(C, align(8))]
pub struct Seen {
    head: Captured,
    bytes: [u8; MAX_SNAP],
}

/// Whether somebody captures; it may be over already.
#[inline(always)]
pub fn is_wanted() -> bool {
    control(CONTROL_CAPTURE) != 0
}

/// Notes a packet before anything is done to it, where somebody captures.
#[inline(always)]
pub fn begin(ctx: &impl Frame, packet: &Packet, hook: Hook) {
    if is_wanted() {
        packet.noted.set(note(ctx, &packet.key, hook as u32));
    }
}

/// Tells what became of a packet, where it was noted.
#[inline(always)]
pub fn end(packet: &Packet, verdict: &Verdict) {
    if packet.noted.get() != 0 {
        tell_captured(packet.leaves_by.get(), verdict.number());
    }
}

/// Shows a packet that is dropped without having been parsed.
#[inline(never)]
pub fn dropped(ctx: &impl Frame, key: &FlowKey, reason: DropReason) {
    if note(ctx, key, Hook::Behind as u32) != 0 {
        tell_captured(0, Verdict::Drop(reason).number());
    }
}

/// Shows a connection that is refused where there is no packet to be seen.
#[inline(never)]
pub fn refused(key: &FlowKey, ifindex: u32, reason: DropReason) {
    let Some((scratch, wanted)) = running() else {
        return;
    };
    if is_of_interest(wanted, key, ifindex) {
        head(scratch, wanted, key, ifindex, Hook::SocketLookup as u32);
        tell_captured(0, Verdict::Drop(reason).number());
    }
}

/// Copies the first bytes of a packet to SCRATCH; 0 where nobody wants to see it whatever becomes of it.
#[inline(never)]
fn note(ctx: &impl Frame, key: &FlowKey, hook: u32) -> u32 {
    let Some((scratch, wanted)) = running() else {
        return 0;
    };
    if !may_be_ours(key) || !is_of_interest(wanted, key, ctx.interface()) {
        return 0;
    }
    head(scratch, wanted, key, ctx.interface(), hook);
    let seen = &mut scratch.capture;
    let length = ctx.length();
    let taken = if length < wanted.snap {
        length
    } else {
        wanted.snap
    };
    let taken = not_zero::<SNAP_MASK>(taken.into()) as u32;
    seen.head.length = length;
    seen.head.taken = taken;
    seen.head.tag = ctx.tag();
    let bytes = seen.bytes.as_mut_ptr().cast::<c_void>();
    u32::from(ctx.load_bytes(0, bytes, taken))
}

/// Hands over what was noted, if it is wanted for what became of it; `number` is [`Verdict::number`].
///
/// A global function, of numbers only: the verifier follows it once, by itself, and not again from each of the many places where a packet's fate is known.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn tell_captured(leaves_by: u32, number: u32) -> u32 {
    let Some((scratch, wanted)) = running() else {
        return 0;
    };
    let head = &mut scratch.capture.head;
    // Nobody's of ours: on a busy host that is nearly everything.
    if number == const { Verdict::Pass(Counter::Passed).number() } {
        return 0;
    }
    let (fate, number) = (number >> 8, number & 0xff);
    if wanted.fates >> (fate & 31) & 1 == 0 {
        return 0;
    }
    if Fate::DROPS >> (fate & 31) & 1 != 0 && wanted.reasons >> (number & 63) & 1 == 0 {
        return 0;
    }
    // What has become a flow by this packet is one by now.
    if let Some(flow) = lookup::flow(&head.key) {
        // SAFETY: a live map value.
        unsafe {
            head.edge = u32::from((*flow).edge) + 1;
            head.direction = (*flow).direction;
        }
    }
    if wanted.edge != 0 && wanted.edge != head.edge && !is_of_edge(wanted.edge - 1, &head.key) {
        return 0;
    }
    (head.fate, head.number) = (fate as u8, number as u8);
    if fate == Fate::Forwarded as u32 {
        head.leaves_by = leaves_by;
    }
    let taken = head.taken;
    let admitted = scratch
        .capture_budget
        .take(head.at_ns, wanted.millirate, wanted.burst);
    if !admitted || !output(scratch, taken) {
        count(Counter::CaptureLost, 1);
    }
    0
}

/// Puts the record into the ring, with as many bytes behind it.
#[inline(always)]
fn output(scratch: &Scratch, taken: u32) -> bool {
    const HEAD: u64 = size_of::<Captured>() as u64;
    let length = if taken == 0 {
        HEAD
    } else {
        HEAD + not_zero::<SNAP_MASK>(taken.into())
    };
    let record = (&raw const scratch.capture).cast_mut().cast::<c_void>();
    // SAFETY: the map, and a record that long: its bytes are behind it.
    unsafe { bpf_ringbuf_output((&raw const CAPTURED).cast_mut().cast(), record, length, 0) == 0 }
}

/// The capture that is in force. One that has run out is forgotten, so that the next packets don't ask for it.
#[inline(always)]
fn running() -> Option<(&'static mut Scratch, &'static Capturing)> {
    let until = CONTROL.get_ptr_mut(CONTROL_CAPTURE)?;
    // SAFETY: a live map value.
    if now() > unsafe { *until } {
        // SAFETY: likewise. Whoever has just put it off will do so again.
        unsafe { *until = 0 };
        return None;
    }
    Some((scratch()?, CAPTURING.get(0)?))
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without conditions. Not the coarse clock: packets of one tick are to stay in order.
    unsafe { bpf_ktime_get_ns() }
}

/// Whether a service or an Edge may have to do with it: without ports, of an ICMP error or a fragment, nobody knows yet.
#[inline(always)]
fn may_be_ours(key: &FlowKey) -> bool {
    key.ports_word() == 0
        || in_filter(FILTER_SERVICES + filter_bit(&key.destination, key.destination_port_be))
        || in_filter(FILTER_EDGES + filter_bit(&key.source, key.source_port_be))
}

/// Whether a packet may be wanted by where it comes from and goes to.
#[inline(always)]
fn is_of_interest(wanted: &Capturing, key: &FlowKey, ifindex: u32) -> bool {
    if wanted.ifindex != 0 && wanted.ifindex != ifindex {
        return false;
    }
    let (one, other) = (&wanted.one_end, &wanted.other_end);
    let (no_one, no_other) = (misses(one, key), misses(other, key));
    if no_one == 0 && no_other == 0 {
        return true;
    }
    // What an Edge sends may have the gateway's addresses; the flow has the client's and the public one.
    let Some(flow) = lookup::flow(key) else {
        return false;
    };
    // SAFETY: a live map value.
    let leaves = unsafe { &(*flow).rewrite };
    if no_one != 0 && misses(one, leaves) != 0 {
        return false;
    }
    no_other == 0 || misses(other, leaves) == 0
}

/// 0 where an end of a packet is in a prefix.
#[inline(always)]
fn misses(prefix: &Prefix, key: &FlowKey) -> u64 {
    let source = hidden(prefix.difference(&key.source));
    let destination = hidden(prefix.difference(&key.destination));
    source * destination
}

/// Whether a packet has an Edge's address.
#[inline(always)]
fn is_of_edge(slot: u32, key: &FlowKey) -> bool {
    let Some(Edge { address, .. }) = EDGES.get(slot) else {
        return false;
    };
    let is_at = Prefix {
        address: *address,
        mask: Address([u32::MAX; 4]),
    };
    misses(&is_at, key) == 0
}

/// A number that the optimiser knows nothing of: of words that are compared it would make a comparison for each, and keep what came of it, which to the
/// verifier are as many ways as there are outcomes of all together.
#[inline(always)]
fn hidden(number: u32) -> u64 {
    let mut number = u64::from(number);
    // SAFETY: a move.
    unsafe {
        core::arch::asm!(
            "{number} = {number}",
            number = inout(reg) number,
            options(pure, nomem, nostack)
        )
    };
    number
}

/// Begins a record.
#[inline(always)]
fn head(scratch: &mut Scratch, wanted: &Capturing, key: &FlowKey, ifindex: u32, hook: u32) {
    let head = &mut scratch.capture.head;
    head.at_ns = now();
    head.session = wanted.session;
    head.ifindex = ifindex;
    head.leaves_by = 0;
    head.edge = 0;
    head.direction = 0;
    head.length = 0;
    head.taken = 0;
    head.tag = VlanTag::default();
    head.hook = hook as u8;
    copy(&mut head.key, key);
}
