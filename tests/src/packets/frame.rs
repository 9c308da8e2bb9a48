//! Frames from scratch: what goes in, and what is expected to come out.
//!
//! Headers and checksums are etherparse's, computed anew for every frame, so that an expectation owes nothing to the code under test.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, TcpHeader,
};

/// A MAC address.
pub type Mac = [u8; 6];

/// FIN bit of a segment's flags.
pub const FIN: u8 = 0x01;
/// SYN bit.
pub const SYN: u8 = 0x02;
/// RST bit.
pub const RST: u8 = 0x04;
/// PSH bit.
pub const PSH: u8 = 0x08;
/// ACK bit.
pub const ACK: u8 = 0x10;

/// Extension headers by number.
pub mod extension {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
}

/// What is before the IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Source address.
    pub source: Mac,
    /// Destination address.
    pub destination: Mac,
    /// VLAN tags, the outer first: protocol and control.
    pub tags: Vec<(u16, u16)>,
}

impl Link {
    /// The link in the other direction.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            tags: self.tags.clone(),
        }
    }

    /// A frame around a network packet.
    #[must_use]
    pub fn frame(&self, ether_type: EtherType, network: &[u8]) -> Vec<u8> {
        let mut types: Vec<u16> = self.tags.iter().map(|(protocol, _)| *protocol).collect();
        types.push(ether_type.0);
        let header = Ethernet2Header {
            source: self.source,
            destination: self.destination,
            ether_type: EtherType(types[0]),
        };
        let mut frame = header.to_bytes().to_vec();
        for ((_, control), next) in self.tags.iter().zip(&types[1..]) {
            frame.extend(control.to_be_bytes());
            frame.extend(next.to_be_bytes());
        }
        frame.extend(network);
        frame
    }
}

/// A TCP packet.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Ethernet header.
    pub link: Link,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// IPv4 options, in bytes, a multiple of four.
    pub ip_options: Vec<u8>,
    /// IPv6 extension headers: number, and the header's bytes after the next-header field.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// TCP options, in bytes, a multiple of four.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
    /// What is wrong with the TCP checksum: added to the right one, in one's complement. 0 for nothing.
    pub checksum_error: u16,
}

