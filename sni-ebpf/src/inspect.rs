//! A packet to a service where the ClientHello decides: the host's, once what begins a connection is admitted.

use core::mem::offset_of;

use network_types::tcp::TcpHdr;
use sni_common::{
    contract::{CONTROL_ANNOUNCED, Counter},
    tcp::{Opening, opening},
};

use crate::{
    bind::pending,
    frame::Frame,
    lookup::Inspecting,
    maps::control,
    packet::{Packet, at, load},
    splice,
    steer::admit_source,
    verdict::Verdict,
};

/// Offset of the flags byte (RFC 9293, 3.1).
const FLAGS: usize = offset_of!(TcpHdr, ack_seq) + 5;

/// Charges a SYN to its source, as steering does. Everything else is for the host to judge, also what is malformed: no Edge sees it.
#[inline(always)]
pub fn packet(ctx: &impl Frame, packet: &Packet, service: &Inspecting) -> Verdict {
    let announced = control(CONTROL_ANNOUNCED);
    if service.bind && announced != 0 {
        return pending::packet(ctx, packet, service, announced);
    }
    if begins(ctx, packet) {
        if let Err(reason) = admit_source(&packet.key.source) {
            return Verdict::Drop(reason);
        }
        splice::client_syn(ctx, packet);
    }
    Verdict::Pass(Counter::Inspected)
}

/// Whether a packet begins a connection.
#[inline(always)]
pub fn begins(ctx: &impl Frame, packet: &Packet) -> bool {
    let Some(header) = at::<TcpHdr>(ctx, packet.transport) else {
        return false;
    };
    // SAFETY: bounds checked by `at`.
    let flags: u8 = unsafe { load(header, FLAGS) };
    matches!(opening(flags), Opening::Syn)
}
