//! A packet that no flow knows, to a service whose address decides: choose an Edge and make the flow.

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_ktime_get_coarse_ns};
use sni_common::{
    Address,
    contract::{
        CONTROL_GENERATION, Counter, Direction, DropReason, EdgeState, Flow, FlowKey, Pool,
        Settings, SourceMode, Way, bank, limits::MAX_POOLS,
    },
    maglev,
    tcp::{self, Opening, opening, state},
};

use crate::{
    admit::admit,
    ethernet,
    frame::Frame,
    inspect,
    lookup::Steering,
    maps::{EDGES, FLOWS, HALF_OPEN, MAGLEV, SETTINGS, control},
    packet::{Packet, Segment},
    port,
    scratch::scratch,
    socket,
    verdict::Step,
};

/// Slots that are tried for an Edge that is up, or another one than before. The table has none that is not up, but for the moment between a change of state
/// and the agent's writing of the table.
const EDGE_TRIES: u64 = 32;

/// The first packet of a flow, or the first after its entry was lost.
#[inline(always)]
pub fn first_packet(ctx: &impl Frame, packet: &Packet, service: &Steering) -> Step {
    // Between the look into FLOWS and the one into HALF_OPEN, another CPU may have moved the flow from the latter to the former.
    if let Some(flow) = FLOWS.get_ptr_mut(&packet.key) {
        return Step::send(flow, Counter::Forwarded);
    }
    // A connection from when the service was inspected is the agent's to its end.
    if !inspect::begins(ctx, packet) && socket::state(ctx.as_ptr(), &packet.key).is_some() {
        return Step::Pass(Counter::Inspected);
    }
    match start(ctx, packet, service) {
        Ok(()) => match HALF_OPEN.get_ptr_mut(&packet.key) {
            // SAFETY: a live map value.
            Some(flow) if unsafe { (*flow).state } & state::RECOVERED != 0 => {
                Step::send(flow, Counter::Forwarded)
            }
            Some(flow) => Step::send(flow, Counter::Steered),
            None => Step::Drop(DropReason::FlowTableFull),
        },
        // The client is told what it could only find out by waiting; but nothing that it did wrong.
        Err(reason @ (DropReason::NoEdge | DropReason::NoPort | DropReason::Unrecoverable)) => {
            Step::Reset(reason)
        }
        Err(reason) => Step::Drop(reason),
    }
}

/// Whether an Edge gets new flows.
#[inline(always)]
pub fn edge_is_up(edge: u16) -> bool {
    EDGES
        .get(edge.into())
        .is_some_and(|edge| edge.state == EdgeState::Up as u8)
}

/// Charges a SYN of a half-open flow to its source.
#[inline(always)]
pub fn admit_source(source: &Address) -> Result<(), DropReason> {
    let generation = control(CONTROL_GENERATION) as u32;
    let settings = SETTINGS
        .get(bank(generation))
        .ok_or(DropReason::Incoherent)?;
    admit(source, generation, settings)
}

/// Admits a packet, chooses an Edge, and makes both entries in HALF_OPEN.
///
/// A function of its own, for the sake of the stack and of the path of known flows.
#[inline(never)]
fn start(ctx: &impl Frame, packet: &Packet, service: &Steering) -> Result<(), DropReason> {
    let segment = packet.segment(ctx)?;
    let recovering = match opening(segment.flags) {
        Opening::Syn => false,
        Opening::MidStream => true,
        Opening::Reset => return Err(DropReason::NoFlow),
        Opening::Invalid => return Err(DropReason::BadFlags),
    };
    let settings = SETTINGS
        .get(bank(service.generation))
        .ok_or(DropReason::Incoherent)?;
    admit(&packet.key.source, service.generation, settings)?;
    choose(packet, service, settings, recovering)?;
    let entry = &mut scratch().ok_or(DropReason::Incoherent)?.entry;
    let edge = EDGES.get(entry.edge.into()).ok_or(DropReason::Incoherent)?;
    // The gateway's port of a lost flow can't be found again.
    if recovering && edge.source == SourceMode::Gateway as u8 {
        return Err(DropReason::Unrecoverable);
    }
    to_client(ctx, packet, &segment, entry)?;
    entry.ip_set = service.ip_set;
    entry.state = if recovering { state::RECOVERED } else { 0 };
    port::claim(ctx, &packet.key, settings, edge)?;
    let out = &scratch().ok_or(DropReason::Incoherent)?.search.out;
    to_edge(packet, &segment, entry, out);
    if HALF_OPEN
        .insert(&packet.key, &*entry, BPF_ANY.into())
        .is_err()
    {
        let _ = HALF_OPEN.remove(out.reversed());
        return Err(DropReason::FlowTableFull);
    }
    Ok(())
}

