//! Answers by the datapath itself: the packet that asked is turned round and sent back where it came from.
//!
//! Their source is the address that the packet was sent to: the datapath has no address of its own, and a peer asks for no other.

use core::mem::{offset_of, size_of};

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use sni_common::{
    checksum,
    contract::{DropReason, FlowKey, NextHop},
    tcp::{ACK, RST},
};

use crate::{
    ethernet,
    frame::Frame,
    packet::{Packet, at, store},
    scratch::scratch,
    verdict::Verdict,
};

/// TTL or hop limit of an answer (RFC 1700's default).
pub const HOPS: u8 = 64;
const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMPV6: u8 = 58;

/// An IPv4 header without options, in 32-bit words as they stand in memory.
pub type Ipv4Words = [u32; size_of::<Ipv4Hdr>() / 4];
/// An IPv6 header likewise.
pub type Ipv6Words = [u32; size_of::<Ipv6Hdr>() / 4];
/// A TCP header without options likewise.
type TcpWords = [u32; 5];
/// What an ICMPv4 error quotes: the IP and TCP headers. RFC 792 asks for 8 bytes of the latter, RFC 1812, 4.3.2.3, for more; but a device that finishes
/// a checksum writes into all of the header.
type Quote4 = [u32; 10];
/// What an ICMPv6 error quotes: the IPv6 and TCP headers. RFC 4443 asks for more, up to the minimum MTU; a sender needs no more to
/// find its connection.
type Quote6 = [u32; 15];

/// Answers a segment with an RST (RFC 9293, 3.5.2), and counts it under `reason`.
#[inline(always)]
pub fn reset(ctx: &impl Frame, packet: &Packet, reason: DropReason) -> Verdict {
    verdict(write_reset(ctx, packet), reason)
}

/// Tells a sender that its packet exceeds the MTU of the path (RFC 1191; RFC 8201).
#[inline(always)]
pub fn too_big(ctx: &impl Frame, packet: &Packet, mtu: u32) -> Verdict {
    let written = if packet.v4 {
        write_icmpv4(ctx, packet, 0x0403, u32::from((mtu as u16).to_be()) << 16)
    } else {
        write_icmpv6(ctx, packet, 0x0002, mtu.to_be())
    };
    verdict(written, DropReason::TooBig)
}

/// Tells a sender that its packet has run out of hops.
#[inline(always)]
pub fn time_exceeded(ctx: &impl Frame, packet: &Packet) -> Verdict {
    let written = if packet.v4 {
        write_icmpv4(ctx, packet, 0x000b, 0)
    } else {
        write_icmpv6(ctx, packet, 0x0003, 0)
    };
    verdict(written, DropReason::TtlExpired)
}

/// A packet that can't be answered is dropped for the reason that the answer would have had, unless something is wrong with it.
#[inline(always)]
fn verdict(written: Result<(), DropReason>, reason: DropReason) -> Verdict {
    match written {
        Ok(()) => Verdict::Answer(reason),
        Err(DropReason::Unanswerable) => Verdict::Drop(reason),
        Err(error) => Verdict::Drop(error),
    }
}

