//! A flow that the agent has handed off: two connections, whose sequence numbers, timestamps and windows are translated into each other.
//!
//! While it is being handed off, the agent's sockets are still there: what they have sent must be acknowledged to them, or they would send it again.

use core::{ffi::c_void, mem::offset_of, ptr};

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_loop};
use network_types::tcp::TcpHdr;
use sni_common::{
    checksum,
    contract::{Counter, DropReason, EventKind, Flow, SynSeen},
    tcp::{self, ACK, FIN, RST, SYN, state},
    translate::{
        ALIGNED_TIMESTAMPS, MAX_OPTIONS, OPTION_MSS, OPTION_SACK_PERMITTED, OPTION_TIMESTAMPS,
        Translation,
    },
};

use crate::{
    finish::emit,
    frame::Frame,
    maps::{CLIENT_SYNS, EDGE_SYN_ACKS, HANDING_OFF},
    packet::{Packet, Segment, at, load, masked, not_zero, store},
    rewrite,
    scratch::{Scratch, scratch},
    socket,
    verdict::Step,
};

/// Bytes 12 and 13 of a TCP header: data offset and flags (RFC 9293, 3.1).
const OFFSET: usize = 12;
const FLAGS: usize = 13;

/// What the agent's socket must see of a flow that is being handed off; `None` for all that goes on like the rest of the flow.
#[inline(always)]
pub fn for_socket(
    ctx: &impl Frame,
    packet: &Packet,
    segment: &Segment,
    entry: &mut Flow,
) -> Option<Step> {
    let Some(handing_off) = HANDING_OFF.get_ptr(&packet.key) else {
        entry.state &= !state::HANDING_OFF;
        return None;
    };
    // SAFETY: a live map value; one word, which the agent replaces as a whole.
    let need_ack = unsafe { (*handing_off).need_ack };
    if segment.flags & ACK == 0 {
        return None;
    }
    // What is far beyond may be forged: the socket would be given up before its peer has all.
    if tcp::plausible(segment.ack, need_ack) {
        emit(EventKind::SocketAcked, 0, &packet.key, 0, entry.edge.into());
        return None;
    }
    let pure = tcp::after(need_ack, segment.ack)
        && segment.len == 0
        && segment.flags & (SYN | FIN | RST) == 0;
    // An agent that was killed has no sockets any more, and the host would answer with a reset.
    if pure && socket::state(ctx.as_ptr(), &packet.key).is_some() {
        return Some(Step::Pass(Counter::SocketAcks));
    }
    None
}

/// Rewrites a segment of a handed-off flow: addresses, ports, sequence numbers, options, window, checksums, and one hop less.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
pub fn rewrite(ctx: &impl Frame, packet: &Packet, flow: &Flow) -> Result<(), DropReason> {
    let header = at::<TcpHdr>(ctx, packet.transport).ok_or(DropReason::Truncated)?;
    let translation = &flow.translation;
    // SAFETY: bounds checked by `at`, for every field below.
    let (seq_be, ack_be, offset, flags, window_be): (u32, u32, u8, u8, u16) = unsafe {
        (
            load(header, offset_of!(TcpHdr, seq)),
            load(header, offset_of!(TcpHdr, ack_seq)),
            load(header, OFFSET),
            load(header, FLAGS),
            load(header, offset_of!(TcpHdr, window)),
        )
    };
    let ack = flags & ACK != 0;
    let new_seq_be = u32::from_be(seq_be).wrapping_add(translation.seq).to_be();
    let new_ack_be = if ack {
        u32::from_be(ack_be).wrapping_add(translation.ack).to_be()
    } else {
        ack_be
    };
    let new_window_be = if flags & SYN != 0 {
        window_be
    } else {
        translation.window(u16::from_be(window_be)).to_be()
    };
    // SAFETY: as above.
    unsafe {
        store(header, 0, flow.rewrite.ports_word());
        store(header, offset_of!(TcpHdr, seq), new_seq_be);
        store(header, offset_of!(TcpHdr, ack_seq), new_ack_be);
        store(header, offset_of!(TcpHdr, window), new_window_be);
    }
    let mut change = u64::from(flow.port_delta)
        + checksum::change(seq_be, new_seq_be)
        + checksum::change(ack_be, new_ack_be)
        + checksum::change(window_be.into(), new_window_be.into());
    let options = (u32::from(offset >> 4) * 4).wrapping_sub(tcp::HEADER_LEN as u32);
    if options != 0 {
        change += if options == size_of::<[u32; 3]>() as u32
            && let Some(change) = aligned_timestamps(ctx, packet, translation, ack)
        {
            change
        } else {
            walk_options(ctx, packet, translation, options, ack.into())?;
            let walk = &scratch().ok_or(DropReason::Incoherent)?.walk;
            walk.change()
        };
    }
    let check = packet.transport + offset_of!(TcpHdr, check);
    ctx.change_checksum(check, flow.ip_delta, change)?;
    rewrite::ip(ctx, packet, &flow.rewrite, flow.ip_delta)
}

