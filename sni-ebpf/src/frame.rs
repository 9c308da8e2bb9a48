//! The frame that a program was called with. Two hooks share everything but what stands here: XDP sees the frame as the wire carried it, traffic
//! control sees what the kernel has made of it, merged segments and unfinished checksums included.

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{
    EbpfContext,
    bindings::{
        __sk_buff, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    helpers::generated::{
        bpf_l4_csum_replace, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push,
        bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
        bpf_xdp_store_bytes,
    },
    programs::{TcContext, XdpContext},
};
use sni_common::{
    checksum,
    contract::{DropReason, Hook, NextHop, VlanTag},
};

use crate::{
    ethernet,
    packet::{Packet, at, store},
};

/// What is behind the headers that parsing looks at, at least: Ethernet, a tag, IPv6, and the longest TCP header.
const HEADERS: u32 = 14 + 4 + 40 + 60;

/// A frame at one of the hooks.
pub trait Frame: EbpfContext {
    /// The action that hands the packet to the host, or to the next program.
    const PASS: i32;
    /// The action that drops it.
    const DROP: i32;
    /// Which hook it is.
    const HOOK: Hook;

    /// Start and end of what can be read and written directly: of the first buffer.
    fn bounds(&self) -> (usize, usize);

    /// Sees to it that the headers are within [`Frame::bounds`], where the hook may have to copy for that.
    fn pull(&self);

    /// Length of the whole frame, all buffers together.
    fn length(&self) -> u32;

    /// Index of the interface that it came in by.
    fn interface(&self) -> u32;

    /// The outer VLAN tag where the kernel has taken it out of the frame; else no tag.
    fn tag(&self) -> VlanTag;

    /// How many packets of the wire it stands for.
    fn segments(&self) -> u64;

    /// Payload bytes of each of them; 0 where it is one packet.
    fn segment_size(&self) -> u32;

    /// Copies `length` bytes at `offset` to `to`, which has room for them; of all buffers.
    fn load_bytes(&self, offset: usize, to: *mut c_void, length: u32) -> bool;

    /// Copies `length` bytes from `from` to `offset`.
    fn store_bytes(&self, offset: usize, from: *const c_void, length: u32) -> bool;

    /// Adds changes of what a TCP checksum covers to the field at `offset`: of the addresses in the pseudo header, and of the segment. Pointers into
    /// the packet are invalid afterwards.
    fn change_checksum(
        &self,
        offset: usize,
        addresses: u16,
        segment: u64,
    ) -> Result<(), DropReason>;

    /// Whether the checksum at `offset`, of TCP, is yet to be finished by the device that sends the packet: the field holds the sum of the pseudo
    /// header.
    fn is_unfinished(&self, offset: usize) -> bool;

    /// Makes the frame `length` bytes long, at its end. Few drivers leave room for a longer one at XDP.
    fn set_length(&self, length: usize) -> Result<(), DropReason>;

    /// Makes room for `bytes`, more than an Ethernet header and two tags have, at the front. The Ethernet header is to be written again by
    /// [`Frame::set_ethernet`].
    fn grow(&self, bytes: usize) -> Result<(), DropReason>;

    /// Writes the Ethernet header and VLAN tags of `hop`.
    fn set_ethernet(&self, packet: &Packet, hop: &NextHop) -> Result<(), DropReason>;
}

/// 0 is what helpers call success; a refusal leaves the frame as it was.
#[inline(always)]
fn done(answer: i64) -> Result<(), DropReason> {
    match answer {
        0 => Ok(()),
        _ => Err(DropReason::NoRoom),
    }
}

impl Frame for XdpContext {
    const PASS: i32 = XDP_PASS as i32;
    const DROP: i32 = XDP_DROP as i32;
    const HOOK: Hook = Hook::Xdp;

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: fields of a valid context. Volatile, or LLVM hands their values to functions that are not inlined, as 32-bit integers, which
        // to the verifier are packet pointers no more.
        unsafe {
            (
                (&raw const (*self.ctx).data).read_volatile() as usize,
                (&raw const (*self.ctx).data_end).read_volatile() as usize,
            )
        }
    }

    #[inline(always)]
    fn pull(&self) {}

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: a helper without conditions on a valid context.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as u32 }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn tag(&self) -> VlanTag {
        VlanTag::default()
    }

    #[inline(always)]
    fn segments(&self) -> u64 {
        1
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn load_bytes(&self, offset: usize, to: *mut c_void, length: u32) -> bool {
        // SAFETY: a valid context, and room for the bytes by the caller.
        unsafe { bpf_xdp_load_bytes(self.ctx, offset as u32, to, length) == 0 }
    }

    #[inline(always)]
    fn store_bytes(&self, offset: usize, from: *const c_void, length: u32) -> bool {
        // SAFETY: a valid context, and as many bytes by the caller.
        unsafe { bpf_xdp_store_bytes(self.ctx, offset as u32, from.cast_mut(), length) == 0 }
    }

    #[inline(always)]
    fn change_checksum(
        &self,
        offset: usize,
        addresses: u16,
        segment: u64,
    ) -> Result<(), DropReason> {
        let field = at::<u16>(self, offset).ok_or(DropReason::Truncated)?;
        // SAFETY: bounds checked by `at`.
        unsafe { *field = checksum::update(*field, u64::from(addresses) + segment) };
        Ok(())
    }

    #[inline(always)]
    fn is_unfinished(&self, _: usize) -> bool {
        false
    }

    #[inline(always)]
    fn set_length(&self, length: usize) -> Result<(), DropReason> {
        let delta = length as i32 - self.length() as i32;
        // SAFETY: a valid context.
        done(unsafe { bpf_xdp_adjust_tail(self.ctx, delta) })
    }

    #[inline(always)]
    fn grow(&self, bytes: usize) -> Result<(), DropReason> {
        // SAFETY: a valid context.
        done(unsafe { bpf_xdp_adjust_head(self.ctx, -(bytes as i32)) })
    }

    #[inline(always)]
    fn set_ethernet(&self, packet: &Packet, hop: &NextHop) -> Result<(), DropReason> {
        let grow =
            ethernet::tags_length(&hop.tags) as i32 - ethernet::tags_length(&packet.tags) as i32;
        if grow != 0 {
            // SAFETY: a valid context.
            done(unsafe { bpf_xdp_adjust_head(self.ctx, -grow) })?;
        }
        ethernet::write_in_frame(self, packet.v4, hop)
    }
}

