//! Parsing: from a frame to the addresses and ports that the lookups need, and to the TCP segment that the rest needs.
//!
//! Nothing here decides: what can't be parsed is the host's, unless a service or flow claims it later.

use core::{
    cell::Cell,
    mem::{offset_of, size_of},
};

use network_types::{
    eth::EthHdr,
    icmp::{Icmpv4Hdr, Icmpv6Hdr},
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use sni_common::{
    Address,
    contract::{Counter, DropReason, FlowKey, VlanTag},
    tcp,
};

use crate::frame::Frame;

pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
pub const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
pub const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
pub const ETHERTYPE_QINQ: u16 = 0x88a8_u16.to_be();

const HOP_BY_HOP: u8 = 0;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
pub const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// IPv6 extension headers that are walked; real chains have one or two, and every further one is a branch for the verifier.
const MAX_EXTENSIONS: usize = 4;
/// Farthest transport header, in bytes from the start of the frame. One extension header alone could take 2 KiB.
const MAX_TRANSPORT: usize = 512;
/// Above every offset: the farthest transport header, and a quoted packet's behind an ICMP header with as many options again.
const OFFSET_MASK: usize = 0x7ff;
const _: () = assert!(2 * MAX_TRANSPORT < OFFSET_MASK);

/// What a frame turned out to be.
pub enum Kind {
    /// A whole TCP packet, parsed as far as its ports.
    Tcp,
    /// An ICMP or ICMPv6 error; `transport` is the ICMP header.
    IcmpError,
    /// A fragment; only its addresses are known.
    Fragment,
    /// Not ours to understand.
    Foreign(Counter),
}

/// Where things are in a frame, and what they say. Offsets are bytes from the start of the frame.
pub struct Packet {
    /// Addresses, and ports where the packet is TCP.
    pub key: FlowKey,
    /// Offset of the IP header.
    pub network: usize,
    /// Offset of the TCP or ICMP header.
    pub transport: usize,
    /// Length of the IP packet by its header, in bytes.
    pub length: u32,
    /// VLAN tags as they came, the outer first.
    pub tags: [VlanTag; 2],
    /// Whether the packet is IPv4.
    pub v4: bool,
    /// TTL or hop limit.
    pub hops: u8,
    /// Index of the interface that it leaves by, once that is known. Here and not in a verdict, all of whose cases are one number: the verifier would see
    /// the unused part of a register read.
    pub leaves_by: Cell<u32>,
    /// Whether somebody may want to see it (see `capture`): 1, or 0.
    pub noted: Cell<u32>,
}

/// A TCP header's facts, in host byte order.
#[derive(Clone, Copy)]
pub struct Segment {
    pub seq: u32,
    pub ack: u32,
    /// Payload, and one each for SYN and FIN.
    pub len: u32,
    pub flags: u8,
}

/// A pointer to a `T` at `offset`, when the first buffer holds all of it.
///
/// Offset and pointer are hidden from the optimiser. It knows that offsets are small and would drop the mask that the verifier wants to
/// see after an offset has been to memory and back; and it would check one sum and use another, while the verifier knows a packet pointer
/// with a variable offset by its register, not by its value.
#[inline(always)]
pub fn at<T>(ctx: &impl Frame, offset: usize) -> Option<*mut T> {
    let (mut start, end) = ctx.bounds();
    // SAFETY: a mask and a sum; every offset that parsing accepts is below the mask.
    unsafe {
        core::arch::asm!(
            "{offset} &= {mask}",
            "{start} += {offset}",
            offset = inout(reg) offset => _,
            start = inout(reg) start,
            mask = const OFFSET_MASK,
            options(pure, nomem, nostack)
        )
    };
    (start + size_of::<T>() <= end).then_some(start as *mut T)
}

/// A number within a mask that the verifier sees. Hidden from the optimiser, which often knows the range and would drop the mask, while for the verifier
/// nothing is known of what has been to memory.
#[inline(always)]
pub fn masked<const MASK: u32>(number: u32) -> u64 {
    let mut number = u64::from(number);
    // SAFETY: a mask.
    unsafe {
        core::arch::asm!(
            "{number} &= {mask}",
            number = inout(reg) number,
            mask = const MASK,
            options(pure, nomem, nostack)
        )
    };
    number
}

/// A number that is not 0, as a verifier sees it that learns nothing from a comparison with 0 (before Linux 6.8): from 1 to the mask and one. Helpers
/// take no length that may be 0.
#[inline(always)]
pub fn not_zero<const MASK: u32>(number: u64) -> u64 {
    masked::<MASK>((number as u32).wrapping_sub(1)) + 1
}

/// Reads a field of any alignment: BPF loads need none on the machines this runs on, and a bytewise read would cost four loads.
///
/// # Safety
/// `pointer` must come from [`at`] and the field must lie within.
#[inline(always)]
pub unsafe fn load<T: Copy, H>(pointer: *const H, field: usize) -> T {
    // SAFETY: the caller's.
    unsafe { *pointer.byte_add(field).cast::<T>() }
}

/// Writes a field; see [`load`].
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub unsafe fn store<T, H>(pointer: *mut H, field: usize, value: T) {
    // SAFETY: the caller's.
    unsafe { *pointer.byte_add(field).cast::<T>() = value }
}

/// Reads an address; word by word, because LLVM makes a bytewise loop of an assignment of sixteen bytes that might overlap.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
unsafe fn load_address<H>(pointer: *const H, field: usize) -> Address {
    // SAFETY: the caller's.
    unsafe {
        Address([
            load(pointer, field),
            load(pointer, field + 4),
            load(pointer, field + 8),
            load(pointer, field + 12),
        ])
    }
}

/// Writes an address, word by word likewise.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub unsafe fn store_address<H>(pointer: *mut H, field: usize, address: &Address) {
    let [a, b, c, d] = address.0;
    // SAFETY: the caller's.
    unsafe {
        store(pointer, field, a);
        store(pointer, field + 4, b);
        store(pointer, field + 8, c);
        store(pointer, field + 12, d);
    }
}

