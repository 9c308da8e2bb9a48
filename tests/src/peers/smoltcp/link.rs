//! What connects smoltcp to a packet socket.

use std::collections::VecDeque;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
};
use socket2::Socket;

use crate::line;

const MTU: usize = 1500;
const LARGEST_FRAME: usize = 14 + MTU;

/// A packet socket as smoltcp's device.
pub(super) struct Link {
    pub(super) line: Socket,
    received: VecDeque<Vec<u8>>,
    pub(super) wrong_checksums: u64,
}

impl Link {
    pub(super) fn new(line: Socket) -> Self {
        Self {
            line,
            received: VecDeque::new(),
            wrong_checksums: 0,
        }
    }

    /// Whether frames wait that smoltcp has not had yet.
    pub(super) fn has_frames(&self) -> bool {
        !self.received.is_empty()
    }

    /// Takes in what has arrived.
    pub(super) fn take_in(&mut self) -> Result<()> {
        // Bounded, so that a flood leaves room for answers.
        for _ in 0..64 {
            let frame = line::receive(LARGEST_FRAME, |buffer| (&mut &self.line).read(buffer));
            let Some(frame) = frame.context("receiving a frame")? else {
                break;
            };
            self.wrong_checksums += u64::from(checksum_is_wrong(&frame));
            self.received.push_back(frame);
        }
        Ok(())
    }
}

impl Device for Link {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Sender<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Frame(frame), Sender(&self.line)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(Sender(&self.line))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // Checksums are computed and verified: the default.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = LARGEST_FRAME;
        capabilities
    }
}

pub(super) struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

pub(super) struct Sender<'a>(&'a Socket);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        if let Err(error) = line::deliver(self.0.send(&frame)) {
            eprintln!("smoltcp's frame could not be sent: {error}");
        }
        result
    }
}

/// Whether it is a TCP segment that smoltcp will refuse for its checksum, or for that of its IPv4 header.
fn checksum_is_wrong(frame: &[u8]) -> bool {
    let segment_is_wrong = |payload: &[u8], source: IpAddress, destination: IpAddress| {
        TcpPacket::new_checked(payload)
            .is_ok_and(|segment| !segment.verify_checksum(&source, &destination))
    };
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return false;
    };
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => Ipv4Packet::new_checked(frame.payload()).is_ok_and(|packet| {
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            packet.next_header() == IpProtocol::Tcp
                && (!packet.verify_checksum()
                    || segment_is_wrong(packet.payload(), source, destination))
        }),
        EthernetProtocol::Ipv6 => Ipv6Packet::new_checked(frame.payload()).is_ok_and(|packet| {
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            packet.next_header() == IpProtocol::Tcp
                && segment_is_wrong(packet.payload(), source, destination)
        }),
        _ => false,
    }
}