#[inline(never)]
fn write_reset(ctx: &impl Frame, packet: &Packet) -> Result<(), DropReason> {
    let segment = packet.segment(ctx)?;
    let mut hop = NextHop::default();
    ethernet::way_back(ctx, packet, &mut hop)?;
    let (flags, seq, ack) = if segment.flags & ACK != 0 {
        (RST, segment.ack, 0)
    } else {
        (RST | ACK, 0, segment.seq.wrapping_add(segment.len))
    };
    let back = packet.key.reversed();
    let mut header: TcpWords = [
        back.ports_word(),
        seq.to_be(),
        ack.to_be(),
        u32::from_ne_bytes([0x50, flags, 0, 0]),
        0,
    ];
    let pseudo = pseudo_header(&back, PROTOCOL_TCP, size_of::<TcpWords>() as u16);
    // What a device finishes is the sum from where the TCP header was, and that must be where it is.
    let transport = packet.network
        + if packet.v4 {
            Ipv4Hdr::LEN
        } else {
            Ipv6Hdr::LEN
        };
    let check = packet.transport + offset_of!(TcpHdr, check);
    header[4] = if !ctx.is_unfinished(check) {
        u32::from(checksum::finish(pseudo + sum(&header)))
    } else if transport == packet.transport {
        u32::from(checksum::fold(pseudo))
    } else {
        return Err(DropReason::Unanswerable);
    };

    // IP options and extension headers are not repeated: the answer is never longer than what it answers.
    if packet.v4 {
        let words = at::<Ipv4Words>(ctx, packet.network).ok_or(DropReason::Truncated)?;
        // SAFETY: bounds checked by `at`.
        unsafe {
            store(
                words,
                0,
                ipv4_header(&back, PROTOCOL_TCP, size_of::<TcpWords>() as u16, HOPS),
            )
        };
    } else {
        let words = at::<Ipv6Words>(ctx, packet.network).ok_or(DropReason::Truncated)?;
        // SAFETY: bounds checked by `at`.
        unsafe {
            store(
                words,
                0,
                ipv6_header(&back, PROTOCOL_TCP, size_of::<TcpWords>() as u16, HOPS),
            )
        };
    }
    let words = at::<TcpWords>(ctx, transport).ok_or(DropReason::Truncated)?;
    // SAFETY: bounds checked by `at`.
    unsafe { store(words, 0, header) };
    ctx.set_length(transport + TcpHdr::LEN)?;
    ctx.set_ethernet(packet, &hop)
}

/// Writes an ICMPv4 error: `kind` is type and code as they stand in memory, `rest` the header's second word.
#[inline(never)]
fn write_icmpv4(ctx: &impl Frame, packet: &Packet, kind: u16, rest: u32) -> Result<(), DropReason> {
    const ICMP_LEN: u16 = (8 + size_of::<Quote4>()) as u16;
    // A quote of variable length could not be summed within the verifier's means; packets with options are rare.
    if packet.transport - packet.network != Ipv4Hdr::LEN || !within_rate() {
        return Err(DropReason::Unanswerable);
    }
    let mut hop = NextHop::default();
    ethernet::way_back(ctx, packet, &mut hop)?;
    let quote = at::<Quote4>(ctx, packet.network).ok_or(DropReason::Truncated)?;
    // SAFETY: bounds checked by `at`.
    let quote = unsafe { *quote };
    let mut icmp = [u32::from(kind), rest];
    let quoted = sum(&quote) + finishing(ctx, packet, &quote[size_of::<Ipv4Hdr>() / 4..]);
    icmp[0] |= u32::from(checksum::finish(sum(&icmp) + quoted)) << 16;
    ctx.set_length(packet.network + size_of::<Quote4>())?;
    ctx.grow(size_of::<Ipv4Words>() + 8)?;
    let words = at::<(Ipv4Words, [u32; 2])>(ctx, packet.network).ok_or(DropReason::Truncated)?;
    let ip = ipv4_header(&packet.key.reversed(), PROTOCOL_ICMP, ICMP_LEN, HOPS);
    // SAFETY: bounds checked by `at`.
    unsafe { store(words, 0, (ip, icmp)) };
    ctx.set_ethernet(packet, &hop)
}

