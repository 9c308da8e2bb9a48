//! The way out: next hop by the host's own routes, MTU, TTL, and the account of the flow.

use core::mem::{MaybeUninit, size_of};

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup,
    },
    helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_ktime_get_coarse_ns},
};
use sni_common::{
    Address,
    contract::{Counter, DropReason, EventKind, Flow, FlowKey, NextHop, VlanTag, Way},
};

use crate::{
    answer,
    finish::{count, emit},
    frame::Frame,
    maps::LINKS,
    packet::{Packet, at},
    rewrite, splice,
    verdict::Verdict,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// How long a next hop is trusted without asking the routing table again: a change of routes reaches established flows within this.
const NEXT_HOP_FRESH_NS: u64 = 1_000_000_000;
/// How long a next hop without a neighbour entry is used on before the agent is asked again.
const NEXT_HOP_STALE_NS: u64 = 100_000_000;

/// Monotonic clock, nanoseconds: the coarse one (a tick), which is enough for idleness, and cheap.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without conditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The same in seconds.
#[inline(always)]
pub fn now_s() -> u64 {
    now() / 1_000_000_000
}

/// Why a packet can't leave.
pub enum Refusal {
    /// It has run out of hops.
    Hops,
    /// It is longer than the next hop's MTU.
    TooBig,
    /// There is no way.
    NoWay(DropReason),
}

/// Translates a TCP packet of `flow` and sends it on its way; `counter` is counted beside `forwarded`.
#[inline(always)]
pub fn segment(ctx: &impl Frame, packet: &Packet, flow: *mut Flow, counter: Counter) -> Verdict {
    // SAFETY: a live map value. Packets of one flow on two CPUs may race for the account, and for an equal next hop.
    let flow = unsafe { &mut *flow };
    // Route before rewriting: what can't be sent is answered or dropped as it came.
    let now = now();
    match route(ctx, packet, flow, now) {
        Ok(()) => {
            flow.last_seen_ns = now;
            flow.packets += ctx.segments();
            flow.bytes += u64::from(packet.length);
        }
        Err(Refusal::Hops) => return answer::time_exceeded(ctx, packet),
        Err(Refusal::TooBig) => return answer::too_big(ctx, packet, flow.next_hop.mtu),
        Err(Refusal::NoWay(reason)) => return Verdict::Drop(reason),
    }
    let rewritten = if flow.way != Way::Steered as u8 {
        splice::rewrite(ctx, packet, flow)
    } else {
        rewrite::tcp(ctx, packet, flow)
    };
    match rewritten {
        Ok(()) => leave(ctx, packet, &flow.next_hop, counter),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Finds the next hop of a packet in `flow`'s direction, as it is `now`, and checks hops and MTU.
#[inline(always)]
pub fn route(ctx: &impl Frame, packet: &Packet, flow: &mut Flow, now: u64) -> Result<(), Refusal> {
    if packet.hops <= 1 {
        return Err(Refusal::Hops);
    }
    if now > flow.next_hop_until_ns {
        refresh(ctx, packet, flow, now).map_err(Refusal::NoWay)?;
    }
    let mtu = flow.next_hop.mtu;
    if mtu != 0 && packet.length > mtu && on_the_wire(ctx, packet) > mtu {
        return Err(Refusal::TooBig);
    }
    Ok(())
}

/// Length of the longest IP packet that this one becomes on the wire: what the kernel has merged, it cuts again.
#[inline(always)]
fn on_the_wire(ctx: &impl Frame, packet: &Packet) -> u32 {
    let segment = ctx.segment_size();
    if segment == 0 {
        return packet.length;
    }
    // The data offset (RFC 9293, 3.1) was looked at before.
    let offset = match at::<u8>(ctx, packet.transport + 12) {
        // SAFETY: bounds checked by `at`.
        Some(offset) => unsafe { *offset },
        None => 0,
    };
    (packet.transport - packet.network) as u32 + u32::from(offset >> 4) * 4 + segment
}

/// Asks the routing and neighbour tables. A function of its own: most packets need none of it.
#[inline(never)]
pub fn refresh(
    ctx: &impl Frame,
    packet: &Packet,
    flow: &mut Flow,
    now: u64,
) -> Result<(), DropReason> {
    let mut fib = MaybeUninit::<bpf_fib_lookup>::uninit();
    let words = fib.as_mut_ptr().cast::<u32>();
    // Volatile, word by word: LLVM makes a bytewise loop of `zeroed`.
    for i in 0..size_of::<bpf_fib_lookup>() / size_of::<u32>() {
        // SAFETY: within the structure.
        unsafe { words.add(i).write_volatile(0) };
    }
    // SAFETY: all zeros are a valid value of this C structure.
    let fib = unsafe { fib.assume_init_mut() };
    fib.l4_protocol = IPPROTO_TCP;
    fib.sport = flow.rewrite.source_port_be;
    fib.dport = flow.rewrite.destination_port_be;
    fib.ifindex = ctx.interface();
    // Not this packet's length but the smallest: the answer then carries the path's MTU, and the comparison is ours.
    fib.__bindgen_anon_1.tot_len = 1;
    if packet.v4 {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = flow.rewrite.source.v4_word();
        fib.__bindgen_anon_4.ipv4_dst = flow.rewrite.destination.v4_word();
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = flow.rewrite.source.0;
        fib.__bindgen_anon_4.ipv6_dst = flow.rewrite.destination.0;
    }
    // SAFETY: a valid context, and a structure of the size given.
    let answer = unsafe { fib_lookup(ctx.as_ptr(), fib, size_of::<bpf_fib_lookup>() as i32, 0) };
    match answer as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => {
            let hop = &mut flow.next_hop;
            (hop.ifindex, hop.tags) = link(fib.ifindex);
            let word = |a: [u8; 2], b: [u8; 2]| u32::from_ne_bytes([a[0], a[1], b[0], b[1]]);
            let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (fib.dmac, fib.smac);
            hop.ethernet = [
                word([a, b], [c, d]),
                word([e, f], [g, h]),
                word([i, j], [k, l]),
            ];
            // SAFETY: the kernel has written mtu_result, a u16 in a union of integers.
            hop.mtu = u32::from(unsafe { fib.__bindgen_anon_1.mtu_result });
            flow.next_hop_until_ns = now + NEXT_HOP_FRESH_NS;
            Ok(())
        }
        BPF_FIB_LKUP_RET_NO_NEIGH => {
            // SAFETY: the kernel has written the next hop's address, which may be IPv6 for an IPv4 packet (RFC 8950), and its family; the union
            // is of integers.
            let next = unsafe {
                if fib.family == AF_INET {
                    Address::from_v4_word(fib.__bindgen_anon_4.ipv4_dst)
                } else {
                    Address(fib.__bindgen_anon_4.ipv6_dst)
                }
            };
            let wanted = FlowKey {
                source: flow.rewrite.source,
                destination: next,
                source_port_be: 0,
                destination_port_be: 0,
            };
            emit(
                EventKind::NeighbourWanted,
                0,
                &wanted,
                fib.ifindex,
                flow.edge.into(),
            );
            // The Ethernet addresses that worked, or that the peer's own packets came with, are better than a lost packet; but not when the
            // route has moved to another interface.
            let (ifindex, _) = link(fib.ifindex);
            if flow.next_hop.ifindex != ifindex {
                return Err(DropReason::NoNeighbour);
            }
            count(Counter::StaleNextHops, 1);
            flow.next_hop_until_ns = now + NEXT_HOP_STALE_NS;
            Ok(())
        }
        BPF_FIB_LKUP_RET_FWD_DISABLED => Err(DropReason::ForwardingOff),
        // Cannot be, with a length of 1; were it so, the packet could not leave.
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Err(DropReason::TooBig),
        _ => Err(DropReason::NoRoute),
    }
}

/// What frames for an interface leave by, and their tags: the interface itself, or what carries a VLAN interface.
#[inline(always)]
fn link(ifindex: u32) -> (u32, [VlanTag; 2]) {
    match LINKS.get_ptr(ifindex) {
        // SAFETY: a live map value; the agent replaces it as a whole.
        Some(link) => unsafe { ((*link).ifindex, (*link).tags) },
        None => (ifindex, [VlanTag::default(); 2]),
    }
}

/// Writes the Ethernet header and VLAN tags of `hop`, and redirects.
#[inline(always)]
pub fn leave(ctx: &impl Frame, packet: &Packet, hop: &NextHop, counter: Counter) -> Verdict {
    match ctx.set_ethernet(packet, hop) {
        Ok(()) => {
            packet.leaves_by.set(hop.ifindex);
            Verdict::Forward(counter)
        }
        Err(reason) => Verdict::Drop(reason),
    }
}
