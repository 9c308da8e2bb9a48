//! ICMP and ICMPv6 messages from scratch.

use std::net::IpAddr;

use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber};

use super::frame::{Link, ether_type, ipv4, ipv6};

/// An ICMP or ICMPv6 message.
#[derive(Clone, Debug)]
pub struct Icmp {
    /// Ethernet header.
    pub link: Link,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// Type and code.
    pub kind: (u8, u8),
    /// The header's second word.
    pub rest: [u8; 4],
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Icmp {
    /// The packet one router later, on another link, between other addresses, about what its receiver sent.
    #[must_use]
    pub fn forwarded(
        &self,
        link: Link,
        source: IpAddr,
        destination: IpAddr,
        body: Vec<u8>,
    ) -> Self {
        Self {
            link,
            source,
            destination,
            hops: self.hops - 1,
            body,
            ..self.clone()
        }
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        self.link.frame(ether_type(&self.source), &self.network())
    }

    /// The IP packet.
    #[must_use]
    pub fn network(&self) -> Vec<u8> {
        let (type_u8, code_u8) = self.kind;
        let bytes5to8 = self.rest;
        let mut bytes = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let kind = Icmpv4Type::Unknown {
                    type_u8,
                    code_u8,
                    bytes5to8,
                };
                let icmp = Icmpv4Header::with_checksum(kind, &self.body).to_bytes();
                let ip = ipv4(
                    source.octets(),
                    destination.octets(),
                    IpNumber::ICMP,
                    self.hops,
                    &[],
                    icmp.len() + self.body.len(),
                );
                [ip.to_bytes().as_slice(), icmp.as_slice()].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let kind = Icmpv6Type::Unknown {
                    type_u8,
                    code_u8,
                    bytes5to8,
                };
                let (source, destination) = (source.octets(), destination.octets());
                let icmp = Icmpv6Header::with_checksum(kind, source, destination, &self.body)
                    .expect("a body that fits into a packet")
                    .to_bytes();
                let ip = ipv6(
                    source,
                    destination,
                    IpNumber::IPV6_ICMP,
                    self.hops,
                    icmp.len() + self.body.len(),
                );
                [ip.to_bytes().as_slice(), icmp.as_slice()].concat()
            }
            mixed => panic!("a packet between two address families: {mixed:?}"),
        };
        bytes.extend(&self.body);
        bytes
    }
}
