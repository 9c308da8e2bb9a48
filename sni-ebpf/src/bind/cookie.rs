//! SYN cookies: a SYN is answered without anything being kept, and what comes back proves that its sender is where it says.
//!
//! The cookie is the kernel's own, by its secret, so that the host completes a connection that the datapath does not bind
//! (net/ipv4/syncookies.c). See [`sni_common::syn`] for what of the SYN is in it.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_ANY, iphdr, ipv6hdr, tcphdr},
    helpers::generated::{
        bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_loop, bpf_tcp_raw_check_syncookie_ipv4,
        bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4,
        bpf_tcp_raw_gen_syncookie_ipv6,
    },
};
use sni_common::{
    contract::{
        Announced, DropReason, FlowKey, HELLO_ROOM, NextHop, Pending, Stage, SynSeen,
        client_options,
    },
    syn,
    tcp::{self, ACK, SYN},
    translate::{MAX_OPTIONS, OPTION_MSS, Translation},
};

use super::outgoing;
use crate::{
    answer::HOPS,
    ethernet,
    frame::Frame,
    maps::CLIENT_SYNS,
    packet::{Packet, Segment, masked, not_zero},
    scratch::{Scratch, scratch},
    splice,
};

/// The window of a SYN-ACK: as much as can be kept until the Edge has answered.
const WINDOW: u32 = HELLO_ROOM as u32;

/// A TCP header in SCRATCH, and the IP header that the kernel's helpers want beside it, of which they read the addresses only.
#[repr(C, align(8))]
pub struct Header {
    pub tcp: [u8; 64],
    ip: [u32; 10],
    /// Length of the TCP header, in bytes.
    pub length: u32,
    padding: u32,
}

/// Turns a SYN into the SYN-ACK that answers it.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
pub fn answer(ctx: &impl Frame, packet: &Packet, announced: u64) -> Result<(), DropReason> {
    let announced = Announced::from_slot(announced).ok_or(DropReason::Incoherent)?;
    let segment = packet.segment(ctx)?;
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let length = load_header(ctx, packet, scratch)?;
    read_syn(ctx, packet)?;
    let cookie = generate(scratch, packet.v4, length)?;
    let syn = &scratch.syn;
    let options = if syn.options & client_options::TIMESTAMPS != 0 {
        syn.options
    } else {
        0
    };
    // SAFETY: a helper without conditions.
    let now_ms = unsafe { bpf_ktime_get_ns() } / 1_000_000;
    let timestamps = (
        syn::cookie_timestamp(now_ms as u32, options, syn.scale),
        syn.ts_value,
    );
    let mss = if packet.v4 {
        announced.mss_v4
    } else {
        announced.mss_v6
    };
    let out = &mut scratch.outgoing;
    out.options
        .of_syn(mss, options, timestamps, announced.scale);
    // A SYN without a segment size has less room than its answer would take.
    if out.options.length + tcp::HEADER_LEN as u32 > length {
        out.options.of_syn(0, options, timestamps, announced.scale);
    }
    if out.options.length + tcp::HEADER_LEN as u32 > length || !outgoing::begin(ctx, packet, out) {
        return Err(DropReason::Unanswerable);
    }
    let mut hop = NextHop::default();
    ethernet::way_back(ctx, packet, &mut hop)?;
    out.key = packet.key.reversed();
    out.seq = cookie;
    out.ack = segment.seq.wrapping_add(1);
    out.flags = u32::from(SYN | ACK);
    out.window = WINDOW;
    out.hops = HOPS.into();
    outgoing::write(ctx)?;
    ctx.set_ethernet(packet, &hop)
}

