//! A ClientHello whose server name is in the maps: its connection is bound to an Edge.
//!
//! The Edge gets a SYN that looks like the client's: the same initial sequence number, timestamp and options. So what the client sends needs no
//! other numbers; what the Edge sends is translated. Until the Edge answers, both directions stand in HALF_OPEN (`deliver` has the answer).

pub mod cookie;
pub mod deliver;
pub mod outgoing;
pub mod pending;
pub mod stream;

use aya_ebpf::bindings::BPF_ANY;
use sni_common::{
    Address,
    contract::{
        BudgetKind, CONTROL_GENERATION, CONTROL_TELL, Counter, Direction, DropReason, EventKind,
        Flow, FlowKey, HelloEvent, Learned, LearnedKey, Matched, NO_POOL, ROUTE_AGENT,
        ROUTE_CONDITIONAL, RouteAction, Settings, SniRoute, SniRouteKey, Stage, TELL_HELLOS, Way,
        bank, client_options,
    },
    hello,
    maglev::NO_EDGE,
    tcp::{self, FIN, RST, SYN},
};

use crate::{
    admit,
    finish::count,
    forward,
    frame::Frame,
    lookup::{Inspecting, Steering},
    maps::{
        EDGES, EVENTS, FLOWS, HALF_OPEN, HELLOS, PENDING, SETTINGS, SNI_LEARNED, SNI_ROUTES,
        control,
    },
    packet::Packet,
    port,
    scratch::{Scratch, copy, scratch},
    steer,
    verdict::Outcome,
};

/// How long an Edge has for its answer before the client's next repetition of the hello goes to another one: Linux repeats after 0.2, 0.6, 1.4 and 3
/// seconds.
const ANSWER_NS: u64 = 2_500_000_000;
/// Edges that are tried for one connection, as by the agent.
pub const EDGES_TRIED: u8 = 3;
/// Events about ClientHellos per second and CPU.
const HELLO_EVENTS: u32 = 200;

/// Where a connection goes; part of SCRATCH.
#[repr(C, align(8))]
pub struct Choice {
    /// See [`Flow::route`].
    pub route: u64,
    pub generation: u32,
    pub pool: u32,
    /// A [`Matched`].
    pub matched: u32,
    pub padding: u32,
}

/// Whether the name that has been found can be bound.
#[inline(always)]
pub fn is_known(packet: &Packet) -> bool {
    look_up(packet) != 0
}

/// The entry of exactly the name that the walk has found. Its key is SNI_LEARNED's but for the number, which is put back.
#[inline(always)]
fn configured(scratch: &mut Scratch) -> Option<&'static SniRoute> {
    const _: () = assert!(size_of::<LearnedKey>() == size_of::<SniRouteKey>());
    let key = &mut scratch.hello.key;
    key.ip_set = scratch.choice.generation;
    // SAFETY: both keys are a number and a name; a value is never changed while its generation is active.
    let route = unsafe { SNI_ROUTES.get(&*(&raw const *key).cast::<SniRouteKey>()) };
    key.ip_set = scratch.pending.ip_set;
    route
}

/// Looks the name up that the walk has found, and leaves in SCRATCH's `choice` where it goes; 0 where only the agent knows. The name's own entry comes
/// first; what the agent has learned of it holds for the configuration that it was learned under.
#[inline(never)]
fn look_up(packet: &Packet) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let generation = control(CONTROL_GENERATION) as u32;
    scratch.choice.generation = generation;
    let route = configured(scratch);
    let (pool, action, flags) = if let Some(route) = route {
        scratch.choice.route = route.route;
        scratch.choice.matched = Matched::Exact as u32;
        let pool = if packet.v4 {
            route.pool_v4
        } else {
            route.pool_v6
        };
        (pool, route.action, route.flags)
    } else {
        let Some(learned) = SNI_LEARNED.get_ptr(&scratch.hello.key) else {
            return 0;
        };
        // SAFETY: a live map value; the agent replaces it as a whole.
        let learned = unsafe { &*learned };
        if learned.generation != generation {
            return 0;
        }
        scratch.choice.route = learned.route;
        scratch.choice.matched = learned.matched.into();
        let pool = if packet.v4 {
            learned.pool_v4
        } else {
            learned.pool_v6
        };
        (pool, learned.action, learned.flags)
    };
    let bindable = action == RouteAction::Pass as u8
        && flags & (ROUTE_CONDITIONAL | ROUTE_AGENT) == 0
        && pool != NO_POOL;
    scratch.choice.pool = pool;
    bindable.into()
}

