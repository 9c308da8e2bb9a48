//! The first bytes of a client's stream: from segments to SCRATCH and HELLOS, and back into segments; and their sums.

// No function here takes a reference to SCRATCH: the callbacks of loops change it, and of a reference in a parameter LLVM believes that nobody does.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::generated::{bpf_csum_diff, bpf_loop, bpf_probe_read_kernel},
};
use sni_common::{
    checksum,
    contract::{DropReason, FlowKey, HELLO_ROOM, HelloBytes},
    hello,
    tcp::{FIN, SYN},
};

use super::{cookie, outgoing};
use crate::{
    answer::{PROTOCOL_TCP, pseudo_header},
    frame::Frame,
    maps::HELLOS,
    packet::{Packet, masked, not_zero},
    scratch::{Scratch, scratch},
};

/// What `bpf_csum_diff` takes at once before Linux 6.13.
const CHUNK: u32 = 512;
/// Chunks of the longest stream.
const CHUNKS: u32 = (HELLO_ROOM as u32).div_ceil(CHUNK) + 1;

/// A sum over a part of SCRATCH's `stream`; part of SCRATCH.
#[repr(C, align(8))]
pub struct Summing {
    at: u32,
    left: u32,
    sum: u32,
    padding: u32,
}

/// Copies a segment's payload of `length` bytes to the stream's `offset`; both must be within [`HELLO_ROOM`] together.
#[inline(always)]
pub fn load(ctx: &impl Frame, packet: &Packet, offset: u32, length: u32) -> Result<(), DropReason> {
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let payload = packet.transport + scratch.header.length as usize;
    let (offset, length) = (within(offset), within(length));
    if length == 0 || length > HELLO_ROOM as u64 {
        return Err(DropReason::Incoherent);
    }
    let length = within_and_not_zero(length);
    let to = scratch.stream.as_mut_ptr();
    // SAFETY: within, by the masks.
    let to = unsafe { to.add(offset as usize) };
    if !ctx.load_bytes(payload, to.cast(), length as u32) {
        return Err(DropReason::Truncated);
    }
    Ok(())
}

/// Checks the TCP checksum of a segment whose header stands in SCRATCH, and whose payload of `length` bytes at the stream's `offset`. Where a device
/// finishes it (see [`super::outgoing::begin`]), there is none to be checked.
#[inline(always)]
pub fn verify(packet: &Packet, offset: u32, length: u32) -> Result<(), DropReason> {
    if self::scratch().is_none_or(|scratch| scratch.outgoing.unfinished != 0) {
        return Ok(());
    }
    let payload = sum(offset, length)?;
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let header = scratch.header.length;
    let words: *const u32 = scratch.header.tcp.as_ptr().cast();
    let mut total = pseudo_header(&packet.key, PROTOCOL_TCP, (header + length) as u16) + payload;
    let mut word = 0;
    // All fifteen: those behind the header are not counted.
    while word < 15 {
        if word * 4 < header {
            // SAFETY: the header has room for sixteen words.
            total += u64::from(unsafe { *words.add(word as usize) });
        }
        word += 1;
    }
    if checksum::fold(total) == 0xffff {
        Ok(())
    } else {
        Err(DropReason::BadChecksum)
    }
}

/// Whether a segment was damaged on its way, of which more is kept than its bytes: no host has looked at its checksum yet. A connection that goes by an
/// Edge's wrong number would be a dead one, and by a client's wrong cookie one whose bytes are others. Its sender repeats it. SCRATCH's `stream` is lost.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
pub fn is_damaged(ctx: &impl Frame, packet: &Packet) -> u32 {
    let (Ok(segment), Some(scratch)) = (packet.segment(ctx), scratch()) else {
        return 0;
    };
    if cookie::load_header(ctx, packet, scratch).is_err() {
        return 0;
    }
    // Whether it can be written over matters later.
    let _ = outgoing::begin(ctx, packet, &mut scratch.outgoing);
    let numbers = u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
    let payload = segment.len - numbers;
    // What is longer than a hello is nobody's to judge here.
    if payload > HELLO_ROOM as u32 || (payload != 0 && load(ctx, packet, 0, payload).is_err()) {
        return 0;
    }
    verify(packet, 0, payload).is_err().into()
}