/// Parses a frame as far as its TCP ports; `packet` is written unless the frame is [`Kind::Foreign`].
#[inline(always)]
pub fn parse(ctx: &impl Frame, packet: &mut Packet) -> Kind {
    ctx.pull();
    let Some(ethernet) = at::<EthHdr>(ctx, 0) else {
        return Kind::Foreign(Counter::Unparsed);
    };
    // SAFETY: bounds checked by `at`.
    let (first, mut ethertype): (u8, u16) = unsafe {
        (
            load(ethernet, 0),
            load(ethernet, offset_of!(EthHdr, ether_type)),
        )
    };
    // Broadcast and multicast: nobody sends TCP so, and an answer would have no address to come from.
    if first & 1 != 0 {
        return Kind::Foreign(Counter::Passed);
    }
    let mut network = EthHdr::LEN;
    let mut tags = [ctx.tag(), VlanTag::default()];
    for tag in &mut tags {
        if tag.protocol_be != 0 {
            continue;
        }
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        let Some(pointer) = at::<[u16; 2]>(ctx, network) else {
            return Kind::Foreign(Counter::Unparsed);
        };
        // SAFETY: bounds checked by `at`.
        let [control_be, inner] = unsafe { *pointer };
        *tag = VlanTag {
            protocol_be: ethertype,
            control_be,
        };
        ethertype = inner;
        network += size_of::<VlanTag>();
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(ctx, network, tags, packet),
        ETHERTYPE_IPV6 => ipv6(ctx, network, tags, packet),
        _ => Kind::Foreign(Counter::Passed),
    }
}

