//! The RST segments that end a flow, and the raw sockets that send them.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with},
};

use crate::cli::{CliError, view::flow::Pair};

/// A segment that ends one side's half of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reset {
    source: SocketAddr,
    destination: SocketAddr,
    seq: u32,
    ack: u32,
}

const TTL: u8 = 64;

/// The segments for both sides of a flow.
///
/// A receiver takes an RST only at the very sequence number that it expects next (RFC 5961, 3.2). That is what the other side would send
/// next if nothing is in flight, and what it has acknowledged itself otherwise; where the two differ, there is a segment for each. The
/// acknowledgement is what a client in SYN-SENT goes by (RFC 9293, 3.10.7.3).
///
/// Each side gets numbers as it counts itself: what the other one sends is translated on its way, what it has sent or acknowledged is not.
pub(super) fn resets(pair: &Pair) -> Vec<Reset> {
    let (Some(to_edge), Some(to_client)) = (&pair.to_edge, &pair.to_client) else {
        // Half of a flow does not say what the other side expects, and moves nothing any longer.
        return Vec::new();
    };
    let toward_client = Reset {
        source: pair.vip(),
        destination: pair.client(),
        seq: to_client.sent(),
        ack: to_edge.next_seq,
    };
    let toward_edge = Reset {
        source: pair.edge_source(),
        destination: pair.edge_address(),
        seq: to_edge.sent(),
        ack: to_client.next_seq,
    };
    let mut resets = vec![toward_client];
    if to_edge.last_ack != to_client.sent() {
        resets.push(Reset {
            seq: to_edge.last_ack,
            ..toward_client
        });
    }
    resets.push(toward_edge);
    if to_client.last_ack != to_edge.sent() {
        resets.push(Reset {
            seq: to_client.last_ack,
            ..toward_edge
        });
    }
    resets
}

impl Reset {
    /// The packet from the IP header on, with its checksums.
    fn packet(&self) -> Vec<u8> {
        let ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PacketBuilder::ipv4(source.octets(), destination.octets(), TTL)
            }
            (source, destination) => PacketBuilder::ipv6(v6(source), v6(destination), TTL),
        };
        let segment = ip
            .tcp(self.source.port(), self.destination.port(), self.seq, 0)
            .rst()
            .ack(self.ack);
        let mut packet = Vec::with_capacity(segment.size(0));
        segment.write(&mut packet, &[]).expect("a vector takes whatever is written to it, and a header without payload is short enough");
        packet
    }
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Sends packets whose source is not an address of this host.
pub(super) struct Sender {
    v4: OwnedFd,
    v6: Option<OwnedFd>,
}

impl Sender {
    /// Opens a socket for each address family: a host without IPv6 has no such flows, and needs none.
    pub(super) fn open() -> Result<Self, CliError> {
        let v6 = match raw_socket(AddressFamily::INET6) {
            Ok(socket) => Some(socket),
            Err(Errno::AFNOSUPPORT) => None,
            Err(error) => return Err(refused(error)),
        };
        Ok(Self {
            v4: raw_socket(AddressFamily::INET).map_err(refused)?,
            v6,
        })
    }

    /// Sends a segment.
    pub(super) fn send(&self, reset: &Reset) -> Result<(), CliError> {
        // The destination is in the packet; a port here would be taken for the protocol (raw(7)).
        let destination = SocketAddr::new(reset.destination.ip(), 0);
        let socket = match (&self.v4, &self.v6) {
            (v4, _) if destination.is_ipv4() => Ok(v4),
            (_, Some(v6)) => Ok(v6),
            (_, None) => Err(Errno::AFNOSUPPORT),
        };
        socket
            .and_then(|socket| sendto(socket, &reset.packet(), SendFlags::empty(), &destination))
            .map_err(|error| CliError::Network {
                what: format!("resetting {}", reset.destination),
                source: error.into(),
            })?;
        Ok(())
    }
}

/// IPPROTO_RAW: the packet comes with its IP header, for IPv6 too (net/ipv6/af_inet6.c sets IPV6_HDRINCL for it).
fn raw_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    socket_with(
        family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::RAW),
    )
}