/// The sum (RFC 1071) of `length` bytes at the stream's `offset`, as of a segment that begins there.
#[inline(always)]
pub fn sum(offset: u32, length: u32) -> Result<u64, DropReason> {
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    // Sums are over whole words: zeros stand behind the last byte meanwhile.
    let end = within(offset + length);
    // SAFETY: within, by the mask.
    let behind = unsafe {
        scratch
            .stream
            .as_mut_ptr()
            .add(end as usize)
            .cast::<[u8; 3]>()
    };
    // SAFETY: as above.
    let kept = unsafe { behind.read() };
    // SAFETY: as above.
    unsafe { behind.write([0; 3]) };
    scratch.summing.at = offset;
    scratch.summing.left = length;
    scratch.summing.sum = 0;
    // SAFETY: the callback has the helper's signature; it needs no context, which would have to be on the stack.
    unsafe {
        let chunk: unsafe extern "C" fn(u32, *mut c_void) -> i64 = chunk;
        bpf_loop(CHUNKS, chunk as *mut c_void, ptr::null_mut(), 0);
    }
    // SAFETY: as above.
    unsafe { behind.write(kept) };
    Ok(u64::from(scratch.summing.sum))
}

/// Adds a chunk; 1 ends the loop.
unsafe extern "C" fn chunk(_: u32, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else { return 1 };
    let Summing { at, left, sum, .. } = scratch.summing;
    if left == 0 {
        return 1;
    }
    let length = if left < CHUNK { left } else { CHUNK };
    let (offset, size) = (within(at), masked::<0x3ff>((length + 3) & !3));
    // SAFETY: within, by the masks.
    let from = unsafe { scratch.stream.as_mut_ptr().add(offset as usize) };
    // SAFETY: as many bytes as are given.
    let added = unsafe { bpf_csum_diff(ptr::null_mut(), 0, from.cast(), size as u32, sum) };
    if added < 0 {
        return 1;
    }
    scratch.summing.sum = added as u32;
    scratch.summing.at = at + length;
    scratch.summing.left = left - length;
    0
}

/// An offset into the stream, or a length of it, within what the verifier takes.
#[inline(always)]
pub fn within(number: u32) -> u64 {
    masked::<{ hello::ROOM as u32 - 1 }>(number)
}

/// Likewise a length that is not 0.
#[inline(always)]
pub fn within_and_not_zero(number: u64) -> u64 {
    not_zero::<{ hello::ROOM as u32 - 1 }>(number)
}

/// Keeps the stream in HELLOS; `false` where there is no room.
#[inline(always)]
pub fn keep(key: &FlowKey) -> bool {
    let Some(scratch) = scratch() else {
        return false;
    };
    // SAFETY: the stream is longer.
    let bytes = unsafe { &*scratch.stream.as_ptr().cast::<HelloBytes>() };
    HELLOS.insert(key, bytes, BPF_ANY.into()).is_ok()
}

/// Brings it back; `false` where it is gone.
#[inline(always)]
pub fn recall(key: &FlowKey) -> bool {
    let (Some(bytes), Some(scratch)) = (HELLOS.get_ptr(key), scratch()) else {
        return false;
    };
    let to = scratch.stream.as_mut_ptr().cast();
    // SAFETY: the stream is longer, and the map's value is as long.
    unsafe { bpf_probe_read_kernel(to, HELLO_ROOM as u32, bytes.cast()) == 0 }
}

/// Walks over the first `length` bytes.
#[inline(always)]
pub fn walk(length: u32) -> hello::Answer {
    let Some(scratch) = scratch() else {
        return hello::Answer::Left;
    };
    scratch.hello.begin(length);
    // SAFETY: the callback has the helper's signature; it needs no context, which would have to be on the stack.
    unsafe {
        let step: unsafe extern "C" fn(u32, *mut c_void) -> i64 = step;
        bpf_loop(hello::STEPS, step as *mut c_void, ptr::null_mut(), 0);
    }
    scratch.hello.answer()
}

/// One item; 1 ends the loop.
unsafe extern "C" fn step(_: u32, _: *mut c_void) -> i64 {
    let Some(Scratch { hello, stream, .. }) = scratch() else {
        return 1;
    };
    // SAFETY: the stream is longer.
    let bytes = unsafe { &*stream.as_ptr().cast::<[u8; hello::ROOM]>() };
    i64::from(!hello.step(bytes))
}