#[inline(always)]
fn ipv4(ctx: &impl Frame, network: usize, tags: [VlanTag; 2], packet: &mut Packet) -> Kind {
    let Some(header) = at::<Ipv4Hdr>(ctx, network) else {
        return Kind::Foreign(Counter::Unparsed);
    };
    // SAFETY: bounds checked by `at`, for every field below.
    let (version, fragment, length, hops, protocol, source, destination): (
        u8,
        u16,
        u16,
        u8,
        u8,
        u32,
        u32,
    ) = unsafe {
        (
            load(header, offset_of!(Ipv4Hdr, vihl)),
            load(header, offset_of!(Ipv4Hdr, frags)),
            load(header, offset_of!(Ipv4Hdr, tot_len)),
            load(header, offset_of!(Ipv4Hdr, ttl)),
            load(header, offset_of!(Ipv4Hdr, proto)),
            load(header, offset_of!(Ipv4Hdr, src_addr)),
            load(header, offset_of!(Ipv4Hdr, dst_addr)),
        )
    };
    let header_length = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header_length < Ipv4Hdr::LEN {
        return Kind::Foreign(Counter::Unparsed);
    }
    *packet = Packet {
        key: FlowKey {
            source: Address::from_v4_word(source),
            destination: Address::from_v4_word(destination),
            source_port_be: 0,
            destination_port_be: 0,
        },
        network,
        transport: network + header_length,
        length: u32::from(u16::from_be(length)),
        tags,
        v4: true,
        hops,
        leaves_by: Cell::new(0),
        noted: Cell::new(0),
    };
    // More fragments, or an offset (RFC 791): only the first has ports, and not even it has all of the segment.
    if u16::from_be(fragment) & 0x3fff != 0 {
        return Kind::Fragment;
    }
    match protocol {
        TCP => ports(ctx, packet),
        ICMP => icmp_error(ctx, packet, is_icmp_error),
        _ => Kind::Foreign(Counter::Passed),
    }
}

#[inline(always)]
fn ipv6(ctx: &impl Frame, network: usize, tags: [VlanTag; 2], packet: &mut Packet) -> Kind {
    let Some(header) = at::<Ipv6Hdr>(ctx, network) else {
        return Kind::Foreign(Counter::Unparsed);
    };
    // SAFETY: bounds checked by `at`, for every field below.
    let (version, payload, mut protocol, hops, source, destination): (
        u8,
        u16,
        u8,
        u8,
        Address,
        Address,
    ) = unsafe {
        (
            load(header, 0),
            load(header, offset_of!(Ipv6Hdr, payload_len)),
            load(header, offset_of!(Ipv6Hdr, next_hdr)),
            load(header, offset_of!(Ipv6Hdr, hop_limit)),
            load_address(header, offset_of!(Ipv6Hdr, src_addr)),
            load_address(header, offset_of!(Ipv6Hdr, dst_addr)),
        )
    };
    // An IPv4-mapped address has no place on the wire (RFC 4942, 2.2); as a key it would look like IPv4.
    if version >> 4 != 6 || source.is_v4() || destination.is_v4() {
        return Kind::Foreign(Counter::Unparsed);
    }
    *packet = Packet {
        key: FlowKey {
            source,
            destination,
            source_port_be: 0,
            destination_port_be: 0,
        },
        network,
        transport: network + Ipv6Hdr::LEN,
        length: u32::from(u16::from_be(payload)) + Ipv6Hdr::LEN as u32,
        tags,
        v4: false,
        hops,
        leaves_by: Cell::new(0),
        noted: Cell::new(0),
    };
    if protocol != TCP && protocol != ICMPV6 {
        match skip_extensions(ctx, protocol, packet.transport) {
            Ok((found, transport)) => {
                protocol = found;
                packet.transport = transport;
            }
            Err(Chain::Fragment) => return Kind::Fragment,
            Err(Chain::Unknown) => return Kind::Foreign(Counter::Unparsed),
        }
    }
    match protocol {
        TCP => ports(ctx, packet),
        ICMPV6 => icmp_error(ctx, packet, is_icmpv6_error),
        _ => Kind::Foreign(Counter::Passed),
    }
}

