//! Who claims a packet: an established flow, a half-open one, a service, or nobody.

use sni_common::contract::{
    CONTROL_GENERATION, Counter, FILTER_EDGES, FILTER_SERVICES, Flow, Mode, SERVICE_BIND, Service,
    ServiceKey, filter_bit,
};

use crate::{
    maps::{FILTER, FLOWS, HALF_OPEN, SERVICES, control},
    packet::Packet,
};

/// Which flow a packet is of.
pub enum Claim {
    /// An established one.
    Established(*mut Flow),
    /// One whose handshake is not complete.
    HalfOpen(*mut Flow),
    /// None, but it probably goes to a service.
    Service,
    /// None, but it probably comes from an Edge.
    Edge,
    /// None.
    None,
}

/// What the service that a packet goes to does with it.
pub enum Offer {
    /// The address decides.
    Steer(Steering),
    /// The ClientHello decides.
    Inspect(Inspecting),
    /// There is no such service.
    None,
}

/// A service whose address decides.
pub struct Steering {
    pub generation: u32,
    pub pool: u32,
    pub ip_set: u32,
}

/// A service where the ClientHello decides.
pub struct Inspecting {
    pub generation: u32,
    pub ip_set: u32,
    /// Whether the datapath may bind connections.
    pub bind: bool,
}

/// Looks for the flow of a TCP packet.
#[inline(always)]
pub fn claim(packet: &Packet) -> Claim {
    let key = &packet.key;
    let to_service =
        in_filter(FILTER_SERVICES + filter_bit(&key.destination, key.destination_port_be));
    if !to_service && !in_filter(FILTER_EDGES + filter_bit(&key.source, key.source_port_be)) {
        return Claim::None;
    }
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        return Claim::Established(flow);
    }
    if let Some(flow) = HALF_OPEN.get_ptr_mut(key) {
        return Claim::HalfOpen(flow);
    }
    if to_service {
        Claim::Service
    } else {
        Claim::Edge
    }
}

/// Looks for the service that a TCP packet goes to.
#[inline(always)]
pub fn service(packet: &Packet) -> Offer {
    let key = &packet.key;
    let generation = control(CONTROL_GENERATION) as u32;
    match entry(&ServiceKey::tcp(
        generation,
        key.destination,
        key.destination_port_be,
    )) {
        Some(Service {
            mode, pool, ip_set, ..
        }) if mode == Mode::Steer as u8 => Offer::Steer(Steering {
            generation,
            pool,
            ip_set,
        }),
        Some(Service { flags, ip_set, .. }) => Offer::Inspect(Inspecting {
            generation,
            ip_set,
            bind: flags & SERVICE_BIND != 0,
        }),
        None => Offer::None,
    }
}

/// What a fragment is counted as: of a VIP, or of anybody.
#[inline(always)]
pub fn fragment(packet: &Packet) -> Counter {
    let generation = control(CONTROL_GENERATION) as u32;
    match entry(&ServiceKey::vip(generation, packet.key.destination)) {
        Some(_) => Counter::Fragments,
        None => Counter::Passed,
    }
}

/// The flow of a key, established or half-open.
#[inline(always)]
pub fn flow(key: &sni_common::contract::FlowKey) -> Option<*mut Flow> {
    FLOWS
        .get_ptr_mut(key)
        .or_else(|| HALF_OPEN.get_ptr_mut(key))
}

/// An entry of SERVICES.
#[inline(always)]
pub fn entry(key: &ServiceKey) -> Option<Service> {
    // SAFETY: the agent writes an entry before its generation becomes active and removes it after; a value is never changed in between.
    unsafe { SERVICES.get(key) }.copied()
}

/// Whether a bit of FILTER is set.
#[inline(always)]
pub fn in_filter(bit: u32) -> bool {
    FILTER
        .get(bit >> 6)
        .is_some_and(|word| word >> (bit & 63) & 1 != 0)
}
