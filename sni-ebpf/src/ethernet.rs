//! The Ethernet header and its VLAN tags, on the way out and on the way back.

use core::mem::size_of;

use network_types::eth::EthHdr;
use sni_common::contract::{DropReason, NextHop, VlanTag};

use crate::{
    frame::Frame,
    packet::{Packet, at, store},
};

/// Writes the Ethernet header and VLAN tags of `hop` into a frame that has room for just them.
#[inline(always)]
pub fn write_in_frame(ctx: &impl Frame, v4: bool, hop: &NextHop) -> Result<(), DropReason> {
    // The ether type, of IP itself, moves with the header's end.
    let ethertype: u16 = if v4 { 0x0800 } else { 0x86dd };
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

/// Writes the MAC addresses of `hop` and nothing else.
#[inline(always)]
pub fn write_macs(ctx: &impl Frame, hop: &NextHop) -> Result<(), DropReason> {
    let header = at::<[u8; 12]>(ctx, 0).ok_or(DropReason::Truncated)?;
    // SAFETY: bounds checked by `at`.
    unsafe { store_macs(header, &hop.ethernet) };
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
pub fn tags_length(tags: &[VlanTag; 2]) -> usize {
    (usize::from(tags[0].protocol_be != 0) + usize::from(tags[1].protocol_be != 0))
        * size_of::<VlanTag>()
}

/// The hop back to where a frame came from, by its own Ethernet addresses; the MTU is not known.
#[inline(always)]
pub fn way_back(ctx: &impl Frame, packet: &Packet, hop: &mut NextHop) -> Result<(), DropReason> {
    let header = at::<[u16; 6]>(ctx, 0).ok_or(DropReason::Truncated)?;
    // SAFETY: bounds checked by `at`.
    let [a, b, c, d, e, f] = unsafe { *header };
    let word = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    hop.ifindex = ctx.interface();
    hop.ethernet = [word(d, e), word(f, a), word(b, c)];
    hop.tags = packet.tags;
    hop.mtu = 0;
    Ok(())
}