/// Whether a segment acknowledges a cookie as the very first one of its client after the SYN; then SCRATCH's `pending` is what is known of the client.
///
/// A function of its own, for the sake of the stack.
///
/// `behind` is how many bytes of the stream come before it: not none for a segment that has overtaken others.
#[inline(never)]
pub fn accept(
    ctx: &impl Frame,
    packet: &Packet,
    announced: u64,
    behind: u32,
) -> Result<(), DropReason> {
    let announced = Announced::from_slot(announced).ok_or(DropReason::Incoherent)?;
    let segment = packet.segment(ctx)?;
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    load_header(ctx, packet, scratch)?;
    let first = segment.seq.wrapping_sub(behind);
    let seq: *mut u32 = scratch.header.tcp.as_mut_ptr().cast();
    // SAFETY: the second word of the header.
    unsafe { seq.add(1).write(first.to_be()) };
    let (ip, th) = (
        scratch.header.ip.as_mut_ptr(),
        scratch.header.tcp.as_mut_ptr(),
    );
    // SAFETY: both headers are as long as the helpers ask for.
    let answer = unsafe {
        if packet.v4 {
            bpf_tcp_raw_check_syncookie_ipv4(ip.cast::<iphdr>(), th.cast::<tcphdr>())
        } else {
            bpf_tcp_raw_check_syncookie_ipv6(ip.cast::<ipv6hdr>(), th.cast::<tcphdr>())
        }
    };
    if answer != 0 {
        return Err(DropReason::NoFlow);
    }
    let (isn, cookie) = (first.wrapping_sub(1), segment.ack.wrapping_sub(1));
    scratch.pending = Pending {
        // SAFETY: a helper without conditions.
        since_ns: unsafe { bpf_ktime_get_coarse_ns() },
        client_isn: isn,
        cookie,
        stage: Stage::Acknowledged as u8,
        own_scale: announced.scale,
        ..Pending::default()
    };
    note(ctx, packet)?;
    // The cookie that the same SYN with the smallest segment size would get.
    let mss = syn::smallest_mss(packet.v4);
    let [high, low] = mss.to_be_bytes();
    let words: *mut u32 = scratch.header.tcp.as_mut_ptr().cast();
    let with_smallest = [
        packet.key.ports_word(),
        isn.to_be(),
        0,
        u32::from_ne_bytes([6 << 4, SYN, 0, 0]),
        0,
        u32::from_ne_bytes([OPTION_MSS, 4, high, low]),
    ];
    let mut word = 0;
    while word < with_smallest.len() {
        // SAFETY: the header has room for sixteen words.
        unsafe { words.add(word).write(with_smallest[word]) };
        word += 1;
    }
    let smallest = generate(scratch, packet.v4, 24)?;
    scratch.pending.mss = syn::cookie_mss(packet.v4, cookie, smallest);
    Ok(())
}

/// Brings SCRATCH's `pending` up to date with a segment of its client: timestamps, and the window.
#[inline(never)]
pub fn note(ctx: &impl Frame, packet: &Packet) -> Result<(), DropReason> {
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let length = load_header(ctx, packet, scratch)?;
    let options = length - tcp::HEADER_LEN as u32;
    scratch.translation = Translation::default();
    scratch.walk.has_timestamps = 0;
    if options != 0 {
        let offset = packet.transport + tcp::HEADER_LEN;
        splice::read_options(ctx, scratch, offset, options, true)?;
    }
    let pending = &mut scratch.pending;
    if scratch.walk.has_timestamps != 0 {
        pending.ts_value = scratch.walk.ts_value;
        pending.ts_echo = scratch.walk.ts_echo;
        (pending.options, pending.scale) = syn::read_cookie_timestamp(pending.ts_echo);
    }
    let window = u16::from_be_bytes([scratch.header.tcp[14], scratch.header.tcp[15]]);
    pending.window = u32::from(window) << (pending.scale & 15);
    Ok(())
}

/// Remembers how a client of the agent's began, as `splice` does where the host answers SYNs; so its connection can still be handed off.
#[inline(always)]
pub fn remember(key: &FlowKey, pending: &Pending) {
    let mut flags = 0;
    if pending.options & client_options::TIMESTAMPS != 0 {
        flags |= SynSeen::TIMESTAMPS;
    }
    if pending.options & client_options::LINUX != 0 {
        flags |= SynSeen::LINUX;
    }
    let seen = SynSeen {
        ts_value: pending.ts_value,
        flags,
        seq: pending.client_isn,
    };
    let _ = CLIENT_SYNS.insert(key, seen, BPF_ANY.into());
}