impl Tcp {
    /// A segment without flags and data.
    #[must_use]
    pub fn new(link: Link, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            link,
            source,
            destination,
            hops: 64,
            ip_options: Vec::new(),
            extensions: Vec::new(),
            seq: 0,
            ack: 0,
            flags: 0,
            window: 0x2000,
            options: Vec::new(),
            payload: Vec::new(),
            checksum_error: 0,
        }
    }

    /// With these flags.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// With a sequence number.
    #[must_use]
    pub fn seq(mut self, seq: u32) -> Self {
        self.seq = seq;
        self
    }

    /// With an acknowledgement number, and the flag.
    #[must_use]
    pub fn ack(mut self, ack: u32) -> Self {
        self.ack = ack;
        self.flags |= ACK;
        self
    }

    /// With data.
    #[must_use]
    pub fn data(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// With TCP options.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// With IPv4 options.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        self.ip_options = options.to_vec();
        self
    }

    /// With a further IPv6 extension header.
    #[must_use]
    pub fn extension(mut self, number: u8, rest: &[u8]) -> Self {
        self.extensions.push((number, rest.to_vec()));
        self
    }

    /// With this TTL or hop limit.
    #[must_use]
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// On another link.
    #[must_use]
    pub fn on(mut self, link: Link) -> Self {
        self.link = link;
        self
    }

    /// With these VLAN tags.
    #[must_use]
    pub fn tags(mut self, tags: &[(u16, u16)]) -> Self {
        self.link.tags = tags.to_vec();
        self
    }

    /// With a wrong TCP checksum.
    #[must_use]
    pub fn checksum_error(mut self, error: u16) -> Self {
        self.checksum_error = error;
        self
    }

    /// The packet one router later, on another link, between other addresses.
    #[must_use]
    pub fn forwarded(&self, link: Link, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            link,
            source,
            destination,
            hops: self.hops - 1,
            ..self.clone()
        }
    }

    /// Octets of sequence space that it takes.
    #[must_use]
    pub fn sequence_length(&self) -> u32 {
        self.payload.len() as u32
            + u32::from(self.flags & SYN != 0)
            + u32::from(self.flags & FIN != 0)
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let ether_type = ether_type(&self.source.ip());
        self.link.frame(ether_type, &self.network())
    }

    /// The IP packet.
    #[must_use]
    pub fn network(&self) -> Vec<u8> {
        let mut transport = self.transport();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = ipv4(
                    source.octets(),
                    destination.octets(),
                    IpNumber::TCP,
                    self.hops,
                    &self.ip_options,
                    transport.len(),
                );
                let mut bytes = header.to_bytes().to_vec();
                bytes.append(&mut transport);
                bytes
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut payload = Vec::new();
                for (i, (_, rest)) in self.extensions.iter().enumerate() {
                    let next = self.extensions.get(i + 1).map_or(IpNumber::TCP.0, |e| e.0);
                    payload.push(next);
                    payload.extend(rest);
                }
                payload.append(&mut transport);
                let first = self.extensions.first().map_or(IpNumber::TCP.0, |e| e.0);
                let header = ipv6(
                    source.octets(),
                    destination.octets(),
                    IpNumber(first),
                    self.hops,
                    payload.len(),
                );
                let mut bytes = header.to_bytes().to_vec();
                bytes.append(&mut payload);
                bytes
            }
            mixed => panic!("a packet between two address families: {mixed:?}"),
        }
    }

    /// The IP packet's beginning, as an ICMP error quotes it: its headers before TCP, and `length` bytes of TCP.
    #[must_use]
    pub fn quote(&self, length: usize) -> Vec<u8> {
        let mut bytes = self.network();
        bytes.truncate(self.transport_offset() + length);
        bytes
    }

    /// Offset of the TCP header from the IP header.
    #[must_use]
    pub fn transport_offset(&self) -> usize {
        self.network().len() - self.transport().len()
    }

    fn transport(&self) -> Vec<u8> {
        let flag = |bit: u8| self.flags & bit != 0;
        let mut header = TcpHeader::new(
            self.source.port(),
            self.destination.port(),
            self.seq,
            self.window,
        );
        header.acknowledgment_number = self.ack;
        header.fin = flag(FIN);
        header.syn = flag(SYN);
        header.rst = flag(RST);
        header.psh = flag(PSH);
        header.ack = flag(ACK);
        header
            .set_options_raw(&self.options)
            .expect("TCP options of at most 40 bytes");
        let checksum = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &self.payload)
            }
            mixed => panic!("a packet between two address families: {mixed:?}"),
        }
        .expect("a payload that fits into a packet");
        let (sum, carry) = checksum.overflowing_add(self.checksum_error);
        header.checksum = sum + u16::from(carry);
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(&self.payload);
        bytes
    }
}

/// The reset that a segment is answered with (RFC 9293, 3.5.2), back on the link that it came on.
#[must_use]
pub fn reset_of(packet: &Tcp) -> Tcp {
    let reset = Tcp {
        window: 0,
        ..Tcp::new(packet.link.reversed(), packet.destination, packet.source)
    };
    if packet.flags & ACK != 0 {
        reset.flags(RST).seq(packet.ack)
    } else {
        reset
            .flags(RST)
            .ack(packet.seq.wrapping_add(packet.sequence_length()))
    }
}

/// The EtherType of an address's family.
#[must_use]
pub fn ether_type(address: &IpAddr) -> EtherType {
    match address {
        IpAddr::V4(_) => EtherType::IPV4,
        IpAddr::V6(_) => EtherType::IPV6,
    }
}

/// An IPv4 header with its checksum.
#[must_use]
pub fn ipv4(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: IpNumber,
    hops: u8,
    options: &[u8],
    payload: usize,
) -> Ipv4Header {
    let mut header = Ipv4Header {
        time_to_live: hops,
        protocol,
        source,
        destination,
        dont_fragment: true,
        options: Ipv4Options::try_from(options).expect("IPv4 options in words, 40 bytes at most"),
        ..Ipv4Header::default()
    };
    header
        .set_payload_len(payload)
        .expect("a payload that fits into a packet");
    header.header_checksum = header.calc_header_checksum();
    header
}

/// An IPv6 header.
#[must_use]
pub fn ipv6(
    source: [u8; 16],
    destination: [u8; 16],
    next_header: IpNumber,
    hop_limit: u8,
    payload: usize,
) -> Ipv6Header {
    let mut header = Ipv6Header {
        next_header,
        hop_limit,
        source,
        destination,
        ..Ipv6Header::default()
    };
    header
        .set_payload_length(payload)
        .expect("a payload that fits into a packet");
    header
}