/// Binds a connection whose hello stands in SCRATCH.
#[inline(always)]
pub fn begin(ctx: &impl Frame, packet: &Packet, service: &Inspecting) -> Outcome {
    let Ok(segment) = packet.segment(ctx) else {
        return Outcome::drop(DropReason::Incoherent);
    };
    if !is_known(packet) {
        return pending::leave(ctx, packet, &segment, Counter::LeftName);
    }
    if let Err(reason) = admit_hello(packet, service.generation) {
        return Outcome::drop(reason);
    }
    let Some(scratch) = scratch() else {
        return Outcome::drop(DropReason::Incoherent);
    };
    // The client's repetitions find it there, and so does the Edge's answer.
    scratch.pending.stage = Stage::Bound as u8;
    scratch.pending.tries = 1;
    if !stream::keep(&packet.key) {
        return pending::leave(ctx, packet, &segment, Counter::LeftWay);
    }
    let opened = open(ctx, packet, NO_EDGE.into());
    let sent = match opened {
        Ok(()) => send_syn(ctx, packet),
        Err(reason) => Err(reason),
    };
    match sent {
        Ok(()) => {
            hello_event(ctx, packet);
            learned();
            Outcome::sent(Counter::Bound)
        }
        // Changed already; the client repeats it.
        Err(DropReason::NoRoom) => Outcome::drop(DropReason::NoRoom),
        Err(reason) => {
            if opened.is_ok() {
                undo(packet);
            }
            give_back(&packet.key.source);
            if matches!(reason, DropReason::NoEdge) {
                return nobody(packet);
            }
            pending::leave(ctx, packet, &segment, Counter::LeftWay)
        }
    }
}

/// No Edge of the pool is up, and the agent, if it runs, knows no other one: the client is told at once.
#[inline(always)]
fn nobody(packet: &Packet) -> Outcome {
    pending::forget(packet);
    Outcome::reset(DropReason::NoEdge)
}

/// Charges a connection to its source until an Edge has answered.
#[inline(never)]
fn admit_hello(packet: &Packet, generation: u32) -> Result<(), DropReason> {
    let settings = settings(generation)?;
    let source = &packet.key.source;
    if admit::take_both(BudgetKind::Hello, BudgetKind::HelloPrefix, source, settings) {
        Ok(())
    } else {
        Err(DropReason::HelloBudget)
    }
}

/// Gives back what [`admit_hello`] has taken of a client. A function of its own: it is rare.
#[inline(never)]
pub fn give_back(source: &Address) -> u32 {
    let generation = control(CONTROL_GENERATION) as u32;
    if let Ok(settings) = settings(generation) {
        admit::give_back(BudgetKind::Hello, source, settings);
        admit::give_back(BudgetKind::HelloPrefix, source, settings);
    }
    0
}

#[inline(always)]
fn settings(generation: u32) -> Result<&'static Settings, DropReason> {
    SETTINGS.get(bank(generation)).ok_or(DropReason::Incoherent)
}

/// Chooses an Edge other than `avoid`, takes a tuple toward it, and makes both directions in HALF_OPEN. The packet stays as it came.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
fn open(ctx: &impl Frame, packet: &Packet, avoid: u32) -> Result<(), DropReason> {
    let segment = packet.segment(ctx)?;
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let choice = &scratch.choice;
    let settings = settings(choice.generation)?;
    let steering = Steering {
        generation: choice.generation,
        pool: choice.pool,
        ip_set: scratch.pending.ip_set,
    };
    steer::choose_another(packet, &steering, settings, avoid)?;
    let entry = &mut scratch.entry;
    let edge = EDGES.get(entry.edge.into()).ok_or(DropReason::Incoherent)?;
    let client = scratch.pending.options;
    // Its segments would have no timestamps, which all systems but Linux would drop (RFC 7323, 3.2).
    if u64::from(edge.no_timestamps_until_s) > forward::now_s()
        && client & client_options::TIMESTAMPS != 0
        && client & client_options::LINUX == 0
    {
        return Err(DropReason::NoTimestamps);
    }
    steer::to_client(ctx, packet, &segment, entry)?;
    entry.ip_set = steering.ip_set;
    entry.state = 0;
    entry.way = Way::Bound as u8;
    entry.route = choice.route;
    port::claim(ctx, &packet.key, settings, edge)?;
    let out = &scratch.search.out;
    steer::to_edge(packet, &segment, entry, out);
    entry.next_seq = scratch.pending.client_isn.wrapping_add(1);
    if HALF_OPEN
        .insert(&packet.key, &*entry, BPF_ANY.into())
        .is_err()
    {
        let _ = HALF_OPEN.remove(out.reversed());
        return Err(DropReason::FlowTableFull);
    }
    scratch.pending.pool = choice.pool;
    scratch.pending.since_ns = forward::now();
    pending::save(packet, &scratch.pending);
    Ok(())
}

