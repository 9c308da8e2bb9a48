//! Translation of a packet in place: addresses, ports, TTL, and the checksums by difference.

use core::mem::offset_of;

use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use sni_common::{
    checksum,
    contract::{DropReason, Flow, FlowKey},
};

use crate::{
    frame::Frame,
    packet::{Packet, at, load, store, store_address},
};

/// Rewrites a TCP packet of `flow`.
///
/// The differences that addresses and ports make to the checksums are the same for every packet of the flow, and stand in its entry.
#[inline(always)]
pub fn tcp(ctx: &impl Frame, packet: &Packet, flow: &Flow) -> Result<(), DropReason> {
    let header = at::<TcpHdr>(ctx, packet.transport).ok_or(DropReason::Truncated)?;
    // SAFETY: bounds checked by `at`.
    unsafe { store(header, 0, flow.rewrite.ports_word()) };
    let check = packet.transport + offset_of!(TcpHdr, check);
    ctx.change_checksum(check, flow.ip_delta, flow.port_delta.into())?;
    ip(ctx, packet, &flow.rewrite, flow.ip_delta)
}

/// Rewrites an IP header: addresses and one hop less.
///
/// `delta` is what the addresses change in an IPv4 header's checksum.
#[inline(always)]
pub fn ip(ctx: &impl Frame, packet: &Packet, to: &FlowKey, delta: u16) -> Result<(), DropReason> {
    if packet.v4 {
        let header = at::<Ipv4Hdr>(ctx, packet.network).ok_or(DropReason::Truncated)?;
        // SAFETY: bounds checked by `at`, for every field below.
        unsafe {
            // TTL is the first byte of its 16-bit word: one less is 1 less on a little-endian machine.
            let word: u16 = load(header, offset_of!(Ipv4Hdr, ttl));
            let hop = checksum::change(u32::from(word), u32::from(word.wrapping_sub(1)));
            let old: u16 = load(header, offset_of!(Ipv4Hdr, check));
            store(
                header,
                offset_of!(Ipv4Hdr, check),
                checksum::update(old, hop + u64::from(delta)),
            );
            store(
                header,
                offset_of!(Ipv4Hdr, ttl),
                packet.hops.wrapping_sub(1),
            );
            store(header, offset_of!(Ipv4Hdr, src_addr), to.source.v4_word());
            store(
                header,
                offset_of!(Ipv4Hdr, dst_addr),
                to.destination.v4_word(),
            );
        }
    } else {
        let header = at::<Ipv6Hdr>(ctx, packet.network).ok_or(DropReason::Truncated)?;
        // SAFETY: bounds checked by `at`, for every field below.
        unsafe {
            store(
                header,
                offset_of!(Ipv6Hdr, hop_limit),
                packet.hops.wrapping_sub(1),
            );
            store_address(header, offset_of!(Ipv6Hdr, src_addr), &to.source);
            store_address(header, offset_of!(Ipv6Hdr, dst_addr), &to.destination);
        }
    }
    Ok(())
}
