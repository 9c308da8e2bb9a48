//! The single exit: counts, samples events, shows packets to whoever captures, says a word of diagnostics where that is switched on, and returns the hook's action.

use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_redirect};
use sni_common::contract::{
    CONTROL_FLAGS, Counter, DropReason, Event, EventKind, FLAG_LOG, FlowKey, Stats,
};

use crate::{
    capture,
    frame::Frame,
    log,
    maps::{EVENTS, STATS, control},
    packet::Packet,
    verdict::Verdict,
};

/// Ends the work on a packet that was parsed.
#[inline(always)]
pub fn finish<C: Frame>(ctx: &C, packet: &Packet, verdict: Verdict) -> i32 {
    let logging = control(CONTROL_FLAGS) & FLAG_LOG != 0;
    capture::end(packet, &verdict);
    match verdict {
        Verdict::Pass(counter) => {
            count(counter, 1);
            // Not what is foreign: on a busy host that is nearly everything.
            if logging && !matches!(counter, Counter::Passed) {
                log::passed(ctx, &packet.key, counter);
            }
            C::PASS
        }
        Verdict::Forward(counter) => {
            if let Some(stats) = stats() {
                add(stats, Counter::Forwarded as u32, ctx.segments());
                add(
                    stats,
                    Counter::ForwardedBytes as u32,
                    u64::from(packet.length),
                );
                if !matches!(counter, Counter::Forwarded) {
                    add(stats, counter as u32, ctx.segments());
                }
            }
            if logging {
                log::forwarded(ctx, &packet.key, packet.leaves_by.get());
            }
            // SAFETY: a helper without conditions.
            unsafe { bpf_redirect(packet.leaves_by.get(), 0) as i32 }
        }
        Verdict::Answer(reason) => {
            count(Counter::Answered, 1);
            drop_event(ctx, packet, reason);
            if logging {
                log::dropped(ctx, &packet.key, reason);
            }
            // SAFETY: a helper without conditions.
            unsafe { bpf_redirect(ctx.interface(), 0) as i32 }
        }
        Verdict::Greet(counter) => {
            count(counter, 1);
            // SAFETY: a helper without conditions.
            unsafe { bpf_redirect(ctx.interface(), 0) as i32 }
        }
        Verdict::Keep(counter) => {
            count(counter, 1);
            C::DROP
        }
        Verdict::Drop(reason) => {
            count(Counter::Dropped, 1);
            drop_event(ctx, packet, reason);
            if logging {
                log::dropped(ctx, &packet.key, reason);
            }
            C::DROP
        }
    }
}

/// Ends the work on a packet that is not ours to understand.
#[inline(always)]
pub fn foreign<C: Frame>(_: &C, counter: Counter) -> i32 {
    count(counter, 1);
    C::PASS
}

/// Adds to a counter.
#[inline(always)]
pub fn count(counter: Counter, by: u64) {
    if let Some(stats) = stats() {
        add(stats, counter as u32, by);
    }
}

/// Counts a drop at another hook; without an event, whose fields are those of a frame.
#[inline(always)]
pub fn count_drop(reason: DropReason) {
    if let Some(stats) = stats() {
        add(stats, Counter::Dropped as u32, 1);
        add(stats, reason.index(), 1);
    }
}

/// Tells the agent; a full ring is counted.
#[inline(always)]
pub fn emit(kind: EventKind, reason: u32, key: &FlowKey, ifindex: u32, edge: u32) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        return count(Counter::EventsLost, 1);
    };
    let event = entry.as_mut_ptr();
    // SAFETY: reserved memory of the event's size; field by field, because a copy on the stack has no room.
    unsafe {
        (*event).kind = kind as u32;
        (*event).reason = reason;
        (*event).key = *key;
        (*event).ifindex = ifindex;
        (*event).edge = edge;
        (*event).padding = 0;
        (*event).at_ns = bpf_ktime_get_coarse_ns();
    }
    entry.submit(0);
}

/// Counts a drop and samples it: the first of a reason, then every power of two, then every 4096th, so that the agent learns of
/// each reason at once and of a flood in moderation.
#[inline(always)]
fn drop_event(ctx: &impl Frame, packet: &Packet, reason: DropReason) {
    let Some(stats) = stats() else { return };
    let nth = add(stats, reason.index(), 1);
    if nth & nth.wrapping_sub(1) == 0 || nth & 0xfff == 0 {
        emit(
            EventKind::Dropped,
            reason as u32,
            &packet.key,
            ctx.interface(),
            0,
        );
    }
}

#[inline(always)]
fn stats() -> Option<*mut Stats> {
    STATS.get_ptr_mut(0)
}

/// Adds to an entry and returns its new value. No atomics: the map is per CPU, and a program at this hook is not interrupted by itself.
#[inline(always)]
fn add(stats: *mut Stats, index: u32, by: u64) -> u64 {
    // SAFETY: the pointer is a live map value; indices come from the contract's enums, which are asserted to be within ENTRIES.
    unsafe {
        let entry = (&raw mut (*stats).0)
            .cast::<u64>()
            .add(index as usize & (sni_common::contract::stats::ENTRIES - 1));
        *entry = (*entry).wrapping_add(by);
        *entry
    }
}
