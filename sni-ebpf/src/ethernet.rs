//! The Ethernet header and its VLAN tags, on the way out and on the way back.

use core::mem::size_of;

use aya_ebpf::{helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};
use network_types::eth::EthHdr;
use sni_common::contract::{DropReason, NextHop, VlanTag};

use crate::packet::{Packet, at, store};

/// Writes the Ethernet header and VLAN tags of `hop`; the frame grows or shrinks when the number of tags changes.
#[inline(always)]
pub fn write(ctx: &XdpContext, packet: &Packet, hop: &NextHop) -> Result<(), DropReason> {
    let grow = tags_length(&hop.tags) as i32 - tags_length(&packet.tags) as i32;
    // The ether type, of IP itself, moves with the header's end.
    let ethertype: u16 = if packet.v4 { 0x0800 } else { 0x86dd };
    if grow != 0 {
        // SAFETY: a valid context; a refusal leaves the frame as it was.
        if unsafe { bpf_xdp_adjust_head(ctx.ctx, -grow) } != 0 {
            return Err(DropReason::NoRoom);
        }
    }
    match hop.tags {
        [VlanTag { protocol_be: 0, .. }, _] => {
            let header = at::<[u8; EthHdr::LEN]>(ctx, 0).ok_or(DropReason::Truncated)?;
            // SAFETY: bounds checked by `at`.
            unsafe {
                store_macs(header, &hop.ethernet);
                store(header, 12, ethertype.to_be());
            }
        }
        [tag, VlanTag { protocol_be: 0, .. }] => {
            let header = at::<[u8; EthHdr::LEN + 4]>(ctx, 0).ok_or(DropReason::Truncated)?;
            // SAFETY: bounds checked by `at`.
            unsafe {
                store_macs(header, &hop.ethernet);
                store(header, 12, tag);
                store(header, 16, ethertype.to_be());
            }
        }
        [outer, inner] => {
            let header = at::<[u8; EthHdr::LEN + 8]>(ctx, 0).ok_or(DropReason::Truncated)?;
            // SAFETY: bounds checked by `at`.
            unsafe {
                store_macs(header, &hop.ethernet);
                store(header, 12, outer);
                store(header, 16, inner);
                store(header, 20, ethertype.to_be());
            }
        }
    }
    Ok(())
}

/// Writes both MAC addresses.
///
/// # Safety
/// As for [`store`].
#[inline(always)]
unsafe fn store_macs<T>(header: *mut T, macs: &[u32; 3]) {
    let [a, b, c] = *macs;
    // SAFETY: the caller's.
    unsafe {
        store(header, 0, a);
        store(header, 4, b);
        store(header, 8, c);
    }
}

/// Bytes that tags take in a frame.
#[inline(always)]
fn tags_length(tags: &[VlanTag; 2]) -> usize {
    (usize::from(tags[0].protocol_be != 0) + usize::from(tags[1].protocol_be != 0))
        * size_of::<VlanTag>()
}

/// The hop back to where a frame came from, by its own Ethernet addresses; the MTU is not known.
#[inline(always)]
pub fn way_back(ctx: &XdpContext, packet: &Packet, hop: &mut NextHop) -> Result<(), DropReason> {
    let header = at::<[u16; 6]>(ctx, 0).ok_or(DropReason::Truncated)?;
    // SAFETY: bounds checked by `at`.
    let [a, b, c, d, e, f] = unsafe { *header };
    let word = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    hop.ifindex = ctx.ingress_ifindex() as u32;
    hop.ethernet = [word(d, e), word(f, a), word(b, c)];
    hop.tags = packet.tags;
    hop.mtu = 0;
    Ok(())
}
