//! The way back to a transparent socket: an Edge's answers go to the client's address, which is not this host's, and routing would forward them.
//!
//! Where this host has a socket for the very connection, the packet is marked, and a rule of the host's routing makes marked packets local. All
//! others are left alone: connections between clients and Edges that are only routed through this host go on as ever. ICMP errors about such a
//! connection go the same way, or path MTU discovery would fail.

use core::{mem::offset_of, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
    programs::TcContext,
};
use network_types::{
    eth::EthHdr,
    icmp::{Icmpv4Hdr, Icmpv6Hdr},
    ip::{Ipv4Hdr, Ipv6Hdr},
};
use sni_common::{
    Address,
    contract::{FILTER_EDGES, FlowKey, TRANSPARENT_MARK, filter_bit},
};

use crate::{
    lookup::in_filter,
    packet::{
        ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, ICMP, ICMPV6, TCP,
        is_icmp_error, is_icmpv6_error,
    },
};

/// States of a socket (include/net/tcp_states.h) that is no end of a connection: a listener, and a connection that a listener has not accepted yet.
/// TIME_WAIT is one: the last acknowledgements of the Edge belong there.
const TCP_LISTEN: u32 = 10;
const TCP_NEW_SYN_RECV: u32 = 12;

/// Marks a packet that an Edge sends to a socket of this host, and an ICMP error about what such a socket has sent. Never drops.
#[inline(always)]
pub fn mark(ctx: &TcContext) {
    let Some(key) = from_edge(ctx) else { return };
    if in_filter(FILTER_EDGES + filter_bit(&key.source, key.source_port_be))
        && has_socket(ctx, &key)
    {
        // SAFETY: a field of a valid context.
        let mark = unsafe { (*ctx.skb.skb).mark };
        ctx.set_mark(mark | TRANSPARENT_MARK);
    }
}

/// Whether this host has a socket for the connection of a packet that arrives.
#[inline(always)]
fn has_socket(ctx: &TcContext, key: &FlowKey) -> bool {
    const _: () = assert!(size_of::<FlowKey>() == 36 && offset_of!(FlowKey, source_port_be) == 32);
    let v4 = [
        key.source.v4_word(),
        key.destination.v4_word(),
        key.ports_word(),
    ];
    // The kernel's tuple: an IPv6 one is laid out like a key.
    let (tuple, size) = if key.source.is_v4() {
        (
            ptr::from_ref(&v4).cast::<bpf_sock_tuple>(),
            size_of_val(&v4),
        )
    } else {
        (ptr::from_ref(key).cast(), size_of::<FlowKey>())
    };
    // SAFETY: the tuple is as long as said; the helper does not write to it.
    let socket = unsafe {
        bpf_skc_lookup_tcp(
            ctx.as_ptr(),
            tuple.cast_mut(),
            size as u32,
            BPF_F_CURRENT_NETNS as i64 as u64,
            0,
        )
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: a live socket; volatile, because the verifier takes loads of the field's own size only.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    // SAFETY: the reference that the lookup has taken, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    state != TCP_LISTEN && state != TCP_NEW_SYN_RECV
}

/// Addresses and ports of a TCP packet; of an ICMP error, those that an answer to the quoted packet would have.
#[inline(always)]
fn from_edge(ctx: &TcContext) -> Option<FlowKey> {
    let mut ethertype: u16 = load(ctx, offset_of!(EthHdr, ether_type))?;
    let mut network = EthHdr::LEN;
    // The kernel has taken the outer tag out of the frame already.
    if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
        ethertype = load(ctx, network + 2)?;
        network += 4;
    }
    let v4 = match ethertype {
        ETHERTYPE_IPV4 => true,
        ETHERTYPE_IPV6 => false,
        _ => return None,
    };
    const _: () = assert!(Icmpv4Hdr::LEN == 8 && Icmpv6Hdr::LEN == 8);
    let outer = header(ctx, network, v4)?;
    match outer.protocol {
        TCP => ports(ctx, &outer),
        ICMP | ICMPV6 => {
            let kind = load(ctx, outer.transport)?;
            if !(if v4 {
                is_icmp_error(kind)
            } else {
                is_icmpv6_error(kind)
            }) {
                return None;
            }
            let quoted = header(ctx, outer.transport + Icmpv4Hdr::LEN, v4)?;
            match quoted.protocol {
                TCP => Some(ports(ctx, &quoted)?.reversed()),
                _ => None,
            }
        }
        _ => None,
    }
}

struct Header {
    source: Address,
    destination: Address,
    protocol: u8,
    transport: usize,
}

/// An IP header; not that of a fragment, and of IPv6 none with extension headers, which TCP stacks do not send.
#[inline(always)]
fn header(ctx: &TcContext, at: usize, v4: bool) -> Option<Header> {
    if v4 {
        let version: u8 = load(ctx, at)?;
        let fragment: u16 = load(ctx, at + offset_of!(Ipv4Hdr, frags))?;
        if u16::from_be(fragment) & 0x3fff != 0 {
            return None;
        }
        let [source, destination]: [u32; 2] = load(ctx, at + offset_of!(Ipv4Hdr, src_addr))?;
        Some(Header {
            source: Address::from_v4_word(source),
            destination: Address::from_v4_word(destination),
            protocol: load(ctx, at + offset_of!(Ipv4Hdr, proto))?,
            transport: at + usize::from(version & 0x0f) * 4,
        })
    } else {
        let [source, destination]: [[u32; 4]; 2] = load(ctx, at + offset_of!(Ipv6Hdr, src_addr))?;
        Some(Header {
            source: Address(source),
            destination: Address(destination),
            protocol: load(ctx, at + offset_of!(Ipv6Hdr, next_hdr))?,
            transport: at + Ipv6Hdr::LEN,
        })
    }
}

#[inline(always)]
fn ports(ctx: &TcContext, header: &Header) -> Option<FlowKey> {
    let [source_port_be, destination_port_be] = load(ctx, header.transport)?;
    Some(FlowKey {
        source: header.source,
        destination: header.destination,
        source_port_be,
        destination_port_be,
    })
}

/// Copies what is at an offset from the Ethernet header, also out of a later buffer.
#[inline(always)]
fn load<T>(ctx: &TcContext, offset: usize) -> Option<T> {
    ctx.load(offset).ok()
}