fn refused(error: Errno) -> CliError {
    match error {
        Errno::PERM | Errno::ACCESS => CliError::RawSocket,
        error => CliError::Network {
            what: "opening a raw socket".into(),
            source: error.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::{flow::Pairs, made_up};
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    fn made_up_flow(client: &str) -> Pair {
        let flows = Pairs::new(made_up::flow_tables(&[(client, 0, 0)], &[]));
        flows.iter().next().unwrap()
    }

    #[test]
    fn both_sides_are_reset_at_what_they_expect_next() {
        let resets = resets(&made_up_flow("198.51.100.1:4711"));
        let shown: Vec<_> = resets
            .iter()
            .map(|r| {
                (
                    r.source.to_string(),
                    r.destination.to_string(),
                    r.seq,
                    r.ack,
                )
            })
            .collect();
        let text = |source: &str, destination: &str, seq, ack| {
            (source.to_owned(), destination.to_owned(), seq, ack)
        };
        assert_eq!(
            shown,
            [
                text("198.51.100.10:5061", "198.51.100.1:4711", 2000, 1000),
                // 100 bytes of the Edge's are still on their way to the client.
                text("198.51.100.10:5061", "198.51.100.1:4711", 1900, 1000),
                text("198.51.100.1:4711", "203.0.113.10:5061", 1000, 2000),
            ]
        );
    }

    #[test]
    fn each_side_of_a_handed_off_flow_gets_numbers_as_it_counts() {
        let mut flow = made_up_flow("198.51.100.1:4711");
        let (to_edge, to_client) = (
            flow.to_edge.as_mut().unwrap(),
            flow.to_client.as_mut().unwrap(),
        );
        to_edge.translation.seq = 50_000;
        to_edge.translation.ack = 7000_u32.wrapping_neg();
        to_client.translation.seq = 7000;
        to_client.translation.ack = 50_000_u32.wrapping_neg();
        // The client has sent up to 1000 and acknowledged 100 bytes less than the Edge has sent, up to 2000 as the Edge counts; and the Edge
        // has acknowledged 10 bytes less than the client has sent.
        to_edge.last_ack = 8900;
        to_client.last_ack = 50_990;
        let numbers: Vec<_> = resets(&flow)
            .iter()
            .map(|reset| (reset.destination.ip().to_string(), reset.seq, reset.ack))
            .collect();
        let (client, edge) = ("198.51.100.1".to_owned(), "203.0.113.10".to_owned());
        assert_eq!(
            numbers,
            [
                (client.clone(), 9000, 1000),
                (client, 8900, 1000),
                (edge.clone(), 51_000, 2000),
                (edge, 50_990, 2000),
            ]
        );
    }

    #[test]
    fn half_a_flow_sends_nothing() {
        let mut half = made_up_flow("198.51.100.1:4711");
        half.to_client = None;
        assert_eq!(resets(&half), []);
    }

    #[test]
    fn packets_have_right_headers_and_checksums() {
        for client in ["198.51.100.1:4711", "[2001:db8:1::1]:4711"] {
            for reset in resets(&made_up_flow(client)) {
                let bytes = reset.packet();
                let packet = SlicedPacket::from_ip(&bytes).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
                    panic!("no TCP in {bytes:02x?}");
                };
                assert!(tcp.rst() && tcp.ack() && !tcp.syn() && !tcp.fin());
                assert_eq!(
                    (tcp.sequence_number(), tcp.acknowledgment_number()),
                    (reset.seq, reset.ack)
                );
                assert_eq!(
                    (tcp.source_port(), tcp.destination_port()),
                    (reset.source.port(), reset.destination.port())
                );
                let expected = match packet.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        let header = ip.header().to_header();
                        assert_eq!(header.header_checksum, header.calc_header_checksum());
                        assert_eq!(IpAddr::from(header.destination), reset.destination.ip());
                        tcp.to_header().calc_checksum_ipv4(&header, &[]).unwrap()
                    }
                    NetSlice::Ipv6(ip) => {
                        assert_eq!(IpAddr::from(ip.header().source_addr()), reset.source.ip());
                        tcp.to_header()
                            .calc_checksum_ipv6(&ip.header().to_header(), &[])
                            .unwrap()
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(tcp.checksum(), expected);
            }
        }
    }
}