/// Forgets both directions of the flow of a client whose Edge does not answer, or can't be reached.
#[inline(never)]
fn undo(packet: &Packet) -> u32 {
    if let Some(flow) = HALF_OPEN.get_ptr(&packet.key) {
        // SAFETY: a live map value.
        let reverse = unsafe { (*flow).rewrite.reversed() };
        forget(&packet.key, &reverse);
    }
    0
}

/// Turns a segment of the client's into the SYN to the Edge of its half-open flow. What is known of the client stands in SCRATCH.
#[inline(never)]
fn send_syn(ctx: &impl Frame, packet: &Packet) -> Result<(), DropReason> {
    let scratch = scratch().ok_or(DropReason::Incoherent)?;
    let flow = HALF_OPEN
        .get_ptr_mut(&packet.key)
        .ok_or(DropReason::Incoherent)?;
    // SAFETY: a live map value.
    let flow = unsafe { &mut *flow };
    if packet.hops <= 1 {
        return Err(DropReason::TtlExpired);
    }
    let now = forward::now();
    if now > flow.next_hop_until_ns {
        forward::refresh(ctx, packet, flow, now)?;
    }
    let pending = &scratch.pending;
    let out = &mut scratch.outgoing;
    copy(&mut out.key, &flow.rewrite);
    out.seq = pending.client_isn;
    out.ack = 0;
    out.flags = SYN.into();
    out.window = pending.window.min(u16::MAX.into());
    out.hops = u32::from(packet.hops) - 1;
    out.payload = 0;
    out.payload_sum = 0;
    let timestamps = (pending.ts_value, 0);
    out.options
        .of_syn(pending.mss, pending.options, timestamps, pending.scale);
    // A segment of a few bytes without options has no room for the option; the Edge then sends the smallest segments.
    let headers = (packet.transport + tcp::HEADER_LEN) as u32;
    if headers + out.options.length > ctx.length() {
        out.options
            .of_syn(0, pending.options, timestamps, pending.scale);
    }
    outgoing::write(ctx).map_err(|_| DropReason::NoRoom)?;
    ctx.set_ethernet(packet, &flow.next_hop)
        .map_err(|_| DropReason::NoRoom)?;
    flow.last_seen_ns = now;
    flow.packets += 1;
    flow.bytes += u64::from(headers - out.network + out.options.length);
    packet.leaves_by.set(flow.next_hop.ifindex);
    Ok(())
}

/// Forgets both directions of a half-open flow.
#[inline(always)]
fn forget(key: &FlowKey, reverse: &FlowKey) {
    let _ = HALF_OPEN.remove(key);
    let _ = HALF_OPEN.remove(reverse);
}

/// A packet of a flow that is bound, and whose Edge has not answered yet.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
pub fn half_open(ctx: &impl Frame, packet: &Packet, entry: &Flow) -> Outcome {
    let segment = match packet.segment(ctx) {
        Ok(segment) => segment,
        Err(reason) => return Outcome::drop(reason),
    };
    let reverse = entry.rewrite.reversed();
    if entry.direction == Direction::ToClient as u8 {
        // Somebody on the client's side may forge what an Edge would say.
        let ingress = ctx.interface();
        let to_edge = HALF_OPEN.get_ptr(&reverse);
        // SAFETY: a live map value.
        let leads_to_edge =
            to_edge.is_some_and(|flow| unsafe { (*flow).next_hop.ifindex == ingress });
        return if entry.next_hop.ifindex == ingress && !leads_to_edge {
            Outcome::drop(DropReason::WrongSide)
        } else {
            Outcome::pass(Counter::EdgeAnswers)
        };
    }
    let (Some(pending), Some(scratch)) = (PENDING.get_ptr(&packet.key), scratch()) else {
        if FLOWS.get_ptr(&packet.key).is_some() {
            // On another processor the Edge has answered meanwhile. The client repeats this segment.
            return Outcome::drop(DropReason::EarlyData);
        }
        forget(&packet.key, &reverse);
        return Outcome::ANEW;
    };
    // SAFETY: a live map value.
    copy(&mut scratch.pending, unsafe { &*pending });
    let offset = cookie::stream_offset(&segment, &scratch.pending);
    if segment.flags & RST != 0 {
        if offset > u32::from(scratch.pending.received) {
            count(Counter::StrayResets, 1);
            return Outcome::drop(DropReason::NoFlow);
        }
        pending::forget(packet);
        return Outcome::LAST;
    }
    if segment.flags & SYN != 0 {
        forget(&packet.key, &reverse);
        return Outcome::ANEW;
    }
    if segment.len == 0 {
        return Outcome::keep(Counter::CookieAcks);
    }
    if segment.flags & FIN != 0 {
        return Outcome::drop(DropReason::EarlyData);
    }
    Outcome::AGAIN
}