/// Writes an ICMPv6 error: `kind` is type and code as they stand in memory, `rest` the header's second word.
#[inline(never)]
fn write_icmpv6(ctx: &impl Frame, packet: &Packet, kind: u16, rest: u32) -> Result<(), DropReason> {
    const ICMP_LEN: u16 = (8 + size_of::<Quote6>()) as u16;
    if packet.transport - packet.network != Ipv6Hdr::LEN || !within_rate() {
        return Err(DropReason::Unanswerable);
    }
    let mut hop = NextHop::default();
    ethernet::way_back(ctx, packet, &mut hop)?;
    let quote = at::<Quote6>(ctx, packet.network).ok_or(DropReason::Truncated)?;
    // SAFETY: bounds checked by `at`.
    let quote = unsafe { *quote };
    let back = packet.key.reversed();
    let mut icmp = [u32::from(kind), rest];
    let quoted = sum(&quote) + finishing(ctx, packet, &quote[size_of::<Ipv6Hdr>() / 4..]);
    let total = pseudo_header(&back, PROTOCOL_ICMPV6, ICMP_LEN) + sum(&icmp) + quoted;
    icmp[0] |= u32::from(checksum::finish(total)) << 16;
    ctx.set_length(packet.network + size_of::<Quote6>())?;
    ctx.grow(size_of::<Ipv6Words>() + 8)?;
    let words = at::<(Ipv6Words, [u32; 2])>(ctx, packet.network).ok_or(DropReason::Truncated)?;
    // SAFETY: bounds checked by `at`.
    unsafe {
        store(
            words,
            0,
            (ipv6_header(&back, PROTOCOL_ICMPV6, ICMP_LEN, HOPS), icmp),
        )
    };
    ctx.set_ethernet(packet, &hop)
}

/// What a sum over a quoted TCP header lacks where a device finishes its checksum on the way out, over what is left of the packet.
#[inline(always)]
fn finishing(ctx: &impl Frame, packet: &Packet, header: &[u32]) -> u64 {
    let check = offset_of!(TcpHdr, check);
    if !ctx.is_unfinished(packet.transport + check) {
        return 0;
    }
    let before = header[check / 4] & 0xffff;
    checksum::change(before, checksum::finish(sum(header)).into())
}

/// ICMP errors are limited in rate (RFC 1812, 4.3.2.8; RFC 4443, 2.4): on each CPU, to as many at once as in a second.
#[inline(always)]
fn within_rate() -> bool {
    const PER_SECOND: u32 = 1000;
    // SAFETY: a helper without conditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    scratch().is_some_and(|scratch| scratch.icmp_budget.take(now, PER_SECOND * 1000, PER_SECOND))
}

/// An IPv4 header (RFC 791) for `payload` bytes, not to be fragmented.
#[inline(always)]
pub fn ipv4_header(key: &FlowKey, protocol: u8, payload: u16, hops: u8) -> Ipv4Words {
    let [high, low] = (payload + Ipv4Hdr::LEN as u16).to_be_bytes();
    let mut words = [
        u32::from_ne_bytes([0x45, 0, high, low]),
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        u32::from_ne_bytes([hops, protocol, 0, 0]),
        key.source.v4_word(),
        key.destination.v4_word(),
    ];
    words[2] |= u32::from(checksum::finish(sum(&words))) << 16;
    words
}

/// An IPv6 header (RFC 8200) for `payload` bytes.
#[inline(always)]
pub fn ipv6_header(key: &FlowKey, protocol: u8, payload: u16, hops: u8) -> Ipv6Words {
    let [high, low] = payload.to_be_bytes();
    let ([a, b, c, d], [e, f, g, h]) = (key.source.0, key.destination.0);
    [
        u32::from_ne_bytes([0x60, 0, 0, 0]),
        u32::from_ne_bytes([high, low, protocol, hops]),
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ]
}

/// The sum of a pseudo header: the same for IPv4 (RFC 9293, 3.1) and IPv6 (RFC 8200, 8.1), because the mapped prefix is taken off again.
#[inline(always)]
pub fn pseudo_header(key: &FlowKey, protocol: u8, length: u16) -> u64 {
    let sum_of = |address: &sni_common::Address| {
        if address.is_v4() {
            u64::from(address.v4_word())
        } else {
            sum(&address.0)
        }
    };
    sum_of(&key.source)
        + sum_of(&key.destination)
        + u64::from(u16::from_ne_bytes([0, protocol]))
        + u64::from(length.to_be())
}

#[inline(always)]
pub fn sum(words: &[u32]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += u64::from(*word);
    }
    sum
}