/// The Edge of a client, of any state for a flow in mid-stream: it goes to the one that steering chose when it was up.
#[inline(always)]
fn choose(
    packet: &Packet,
    service: &Steering,
    settings: &Settings,
    any_state: bool,
) -> Result<(), DropReason> {
    let avoid = if any_state {
        ANY_STATE
    } else {
        maglev::NO_EDGE.into()
    };
    choose_another(packet, service, settings, avoid)
}

/// In the place of an Edge to avoid: none is avoided, and none has to be up.
const ANY_STATE: u32 = u32::MAX;

/// The Edge of a client: by Maglev, then further slots while the Edge is not up, or the one to avoid where there is another. The slot is left in the
/// scratch entry.
#[inline(never)]
pub fn choose_another(
    packet: &Packet,
    service: &Steering,
    settings: &Settings,
    avoid: u32,
) -> Result<(), DropReason> {
    let any_state = avoid == ANY_STATE;
    let mut avoided = false;
    let pool = service.pool & (MAX_POOLS - 1);
    let index = if any_state {
        Pool::index(service.generation, pool)
    } else {
        Pool::available_index(service.generation, pool)
    };
    let table = MAGLEV.get(index).ok_or(DropReason::Incoherent)?;
    let mut attempt = 0;
    while attempt < EDGE_TRIES {
        let slot = maglev::slot(
            &packet.key.source,
            packet.key.source_port_be,
            settings.seed.wrapping_add(attempt),
        );
        attempt += 1;
        let number = table[slot as usize & (maglev::ENTRIES - 1)];
        if number == maglev::NO_EDGE {
            return Err(DropReason::NoEdge);
        }
        let edge = EDGES.get(number.into()).ok_or(DropReason::Incoherent)?;
        if edge.address.is_v4() != packet.v4 {
            return Err(DropReason::Incoherent);
        }
        if any_state || edge.state == EdgeState::Up as u8 {
            if u32::from(number) == avoid {
                avoided = true;
                continue;
            }
            scratch().ok_or(DropReason::Incoherent)?.entry.edge = number;
            return Ok(());
        }
    }
    if avoided {
        // There is no other one.
        scratch().ok_or(DropReason::Incoherent)?.entry.edge = avoid as u16;
        return Ok(());
    }
    Err(DropReason::NoEdge)
}

/// The entry of the Edge's packets, but for the Edge and the checksums.
#[inline(always)]
pub fn to_client(
    ctx: &impl Frame,
    packet: &Packet,
    segment: &Segment,
    entry: &mut Flow,
) -> Result<(), DropReason> {
    // SAFETY: a helper without conditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    entry.rewrite = packet.key.reversed();
    entry.direction = Direction::ToClient as u8;
    entry.way = Way::Steered as u8;
    entry.route = 0;
    entry.next_seq = segment.ack;
    entry.last_ack = segment.seq.wrapping_add(segment.len);
    entry.opened_ns = now;
    entry.last_seen_ns = now;
    // Until the routing table knows better, answers go back the way the client's packet came.
    ethernet::way_back(ctx, packet, &mut entry.next_hop)
}

/// Turns it into the entry of the client's packets, which leave as `out`.
#[inline(always)]
pub fn to_edge(packet: &Packet, segment: &Segment, entry: &mut Flow, out: &FlowKey) {
    entry.rewrite = *out;
    entry.direction = Direction::ToEdge as u8;
    // A lost flow may come back with its FIN.
    entry.state = tcp::advance(entry.state, segment.flags);
    entry.port_delta = packet.key.port_change(out);
    entry.ip_delta = packet.key.address_change(out);
    entry.next_seq = segment.seq.wrapping_add(segment.len);
    entry.last_ack = segment.ack;
    entry.next_hop.ifindex = 0;
}
