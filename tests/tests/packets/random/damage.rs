//! Packets gone wrong.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use fastrand::Rng;
use snigate_tests::addresses::{Host, PARTNER, VIP_1, VIP_2, partner};

use super::frames::network;

/// Damages a frame, in one to four ways; half of them are then given right checksums, so that more than the checksum is looked at.
pub(super) fn gone_wrong(mut frame: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    for _ in 0..random.u8(1..5) {
        let at = random.usize(..frame.len());
        match random.u8(..7) {
            0 => frame[at] ^= 1 << random.u8(..8),
            1 => frame[at] = random.u8(..),
            2 => frame[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
            3 => frame.truncate(at.max(14)),
            4 => frame.extend(vec![random.u8(..); random.usize(..40)]),
            5 => {
                let bytes = address(random);
                let end = frame.len().min(at + bytes.len());
                frame[at..end].copy_from_slice(&bytes[..end - at]);
            }
            // The fields of the IP and TCP headers rather than anything.
            _ => {
                let at = random.usize(12..frame.len().clamp(13, 60));
                frame[at] = random.u8(..);
            }
        }
    }
    if random.bool() {
        mend(&mut frame);
    }
    frame
}

/// An address that means something to the datapath; not an Edge's, or it would become a client, to whom packets may go.
fn address(random: &mut Rng) -> Vec<u8> {
    let hosts = [PARTNER, partner(1), partner(2), VIP_1, VIP_2];
    let Host { v4, v6 } = hosts[random.usize(..hosts.len())];
    if random.bool() {
        v4.octets().to_vec()
    } else {
        v6.octets().to_vec()
    }
}

/// Writes the checksums of the IP and TCP headers anew, where these can be found.
pub(super) fn mend(frame: &mut [u8]) {
    let Some((ip, _)) = network(frame) else {
        return;
    };
    if let Some((at, sum)) = ip_sum(frame, ip) {
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    if let Some((at, sum)) = tcp_sum(frame) {
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Where the sum of an IPv4 header belongs, and what it is.
fn ip_sum(frame: &[u8], ip: usize) -> Option<(usize, u16)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.net? {
        NetSlice::Ipv4(slice) => Some((ip + 10, slice.header().to_header().calc_header_checksum())),
        _ => None,
    }
}

/// Likewise of a TCP header.
fn tcp_sum(frame: &[u8]) -> Option<(usize, u16)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let TransportSlice::Tcp(tcp) = packet.transport? else {
        return None;
    };
    let header = tcp.to_header();
    let sum = match packet.net? {
        NetSlice::Ipv4(ip) => header.calc_checksum_ipv4_raw(
            ip.header().source(),
            ip.header().destination(),
            tcp.payload(),
        ),
        NetSlice::Ipv6(ip) => header.calc_checksum_ipv6_raw(
            ip.header().source(),
            ip.header().destination(),
            tcp.payload(),
        ),
        _ => return None,
    };
    let start = tcp.slice().as_ptr().addr() - frame.as_ptr().addr();
    Some((start + 16, sum.ok()?))
}