/// Why a chain of extension headers ended without a transport header.
enum Chain {
    Fragment,
    Unknown,
}

/// Walks extension headers (RFC 8200, 4): the transport protocol and its header's offset.
#[inline(always)]
fn skip_extensions(ctx: &impl Frame, first: u8, start: usize) -> Result<(u8, usize), Chain> {
    let (mut protocol, mut offset) = (first, start);
    for _ in 0..MAX_EXTENSIONS {
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {}
            FRAGMENT => return Err(Chain::Fragment),
            _ => return Ok((protocol, offset)),
        }
        let Some(header) = at::<[u8; 4]>(ctx, offset) else {
            return Err(Chain::Unknown);
        };
        // SAFETY: bounds checked by `at`.
        let [next, length, _, segments_left] = unsafe { *header };
        // While segments are left the destination is not the final one, and the checksum is not over it (RFC 8200, 8.1).
        if protocol == ROUTING && segments_left != 0 {
            return Err(Chain::Unknown);
        }
        protocol = next;
        offset += (usize::from(length) + 1) * 8;
        if offset > MAX_TRANSPORT {
            return Err(Chain::Unknown);
        }
    }
    match protocol {
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => Err(Chain::Unknown),
        FRAGMENT => Err(Chain::Fragment),
        _ => Ok((protocol, offset)),
    }
}

#[inline(always)]
fn ports(ctx: &impl Frame, packet: &mut Packet) -> Kind {
    let Some(ports) = at::<[u16; 2]>(ctx, packet.transport) else {
        return Kind::Foreign(Counter::Unparsed);
    };
    // SAFETY: bounds checked by `at`.
    [packet.key.source_port_be, packet.key.destination_port_be] = unsafe { *ports };
    Kind::Tcp
}

/// Whether an ICMP type is an error about a packet on its way (RFC 792).
#[inline(always)]
pub fn is_icmp_error(kind: u8) -> bool {
    matches!(kind, 3 | 11 | 12)
}

/// Likewise of ICMPv6 (RFC 4443, 2.1: types below 128 are errors).
#[inline(always)]
pub fn is_icmpv6_error(kind: u8) -> bool {
    matches!(kind, 1..=4)
}

#[inline(always)]
fn icmp_error(ctx: &impl Frame, packet: &Packet, is_error: impl Fn(u8) -> bool) -> Kind {
    match at::<u8>(ctx, packet.transport) {
        // SAFETY: bounds checked by `at`.
        Some(kind) if is_error(unsafe { *kind }) => Kind::IcmpError,
        Some(_) => Kind::Foreign(Counter::Passed),
        None => Kind::Foreign(Counter::Unparsed),
    }
}

impl Packet {
    /// The TCP header, once a service or flow has claimed the packet: from here on what is malformed is dropped.
    #[inline(always)]
    pub fn segment(&self, ctx: &impl Frame) -> Result<Segment, DropReason> {
        let Some(header) = at::<TcpHdr>(ctx, self.transport) else {
            return Err(self.short(ctx));
        };
        // SAFETY: bounds checked by `at`, for every field below. Bytes 12 and 13 are data offset and flags (RFC 9293, 3.1).
        let (seq, ack, offset, flags): (u32, u32, u8, u8) = unsafe {
            (
                load(header, offset_of!(TcpHdr, seq)),
                load(header, offset_of!(TcpHdr, ack_seq)),
                load(header, 12),
                load(header, 13),
            )
        };
        let headers = (self.transport - self.network) as u32 + u32::from(offset >> 4) * 4;
        if usize::from(offset >> 4) * 4 < tcp::HEADER_LEN || headers > self.length {
            return Err(DropReason::BadDataOffset);
        }
        // Nearly every frame lies in one buffer; only for others is the helper asked.
        let end = self.network as u32 + self.length;
        let (start, first_end) = ctx.bounds();
        if end > (first_end - start) as u32 && end > ctx.length() {
            return Err(DropReason::Truncated);
        }
        Ok(Segment {
            seq: u32::from_be(seq),
            ack: u32::from_be(ack),
            len: tcp::segment_len(flags, self.length - headers),
            flags,
        })
    }

