//! What is read in a frame, by another parser than the datapath's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use snigate_tests::packets::frame::Mac;

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

/// The source and destination of a TCP segment.
pub(super) fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (source, destination) = addresses(frame)?;
    let tcp = segment(frame)?;
    Some((
        SocketAddr::new(source, tcp.source_port()),
        SocketAddr::new(destination, tcp.destination_port()),
    ))
}

/// A TCP segment, with what it carries.
pub(super) fn segment(frame: &[u8]) -> Option<TcpSlice<'_>> {
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Tcp(tcp) => Some(tcp),
        _ => None,
    }
}

/// What segments that follow on each other carry, and the sequence number of its first byte.
pub(super) fn joined<'a>(frames: impl Iterator<Item = &'a [u8]>) -> Result<(u32, Vec<u8>)> {
    let mut stream: Option<(u32, Vec<u8>)> = None;
    for frame in frames {
        let tcp = segment(frame).context("no TCP segment")?;
        let (first, bytes) = stream.get_or_insert_with(|| (tcp.sequence_number(), Vec::new()));
        ensure!(
            tcp.sequence_number() == first.wrapping_add(bytes.len() as u32),
            "a segment that does not follow on the one before"
        );
        bytes.extend(tcp.payload());
    }
    stream.context("no segment")
}

/// The MAC addresses: destination, and source.
pub(super) fn macs(frame: &[u8]) -> Option<(Mac, Mac)> {
    Some((
        frame.get(..6)?.try_into().ok()?,
        frame.get(6..12)?.try_into().ok()?,
    ))
}

/// Which checksums are right (RFC 1071).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    /// That of the IP header; IPv6 has none, and is right.
    pub(super) ip: bool,
    /// That of the TCP segment or ICMP message.
    pub(super) transport: bool,
}

/// Those of a frame; `None` for what can't be parsed.
pub(super) fn sums(frame: &[u8]) -> Option<Sums> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (ip, addresses) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().slice();
            (adds_up(sum(header)), sum(&header[12..20]))
        }
        NetSlice::Ipv6(ip) => (true, sum(&ip.header().slice()[8..40])),
        _ => return None,
    };
    let bytes = match packet.transport? {
        TransportSlice::Tcp(tcp) => sum(tcp.slice()) + addresses + pseudo(6, tcp.slice()),
        TransportSlice::Icmpv4(icmp) => sum(icmp.slice()),
        TransportSlice::Icmpv6(icmp) => sum(icmp.slice()) + addresses + pseudo(58, icmp.slice()),
        _ => return None,
    };
    Some(Sums {
        ip,
        transport: adds_up(bytes),
    })
}

/// What a pseudo header adds to its addresses.
fn pseudo(protocol: u64, bytes: &[u8]) -> u64 {
    protocol + bytes.len() as u64
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u16::from_be_bytes([high, low]),
        [high] => u16::from_be_bytes([high, 0]),
        _ => 0,
    });
    words.map(u64::from).sum()
}

/// Whether the sum over all words is that of one's complement's zero.
fn adds_up(sum: u64) -> bool {
    sum != 0 && sum.is_multiple_of(0xffff)
}