/// Reads the options of a SYN or SYN-ACK to SCRATCH's `syn`.
#[inline(never)]
pub fn read_syn(ctx: &impl Frame, packet: &Packet) -> Result<(), DropReason> {
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let length = masked::<63>(scratch.header.length - tcp::HEADER_LEN as u32);
    if length > MAX_OPTIONS as u64 {
        return Err(DropReason::BadDataOffset);
    }
    scratch.syn.bytes = [0; 64];
    let to = scratch.syn.bytes.as_mut_ptr().cast();
    let options = packet.transport + tcp::HEADER_LEN;
    if length != 0 && !ctx.load_bytes(options, to, not_zero::<63>(length) as u32) {
        return Err(DropReason::BadDataOffset);
    }
    scratch.syn.begin(length as u32);
    // SAFETY: the callback has the helper's signature; it needs no context, which would have to be on the stack.
    unsafe {
        let step: unsafe extern "C" fn(u32, *mut c_void) -> i64 = step;
        bpf_loop(MAX_OPTIONS as u32, step as *mut c_void, ptr::null_mut(), 0);
    }
    Ok(())
}

/// One option; 1 ends the loop.
unsafe extern "C" fn step(_: u32, _: *mut c_void) -> i64 {
    let Some(Scratch { syn, .. }) = scratch() else {
        return 1;
    };
    i64::from(!syn.step())
}

/// Copies the TCP header to SCRATCH, with the addresses beside it; returns its length, within what the verifier takes.
#[inline(always)]
pub fn load_header(
    ctx: &impl Frame,
    packet: &Packet,
    scratch: &mut Scratch,
) -> Result<u32, DropReason> {
    let header = &mut scratch.header;
    let length = masked::<63>(packet.header_length(ctx)?);
    if length < tcp::HEADER_LEN as u64 {
        return Err(DropReason::BadDataOffset);
    }
    let length = length as u32;
    if !ctx.load_bytes(packet.transport, header.tcp.as_mut_ptr().cast(), length) {
        return Err(packet.short(ctx));
    }
    header.length = length;
    let key = &packet.key;
    if packet.v4 {
        header.ip[3] = key.source.v4_word();
        header.ip[4] = key.destination.v4_word();
    } else {
        let ([a, b, c, d], [e, f, g, h]) = (key.source.0, key.destination.0);
        header.ip[2] = a;
        header.ip[3] = b;
        header.ip[4] = c;
        header.ip[5] = d;
        header.ip[6] = e;
        header.ip[7] = f;
        header.ip[8] = g;
        header.ip[9] = h;
    }
    Ok(length)
}

/// The cookie for the SYN whose header stands in SCRATCH.
#[inline(always)]
fn generate(scratch: &mut Scratch, v4: bool, length: u32) -> Result<u32, DropReason> {
    let header = &mut scratch.header;
    let (ip, th) = (header.ip.as_mut_ptr(), header.tcp.as_mut_ptr());
    // SAFETY: both headers are as long as the helpers ask for.
    let answer = unsafe {
        if v4 {
            bpf_tcp_raw_gen_syncookie_ipv4(ip.cast::<iphdr>(), th.cast::<tcphdr>(), length)
        } else {
            bpf_tcp_raw_gen_syncookie_ipv6(ip.cast::<ipv6hdr>(), th.cast::<tcphdr>(), length)
        }
    };
    if answer < 0 {
        return Err(DropReason::Unanswerable);
    }
    Ok(answer as u32)
}

/// Of a segment that is no SYN: where its bytes are in the client's stream, whose first one has the number behind the initial one.
#[inline(always)]
pub fn stream_offset(segment: &Segment, pending: &Pending) -> u32 {
    segment.seq.wrapping_sub(pending.client_isn.wrapping_add(1))
}