    /// Length of the TCP header as it says, options included, in bytes.
    #[inline(always)]
    pub fn header_length(&self, ctx: &impl Frame) -> Result<u32, DropReason> {
        let Some(header) = at::<TcpHdr>(ctx, self.transport) else {
            return Err(self.short(ctx));
        };
        // SAFETY: bounds checked by `at`; the data offset (RFC 9293, 3.1).
        let offset: u8 = unsafe { load(header, 12) };
        Ok(u32::from(offset >> 4) * 4)
    }

    /// Why a header that should be there is not in the first buffer.
    #[inline(always)]
    pub fn short(&self, ctx: &impl Frame) -> DropReason {
        let (start, end) = ctx.bounds();
        if ctx.length() as usize > end - start {
            DropReason::Segmented
        } else {
            DropReason::Truncated
        }
    }
}

/// The tuple of the packet that an ICMP error quotes, and where the quoted headers are.
pub struct Quote {
    pub key: FlowKey,
    pub network: usize,
    pub transport: usize,
}

/// Parses the packet that an ICMP error quotes (RFC 792; RFC 4443, 3) into `quote`; `false` unless it is TCP and no later fragment.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
pub fn quote(ctx: &impl Frame, packet: &Packet, quote: &mut Quote) -> bool {
    parse_quote(ctx, packet, quote).is_some()
}

#[inline(always)]
fn parse_quote(ctx: &impl Frame, packet: &Packet, quote: &mut Quote) -> Option<()> {
    const _: () = assert!(Icmpv4Hdr::LEN == 8 && Icmpv6Hdr::LEN == 8);
    let network = packet.transport + Icmpv4Hdr::LEN;
    // SAFETY: bounds checked by `at`, for every field below.
    let (source, destination, transport) = unsafe {
        if packet.v4 {
            let header = at::<Ipv4Hdr>(ctx, network)?;
            let version: u8 = load(header, 0);
            let fragment: u16 = load(header, offset_of!(Ipv4Hdr, frags));
            let protocol: u8 = load(header, offset_of!(Ipv4Hdr, proto));
            let length = usize::from(version & 0x0f) * 4;
            if version >> 4 != 4
                || length < Ipv4Hdr::LEN
                || u16::from_be(fragment) & 0x1fff != 0
                || protocol != TCP
            {
                return None;
            }
            (
                Address::from_v4_word(load(header, offset_of!(Ipv4Hdr, src_addr))),
                Address::from_v4_word(load(header, offset_of!(Ipv4Hdr, dst_addr))),
                network + length,
            )
        } else {
            let header = at::<Ipv6Hdr>(ctx, network)?;
            let source = load_address(header, offset_of!(Ipv6Hdr, src_addr));
            let destination = load_address(header, offset_of!(Ipv6Hdr, dst_addr));
            let mut protocol: u8 = load(header, offset_of!(Ipv6Hdr, next_hdr));
            let mut transport = network + Ipv6Hdr::LEN;
            if protocol != TCP {
                let Ok(end) = skip_extensions(ctx, protocol, transport) else {
                    return None;
                };
                (protocol, transport) = end;
            }
            if protocol != TCP {
                return None;
            }
            (source, destination, transport)
        }
    };
    let ports = at::<[u16; 2]>(ctx, transport)?;
    // SAFETY: bounds checked by `at`.
    let [source_port_be, destination_port_be] = unsafe { *ports };
    *quote = Quote {
        key: FlowKey {
            source,
            destination,
            source_port_be,
            destination_port_be,
        },
        network,
        transport,
    };
    Some(())
}
