//! ICMP and ICMPv6 errors about a packet that the datapath has translated: the sender must recognise its own packet in them.
//!
//! The error quotes the packet as it left here, and comes to the address that it left with. Both are translated back, outer and inner
//! header, by the entry of the flow's other direction.

use core::mem::{offset_of, size_of};

use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use sni_common::{
    checksum,
    contract::{Counter, DropReason, Flow, FlowKey},
};

use crate::{
    forward::{self, Refusal},
    frame::Frame,
    lookup,
    packet::{self, Packet, Quote, at, load, store, store_address},
    rewrite,
    scratch::scratch,
    verdict::Verdict,
};

/// Offset of the checksum in an ICMP header, of either version.
const ICMP_CHECKSUM: usize = 2;

/// Translates an error about a flow; any other is the host's.
#[inline(always)]
pub fn translate(ctx: &impl Frame, packet: &Packet) -> Verdict {
    match translated(ctx, packet) {
        Ok(()) if packet.leaves_by.get() == 0 => Verdict::Pass(Counter::Passed),
        Ok(()) => Verdict::Forward(Counter::IcmpTranslated),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Leaves `leaves_by` alone when the error is not about a flow. A function of its own, for the sake of the path of TCP.
#[inline(never)]
fn translated(ctx: &impl Frame, packet: &Packet) -> Result<(), DropReason> {
    let quote = &mut scratch().ok_or(DropReason::Incoherent)?.quote;
    if !packet::quote(ctx, packet, quote) {
        return Ok(());
    }
    // An error goes to the sender of what it quotes; anything else is none, or forged.
    if quote.key.source != packet.key.destination {
        return Ok(());
    }
    let Some(flow) = lookup::flow(&quote.key.reversed()) else {
        return Ok(());
    };
    if packet.network as u32 + packet.length > ctx.length() {
        return Err(DropReason::Truncated);
    }
    // SAFETY: a live map value.
    let flow = unsafe { &mut *flow };
    match forward::route(ctx, packet, flow, forward::now()) {
        Ok(()) => {}
        // No error about an error (RFC 1122, 3.2.2; RFC 4443, 2.4).
        Err(Refusal::Hops) => return Err(DropReason::TtlExpired),
        Err(Refusal::TooBig) => return Err(DropReason::TooBig),
        Err(Refusal::NoWay(reason)) => return Err(reason),
    }
    rewrite_both(ctx, packet, quote, flow)?;
    packet.leaves_by.set(flow.next_hop.ifindex);
    ctx.set_ethernet(packet, &flow.next_hop)
}

/// A function of its own, for the sake of the stack.
#[inline(never)]
fn rewrite_both(
    ctx: &impl Frame,
    packet: &Packet,
    quote: &Quote,
    flow: &Flow,
) -> Result<(), DropReason> {
    let sent = flow.rewrite.reversed();
    // The addressed host itself may have sent the error: then the sender must see the address that it knows.
    let source = if packet.key.source == quote.key.destination {
        sent.destination
    } else {
        packet.key.source
    };
    let outer = FlowKey {
        source,
        destination: sent.source,
        source_port_be: 0,
        destination_port_be: 0,
    };

    let mut delta = rewrite_quote(ctx, packet, quote, &sent, flow.translation.ack)?;
    let outer_delta = packet.key.address_change(&outer);
    if !packet.v4 {
        // Only ICMPv6 sums the addresses of its own header (RFC 4443, 2.3).
        delta += u64::from(outer_delta);
    }
    let field = at::<u16>(ctx, packet.transport + ICMP_CHECKSUM).ok_or(DropReason::BadIcmp)?;
    // SAFETY: bounds checked by `at`.
    unsafe { *field = checksum::update(*field, delta) };
    rewrite::ip(ctx, packet, &outer, outer_delta)
}

/// Gives the quoted packet the addresses and ports that its sender gave it, and adds `seq` to its sequence number; returns what that adds to the sum of the ICMP message.
#[inline(always)]
fn rewrite_quote(
    ctx: &impl Frame,
    packet: &Packet,
    quote: &Quote,
    sent: &FlowKey,
    seq: u32,
) -> Result<u64, DropReason> {
    // Where the error ends by its IP header; the frame may be padded, and the sum is not over that.
    let end = packet.network + packet.length as usize;
    if quote.transport + size_of::<[u32; 2]>() > end {
        return Err(DropReason::BadIcmp);
    }
    let addresses = quote.key.address_change(sent);
    let ports = checksum::change(quote.key.ports_word(), sent.ports_word());
    let mut delta = 0;
    if packet.v4 {
        let header = at::<Ipv4Hdr>(ctx, quote.network).ok_or(DropReason::BadIcmp)?;
        // SAFETY: bounds checked by `at`, for every field below.
        unsafe {
            // The quoted header's own checksum takes back what its addresses change: to the ICMP sum they are nothing together.
            let old: u16 = load(header, offset_of!(Ipv4Hdr, check));
            store(
                header,
                offset_of!(Ipv4Hdr, check),
                checksum::update(old, u64::from(addresses)),
            );
            store(header, offset_of!(Ipv4Hdr, src_addr), sent.source.v4_word());
            store(
                header,
                offset_of!(Ipv4Hdr, dst_addr),
                sent.destination.v4_word(),
            );
        }
    } else {
        let header = at::<Ipv6Hdr>(ctx, quote.network).ok_or(DropReason::BadIcmp)?;
        // SAFETY: bounds checked by `at`, for every field below.
        unsafe {
            store_address(header, offset_of!(Ipv6Hdr, src_addr), &sent.source);
            store_address(header, offset_of!(Ipv6Hdr, dst_addr), &sent.destination);
        }
        delta += u64::from(addresses);
    }
    // RFC 792 promises 8 bytes of the segment: ports and sequence number, by which its sender finds what it has sent.
    let header = at::<[u32; 2]>(ctx, quote.transport).ok_or(DropReason::BadIcmp)?;
    // SAFETY: bounds checked by `at`.
    let segment = unsafe {
        let old_be = (*header)[1];
        // By the other direction's entry, whose acknowledgements are translated likewise.
        let new_be = u32::from_be(old_be).wrapping_add(seq).to_be();
        *header = [sent.ports_word(), new_be];
        ports + checksum::change(old_be, new_be)
    };
    delta += segment;
    // The checksum lies beyond them.
    let check = quote.transport + offset_of!(TcpHdr, check);
    if check + size_of::<u16>() > end {
        return Ok(delta);
    }
    if let Some(field) = at::<u16>(ctx, check) {
        // SAFETY: bounds checked by `at`.
        unsafe {
            let old = *field;
            let new = checksum::update(old, u64::from(addresses) + segment);
            *field = new;
            delta += checksum::change(u32::from(old), u32::from(new));
        }
    }
    Ok(delta)
}