impl Frame for TcContext {
    // The next program's, not TC_ACT_OK: the way back to the agent's sockets is one.
    const PASS: i32 = TC_ACT_UNSPEC;
    const DROP: i32 = TC_ACT_SHOT;
    const HOOK: Hook = Hook::TrafficControl;

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        let skb = self.skb.skb;
        // SAFETY: fields of a valid context; volatile as above.
        unsafe {
            (
                (&raw const (*skb).data).read_volatile() as usize,
                (&raw const (*skb).data_end).read_volatile() as usize,
            )
        }
    }

    #[inline(always)]
    fn pull(&self) {
        let (start, end) = self.bounds();
        let length = self.length();
        if ((end - start) as u32) < HEADERS && ((end - start) as u32) < length {
            let wanted = if length < HEADERS { length } else { HEADERS };
            // SAFETY: a valid context. What can't be pulled is not found by parsing.
            unsafe { bpf_skb_pull_data(self.skb.skb, wanted) };
        }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        field(self, offset_of!(__sk_buff, len))
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        field(self, offset_of!(__sk_buff, ifindex))
    }

    #[inline(always)]
    fn tag(&self) -> VlanTag {
        if field(self, offset_of!(__sk_buff, vlan_present)) == 0 {
            return VlanTag::default();
        }
        VlanTag {
            protocol_be: field(self, offset_of!(__sk_buff, vlan_proto)) as u16,
            control_be: (field(self, offset_of!(__sk_buff, vlan_tci)) as u16).to_be(),
        }
    }

    #[inline(always)]
    fn segments(&self) -> u64 {
        match field(self, offset_of!(__sk_buff, gso_segs)) {
            0 => 1,
            segments => segments.into(),
        }
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        field(self, offset_of!(__sk_buff, gso_size))
    }

    #[inline(always)]
    fn load_bytes(&self, offset: usize, to: *mut c_void, length: u32) -> bool {
        // SAFETY: a valid context, and room for the bytes by the caller.
        unsafe { bpf_skb_load_bytes(self.skb.skb.cast(), offset as u32, to, length) == 0 }
    }

    #[inline(always)]
    fn store_bytes(&self, offset: usize, from: *const c_void, length: u32) -> bool {
        // SAFETY: a valid context, and as many bytes by the caller.
        unsafe { bpf_skb_store_bytes(self.skb.skb, offset as u32, from, length, 0) == 0 }
    }

    /// The helper knows what the field holds: a checksum, or the sum of the pseudo header where the device finishes it, of which the segment is no
    /// part.
    #[inline(always)]
    fn change_checksum(
        &self,
        offset: usize,
        addresses: u16,
        segment: u64,
    ) -> Result<(), DropReason> {
        let skb = self.skb.skb;
        let segment = u64::from(checksum::fold(segment));
        // SAFETY: a valid context; a difference instead of two values is what a size of 0 in the flags means.
        unsafe {
            if bpf_l4_csum_replace(skb, offset as u32, 0, segment, 0) != 0 {
                return Err(DropReason::Truncated);
            }
            let pseudo = u64::from(BPF_F_PSEUDO_HDR);
            done(bpf_l4_csum_replace(
                skb,
                offset as u32,
                0,
                addresses.into(),
                pseudo,
            ))
        }
    }

    /// The kernel does not tell, but a change of the segment alone leaves an unfinished checksum as it is.
    #[inline(always)]
    fn is_unfinished(&self, offset: usize) -> bool {
        // SAFETY: bounds checked by `at`.
        let read = || at::<u16>(self, offset).map(|field| unsafe { field.read_volatile() });
        let change = |by: u16| {
            // SAFETY: a valid context.
            unsafe { bpf_l4_csum_replace(self.skb.skb, offset as u32, 0, by.into(), 0) };
        };
        // Left before the first change: LLVM asks again behind it whether the field was there, and forgets to have it read on the way where it was not,
        // while to the verifier, for whom the change has moved the packet, both are possible.
        let Some(before) = read() else {
            return false;
        };
        change(1);
        let unfinished = read() == Some(before);
        // Takes it back, in one's complement.
        change(!1);
        unfinished
    }

    #[inline(always)]
    fn set_length(&self, length: usize) -> Result<(), DropReason> {
        // SAFETY: a valid context.
        done(unsafe { bpf_skb_change_tail(self.skb.skb, length as u32, 0) })
    }

    #[inline(always)]
    fn grow(&self, bytes: usize) -> Result<(), DropReason> {
        // SAFETY: a valid context.
        done(unsafe { bpf_skb_change_head(self.skb.skb, bytes as u32, 0) })?;
        // Ether type and tags are not written again here, so they move along; with them, what may be of the next header.
        type Front = [u16; 11];
        let old = at::<Front>(self, bytes).ok_or(DropReason::Truncated)?;
        let new = at::<Front>(self, 0).ok_or(DropReason::Truncated)?;
        // SAFETY: bounds checked by `at`.
        unsafe { store(new, 0, *old) };
        Ok(())
    }

    #[inline(always)]
    fn set_ethernet(&self, packet: &Packet, hop: &NextHop) -> Result<(), DropReason> {
        if packet.tags != hop.tags {
            for tag in packet.tags {
                if tag.protocol_be != 0 {
                    // SAFETY: a valid context.
                    done(unsafe { bpf_skb_vlan_pop(self.skb.skb) })?;
                }
            }
            // The inner one first: the next one pushes it into the frame.
            for tag in [hop.tags[1], hop.tags[0]] {
                if tag.protocol_be != 0 {
                    let control = u16::from_be(tag.control_be);
                    // SAFETY: a valid context.
                    done(unsafe { bpf_skb_vlan_push(self.skb.skb, tag.protocol_be, control) })?;
                }
            }
        }
        ethernet::write_macs(self, hop)
    }
}

/// A field of the context, all of which have 32 bits; volatile, because the verifier takes loads of that size only.
#[inline(always)]
fn field(ctx: &TcContext, offset: usize) -> u32 {
    // SAFETY: a field of a valid context.
    unsafe { ctx.skb.skb.byte_add(offset).cast::<u32>().read_volatile() }
}
