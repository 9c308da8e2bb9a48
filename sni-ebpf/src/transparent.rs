//! The way back to a transparent socket: an Edge's answers go to the client's address, which is not this host's, and routing would forward them.
//!
//! Where this host has a socket for the very connection, the packet is marked, and a rule of the host's routing makes marked packets local. All
//! others are left alone: connections between clients and Edges that are only routed through this host go on as ever. ICMP errors about such a
//! connection go the same way, or path MTU discovery would fail.

use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use network_types::{
    eth::EthHdr,
    icmp::{Icmpv4Hdr, Icmpv6Hdr},
    ip::{Ipv4Hdr, Ipv6Hdr},
};
use sni_common::{
    Address,
    contract::{
        DropReason, FILTER_EDGES, FILTER_SERVICES, FlowKey, TRANSPARENT_MARK, Way, filter_bit,
    },
    tcp::{RST, SYN},
};

use crate::{
    bind::deliver,
    capture,
    finish::count_drop,
    lookup::{self, in_filter},
    maps::HANDING_OFF,
    packet::{
        ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, ICMP, ICMPV6, TCP,
        is_icmp_error, is_icmpv6_error,
    },
    socket,
};

/// Where a TCP header has its flags.
const TCP_FLAGS: usize = 13;

/// What an Edge sends, or what is said about it.
struct FromEdge {
    /// Addresses and ports of a TCP packet; of an ICMP error, those that an answer to the quoted packet would have.
    key: FlowKey,
    /// Whether it is a TCP packet.
    is_tcp: bool,
    /// Whether it can be an answer to a SYN.
    answers_syn: bool,
}

/// Marks a packet that an Edge sends to a socket of this host, and an ICMP error about what such a socket has sent.
///
/// Drops nothing but what is late: a packet that XDP has let pass before its flow was handed off, and that reaches the host when the socket has been
/// given up. The host would answer it with a reset.
#[inline(always)]
pub fn mark(ctx: &TcContext) -> i32 {
    let Some(packet) = from_edge(ctx) else {
        return TC_ACT_UNSPEC;
    };
    let key = &packet.key;
    let from_edge = in_filter(FILTER_EDGES + filter_bit(&key.source, key.source_port_be));
    if !from_edge
        && !in_filter(FILTER_SERVICES + filter_bit(&key.destination, key.destination_port_be))
    {
        return TC_ACT_UNSPEC;
    }
    if let Some(flow) = lookup::flow(key) {
        // SAFETY: a live map value.
        let way = unsafe { (*flow).way };
        if way == Way::Bound as u8 && packet.is_tcp && from_edge {
            return deliver::answer(ctx);
        }
        // Of a handed-off flow whose sockets are gone.
        if way == Way::HandedOff as u8 && HANDING_OFF.get_ptr(key).is_none() {
            count_drop(DropReason::GivenUp);
            if capture::is_wanted() {
                capture::dropped(ctx, key, DropReason::GivenUp);
            }
            return TC_ACT_SHOT;
        }
    }
    if from_edge {
        mark_for_socket(ctx, &packet);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn mark_for_socket(ctx: &TcContext, packet: &FromEdge) {
    let Some(state) = socket::state(ctx.as_ptr(), &packet.key) else {
        return;
    };
    // Where the client itself has a connection of this port to the Edge, the Edge answers a SYN with what belongs to that one (RFC 9293 section
    // 3.10.7.4). The socket would answer with a RST, and end it.
    // One that a listener has not accepted yet is not the agent's.
    if state == socket::NEW_SYN_RECV || state == socket::SYN_SENT && !packet.answers_syn {
        return;
    }
    // SAFETY: a field of a valid context.
    let mark = unsafe { (*ctx.skb.skb).mark };
    ctx.set_mark(mark | TRANSPARENT_MARK);
}

#[inline(always)]
fn from_edge(ctx: &TcContext) -> Option<FromEdge> {
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
        TCP => {
            let flags: u8 = load(ctx, outer.transport + TCP_FLAGS)?;
            Some(FromEdge {
                key: ports(ctx, &outer)?,
                is_tcp: true,
                answers_syn: flags & (SYN | RST) != 0,
            })
        }
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
                TCP => Some(FromEdge {
                    key: ports(ctx, &quoted)?.reversed(),
                    is_tcp: false,
                    answers_syn: true,
                }),
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
