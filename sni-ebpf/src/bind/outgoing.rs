//! Segments of the datapath's own: what a SYN is answered with, and what an Edge is told in a client's name. Each is written over the packet that caused
//! it.

use core::{mem::offset_of, ptr};

use aya_ebpf::helpers::generated::bpf_csum_diff;
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use sni_common::{
    checksum,
    contract::{DropReason, FlowKey},
    syn::Options,
    tcp,
    translate::MAX_OPTIONS,
};

use crate::{
    answer::{Ipv4Words, Ipv6Words, PROTOCOL_TCP, ipv4_header, ipv6_header, pseudo_header},
    frame::Frame,
    packet::{Packet, at, masked, store},
    scratch::scratch,
};

/// A segment to be written; part of SCRATCH.
#[repr(C, align(8))]
pub struct Outgoing {
    pub key: FlowKey,
    /// Numbers in host byte order.
    pub seq: u32,
    pub ack: u32,
    pub flags: u32,
    pub window: u32,
    pub hops: u32,
    /// Bytes of the payload.
    pub payload: u32,
    /// Their sum (RFC 1071).
    pub payload_sum: u64,
    /// Whether a device finishes the checksum: see [`Frame::is_unfinished`].
    pub unfinished: u32,
    /// Where the IP header stands.
    pub network: u32,
    /// The TCP header without its options, in memory order.
    head: [u32; 5],
    /// They stand right behind it.
    pub options: Options,
}

const _: () = assert!(
    offset_of!(Outgoing, options) + offset_of!(Options, words)
        == offset_of!(Outgoing, head) + tcp::HEADER_LEN
);
/// Length of the longest header.
const LONGEST: u32 = (tcp::HEADER_LEN + MAX_OPTIONS) as u32;

/// Whether a packet can be written over: its headers are as long as those of what is written. Notes whether its checksum is unfinished.
#[inline(always)]
pub fn begin(ctx: &impl Frame, packet: &Packet, out: &mut Outgoing) -> bool {
    let header = if packet.v4 {
        Ipv4Hdr::LEN
    } else {
        Ipv6Hdr::LEN
    };
    out.network = packet.network as u32;
    out.unfinished = ctx
        .is_unfinished(packet.transport + offset_of!(TcpHdr, check))
        .into();
    out.payload = 0;
    out.payload_sum = 0;
    packet.transport == packet.network + header
}

/// Gives the frame the length of the segment, and writes its headers. The payload, which is the caller's, is to be written then.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
pub fn write(ctx: &impl Frame) -> Result<(), DropReason> {
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let out = &mut scratch.outgoing;
    let v4 = out.key.source.is_v4();
    let ip = if v4 { Ipv4Hdr::LEN } else { Ipv6Hdr::LEN };
    let header = masked::<63>(out.options.length + tcp::HEADER_LEN as u32);
    if header < tcp::HEADER_LEN as u64 {
        return Err(DropReason::Incoherent);
    }
    let header = header as u32;
    let network = out.network as usize;
    let transport = network + ip;
    let length = header + out.payload;
    ctx.set_length(transport + length as usize)?;

    let [high, low] = (out.window as u16).to_be_bytes();
    out.head[0] = out.key.ports_word();
    out.head[1] = out.seq.to_be();
    out.head[2] = out.ack.to_be();
    out.head[3] = u32::from_ne_bytes([(header as u8) << 2, out.flags as u8, high, low]);
    out.head[4] = 0;
    let pseudo = pseudo_header(&out.key, PROTOCOL_TCP, length as u16);
    out.head[4] = if out.unfinished != 0 {
        u32::from(checksum::fold(pseudo))
    } else {
        // SAFETY: head and options are as long together; options behind the header's end are zero.
        let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, out.head.as_mut_ptr(), LONGEST, 0) };
        u32::from(checksum::finish(
            pseudo + u64::from(sum as u32) + out.payload_sum,
        ))
    };

    if v4 {
        let words = ipv4_header(&out.key, PROTOCOL_TCP, length as u16, out.hops as u8);
        let to = at::<Ipv4Words>(ctx, network).ok_or(DropReason::Truncated)?;
        // SAFETY: bounds checked by `at`.
        unsafe { store(to, 0, words) };
    } else {
        let words = ipv6_header(&out.key, PROTOCOL_TCP, length as u16, out.hops as u8);
        let to = at::<Ipv6Words>(ctx, network).ok_or(DropReason::Truncated)?;
        // SAFETY: bounds checked by `at`.
        unsafe { store(to, 0, words) };
    }
    if ctx.store_bytes(transport, out.head.as_ptr().cast(), header) {
        Ok(())
    } else {
        Err(DropReason::NoRoom)
    }
}
