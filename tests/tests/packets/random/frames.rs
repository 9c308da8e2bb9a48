//! What is read in a frame, by another parser than the datapath's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// Where the IP header starts, behind at most two tags; and the frame's EtherType.
pub(super) fn network(frame: &[u8]) -> Option<(usize, [u8; 2])> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) && at < 20 {
        at += 4;
    }
    Some((at + 2, frame.get(at..at + 2)?.try_into().ok()?))
}

/// How long a frame has to be by its IP header.
pub(super) fn length(frame: &[u8]) -> Option<usize> {
    let (at, kind) = network(frame)?;
    let number = |at: usize| {
        Some(usize::from(u16::from_be_bytes([
            *frame.get(at)?,
            *frame.get(at + 1)?,
        ])))
    };
    match kind {
        [0x08, 0x00] => Some(at + number(at + 2)?),
        [0x86, 0xdd] => Some(at + 40 + number(at + 4)?),
        _ => None,
    }
}

/// The addresses of the outermost IP header.
pub(super) fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (at, kind) = network(frame)?;
    let ip = frame.get(at..)?;
    match kind {
        [0x08, 0x00] | [0x86, 0xdd] => addresses_of(ip, kind == [0x08, 0x00]),
        _ => None,
    }
}

/// Those of the packet that an ICMP error quotes.
pub(super) fn quoted(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    const ICMP: usize = 8;
    let (at, kind) = network(frame)?;
    let ip = frame.get(at..)?;
    let v4 = kind == [0x08, 0x00];
    let header = if v4 {
        4 * usize::from(ip.first()? & 0xf)
    } else {
        40
    };
    addresses_of(ip.get(header + ICMP..)?, v4)
}

fn addresses_of(ip: &[u8], v4: bool) -> Option<(IpAddr, IpAddr)> {
    Some(match v4 {
        true => {
            let address = |at: usize| {
                let octets: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(Ipv4Addr::from(octets)))
            };
            (address(12)?, address(16)?)
        }
        false => {
            let address = |at: usize| {
                let octets: [u8; 16] = ip.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::from(Ipv6Addr::from(octets)))
            };
            (address(8)?, address(24)?)
        }
    })
}

/// Whether all checksums are right; `None` for what can't be parsed.
pub(super) fn sums(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let net = packet.net?;
    let header = match &net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            header.header_checksum == header.calc_header_checksum()
        }
        _ => true,
    };
    let transport = match (&packet.transport?, &net) {
        (TransportSlice::Tcp(tcp), NetSlice::Ipv4(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            let sum = tcp
                .to_header()
                .calc_checksum_ipv4_raw(from, to, tcp.payload());
            sum.ok()? == tcp.checksum()
        }
        (TransportSlice::Tcp(tcp), NetSlice::Ipv6(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            let sum = tcp
                .to_header()
                .calc_checksum_ipv6_raw(from, to, tcp.payload());
            sum.ok()? == tcp.checksum()
        }
        (TransportSlice::Icmpv4(icmp), _) => {
            let mut header = icmp.header();
            header.update_checksum(icmp.payload());
            header.checksum == icmp.checksum()
        }
        (TransportSlice::Icmpv6(icmp), NetSlice::Ipv6(ip)) => {
            icmp.is_checksum_valid(ip.header().source(), ip.header().destination())
        }
        _ => return None,
    };
    Some(header && transport)
}