/// Translates timestamps that stand alone, as in nearly every segment; returns what that adds to the checksum.
#[inline(always)]
fn aligned_timestamps(
    ctx: &impl Frame,
    packet: &Packet,
    translation: &Translation,
    ack: bool,
) -> Option<u64> {
    let words = at::<[u32; 3]>(ctx, packet.transport + tcp::HEADER_LEN)?;
    // SAFETY: bounds checked by `at`.
    let [kind, value_be, echo_be] = unsafe { *words };
    if kind != ALIGNED_TIMESTAMPS {
        return None;
    }
    let (after, change) = translation.aligned_timestamps(value_be, echo_be, ack);
    // SAFETY: bounds checked by `at`.
    unsafe { store(words, 0, after) };
    Some(change)
}

/// Translates options of any kind, in SCRATCH's walk and in the packet; `length` in bytes.
#[inline(never)]
fn walk_options(
    ctx: &impl Frame,
    packet: &Packet,
    translation: &Translation,
    length: u32,
    ack: u32,
) -> Result<(), DropReason> {
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    scratch.translation = *translation;
    let offset = packet.transport + tcp::HEADER_LEN;
    let length = read_options(ctx, scratch, offset, length, ack != 0)?;
    if !ctx.store_bytes(offset, scratch.walk.after.as_ptr().cast(), length) {
        return Err(DropReason::BadDataOffset);
    }
    Ok(())
}

/// Copies options to SCRATCH and walks them; returns their length, within what the verifier takes.
#[inline(always)]
pub fn read_options(
    ctx: &impl Frame,
    scratch: &mut Scratch,
    offset: usize,
    length: u32,
    ack: bool,
) -> Result<u32, DropReason> {
    let length = masked::<63>(length);
    if length == 0 || length > MAX_OPTIONS as u64 {
        return Err(DropReason::BadDataOffset);
    }
    let length = not_zero::<63>(length);
    let walk = &mut scratch.walk;
    // What is beyond `length` is in neither of the two, and adds nothing to the checksum.
    walk.before = [0; 64];
    if !ctx.load_bytes(offset, walk.before.as_mut_ptr().cast(), length as u32) {
        return Err(DropReason::BadDataOffset);
    }
    walk.begin(length as u32, ack);
    // SAFETY: the callback has the helper's signature; it needs no context, which would have to be on the stack.
    unsafe {
        let step: unsafe extern "C" fn(u32, *mut c_void) -> i64 = step;
        bpf_loop(MAX_OPTIONS as u32, step as *mut c_void, ptr::null_mut(), 0);
    }
    Ok(length as u32)
}

/// One option; 1 ends the loop.
unsafe extern "C" fn step(_: u32, _: *mut c_void) -> i64 {
    let Some(Scratch {
        walk, translation, ..
    }) = scratch()
    else {
        return 1;
    };
    i64::from(!walk.step(translation))
}

/// Remembers how a client of the agent's begins, for the case that the connection is handed off. The maps evict by themselves; where one can't take an
/// entry, the connection stays in the relay.
#[inline(always)]
pub fn client_syn(ctx: &impl Frame, packet: &Packet) {
    if let Some(seen) = seen(ctx, packet, SYN) {
        let _ = CLIENT_SYNS.insert(&packet.key, seen, BPF_ANY.into());
    }
}

/// Likewise how an Edge answers a socket of the agent's, if that is what the packet is.
#[inline(always)]
pub fn edge_syn_ack(ctx: &impl Frame, packet: &Packet) {
    if let Some(seen) = seen(ctx, packet, SYN | ACK) {
        let _ = EDGE_SYN_ACKS.insert(&packet.key, seen, BPF_ANY.into());
    }
}

/// What a segment with these flags begins with.
#[inline(always)]
fn seen(ctx: &impl Frame, packet: &Packet, flags: u8) -> Option<&'static SynSeen> {
    look(ctx, packet, flags.into());
    let seen = &scratch()?.seen;
    (seen.flags != NOT_SEEN).then_some(seen)
}

/// The flags of what is not there.
const NOT_SEEN: u32 = u32::MAX;

#[inline(never)]
fn look(ctx: &impl Frame, packet: &Packet, flags: u32) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    scratch.seen = SynSeen {
        ts_value: 0,
        flags: NOT_SEEN,
        seq: 0,
    };
    let Ok(segment) = packet.segment(ctx) else {
        return 0;
    };
    if u32::from(segment.flags & (SYN | ACK | RST | FIN)) != flags {
        return 0;
    }
    // What is known of an open connection is not a stranger's to change.
    if socket::is_open(ctx.as_ptr(), &packet.key) {
        return 0;
    }
    let Some(offset) = at::<u8>(ctx, packet.transport + OFFSET) else {
        return 0;
    };
    // SAFETY: bounds checked by `at`.
    let length = (u32::from(unsafe { *offset } >> 4) * 4).wrapping_sub(tcp::HEADER_LEN as u32);
    scratch.translation = Translation::default();
    let options = packet.transport + tcp::HEADER_LEN;
    if length != 0 && read_options(ctx, scratch, options, length, true).is_err() {
        return 0;
    }
    scratch.seen.seq = segment.seq;
    let mut found = 0;
    if length != 0 && scratch.walk.has_timestamps != 0 {
        found |= SynSeen::TIMESTAMPS;
        scratch.seen.ts_value = scratch.walk.ts_value;
        let options = &scratch.walk.before;
        if (options[0], options[4], options[6])
            == (OPTION_MSS, OPTION_SACK_PERMITTED, OPTION_TIMESTAMPS)
        {
            found |= SynSeen::LINUX;
        }
    }
    scratch.seen.flags = found;
    0
}