/// More of the client's bytes. With its hello again, the Edge gets its SYN again, or another Edge does; what follows the hello is kept with it.
///
/// Not called by [`half_open`], for the sake of the stack.
#[inline(never)]
pub fn again(ctx: &impl Frame, packet: &Packet, edge: u32) -> Outcome {
    if stream::is_damaged(ctx, packet) != 0 {
        return Outcome::drop(DropReason::BadChecksum);
    }
    let Some(scratch) = scratch() else {
        return Outcome::drop(DropReason::Incoherent);
    };
    if !outgoing::begin(ctx, packet, &mut scratch.outgoing) || cookie::note(ctx, packet).is_err() {
        return Outcome::drop(DropReason::Incoherent);
    }
    let Ok(segment) = packet.segment(ctx) else {
        return Outcome::drop(DropReason::Incoherent);
    };
    let offset = cookie::stream_offset(&segment, &scratch.pending);
    if offset != 0 {
        return if pending::append(ctx, packet, offset, segment.len) {
            Outcome::keep(Counter::HelloParts)
        } else {
            Outcome::drop(DropReason::EarlyData)
        };
    }
    let pending = &mut scratch.pending;
    if forward::now().saturating_sub(pending.since_ns) < ANSWER_NS {
        pending::save(packet, pending);
        return match send_syn(ctx, packet) {
            Ok(()) => Outcome::sent(Counter::BindRetries),
            Err(reason) => Outcome::drop(reason),
        };
    }
    undo(packet);
    if pending.tries >= EDGES_TRIED {
        pending::forget(packet);
        return Outcome::reset(DropReason::EdgeSilent);
    }
    pending.tries += 1;
    let length = pending.received.into();
    // The configuration may be another one by now.
    let opened = if stream::recall(&packet.key)
        && stream::walk(length) == hello::Answer::Found
        && is_known(packet)
    {
        open(ctx, packet, edge)
    } else {
        Err(DropReason::Incoherent)
    };
    if matches!(opened, Err(DropReason::NoEdge)) {
        return nobody(packet);
    }
    if opened.is_ok() && send_syn(ctx, packet).is_ok() {
        return Outcome::sent(Counter::BindRetries);
    }
    // The agent may still find one; the next repetition is the host's.
    undo(packet);
    let _ = HELLOS.remove(&packet.key);
    scratch.pending.stage = Stage::Agent as u8;
    pending::save(packet, &scratch.pending);
    Outcome::drop(DropReason::NoEdge)
}

/// Counts a connection to its name in SNI_LEARNED, where the agent counts those that it has routed.
#[inline(never)]
fn learned() -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let now = forward::now();
    let generation = scratch.choice.generation;
    let (mut hits, mut first_seen_ns) = (0, now);
    if let Some(learned) = SNI_LEARNED.get_ptr_mut(&scratch.hello.key) {
        // SAFETY: a live map value; a hit may be lost where two CPUs, or the agent, count at once.
        let learned = unsafe { &mut *learned };
        if learned.generation == generation {
            learned.hits += 1;
            learned.last_seen_ns = now;
            return 0;
        }
        (hits, first_seen_ns) = (learned.hits, learned.first_seen_ns);
    }
    let route = configured(scratch);
    if let Some(route) = route {
        let entry = Learned {
            generation,
            action: route.action,
            matched: Matched::Exact as u8,
            flags: route.flags,
            padding: 0,
            pool_v4: route.pool_v4,
            pool_v6: route.pool_v6,
            route: route.route,
            hits: hits + 1,
            first_seen_ns,
            last_seen_ns: now,
        };
        let _ = SNI_LEARNED.insert(&scratch.hello.key, &entry, BPF_ANY.into());
    }
    0
}

/// Tells the agent of a hello, where somebody wants to know, unless there are too many.
#[inline(never)]
fn hello_event(ctx: &impl Frame, packet: &Packet) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let now = forward::now();
    if control(CONTROL_TELL) & TELL_HELLOS == 0 {
        return 0;
    }
    if !scratch
        .hello_budget
        .take(now, HELLO_EVENTS * 1000, HELLO_EVENTS)
    {
        return 0;
    }
    let Some(mut record) = EVENTS.reserve::<HelloEvent>(0) else {
        count(Counter::EventsLost, 1);
        return 0;
    };
    let event = record.as_mut_ptr();
    // SAFETY: reserved memory of the record's size; field by field, because a copy on the stack has no room.
    unsafe {
        (*event).event.kind = EventKind::HelloBound as u32;
        (*event).event.reason = 0;
        copy(&mut (*event).event.key, &packet.key);
        (*event).event.ifindex = ctx.interface();
        (*event).event.edge = scratch.entry.edge.into();
        (*event).event.padding = 0;
        (*event).event.at_ns = now;
        (*event).ip_set = scratch.hello.key.ip_set;
        (*event).matched = scratch.choice.matched;
        copy(&mut (*event).name, &scratch.hello.key.name);
    }
    record.submit(0);
    0
}
