//! snigate's datapath.
//!
//! A packet's way: `packet` parses it, `lookup` asks whether a flow or a service claims it, `admit` and `steer` choose an Edge for a new
//! flow, `forward` finds the way out, `rewrite` translates, and `finish` counts and returns the hook's action. `icmp` does the same
//! for errors about a flow, and `answer` turns a packet into a reset or an ICMP error for its sender. `capture` shows packets to whoever asks for them.
//!
//! A connection to a service that is inspected is the agent's at first: `inspect` admits it, `dispatch` finds it the agent's listener, and `transparent`
//! brings the Edge's answers to the agent's socket that speaks in the client's name. When the agent has handed it off, `splice` translates between its
//! two legs.
//!
//! All of it is the same at both hooks, XDP and traffic control; `frame` has what differs.
#![no_std]
#![no_main]
// `packet::at` hides a pointer from the optimiser.
#![feature(asm_experimental_arch)]

mod account;
mod admit;
mod answer;
mod bind;
mod capture;
mod dispatch;
mod ethernet;
mod finish;
mod flow;
mod forward;
mod frame;
mod icmp;
mod inspect;
mod log;
mod lookup;
mod maps;
mod packet;
mod port;
mod rewrite;
mod scratch;
mod socket;
mod splice;
mod steer;
mod transparent;
mod verdict;

use aya_ebpf::{
    macros::{classifier, sk_lookup, xdp},
    programs::{SkLookupContext, TcContext, XdpContext},
};
use sni_common::contract::{Counter, DropReason, Way};

use crate::{
    finish::{finish, foreign},
    frame::Frame,
    lookup::{Claim, Offer, claim, service},
    packet::{Kind, Packet, parse},
    scratch::scratch,
    verdict::{Outcome, Step, Verdict},
};

/// Entry point at the XDP hook. Packets of several buffers (`frags`) are welcome: only headers are ever touched.
#[xdp(frags)]
pub fn snigate_xdp(ctx: XdpContext) -> u32 {
    frame(&ctx) as u32
}

/// Entry point at the ingress of traffic control, instead of XDP: for interfaces where packets come merged and without checksums, and should stay so.
#[classifier]
pub fn snigate_tc(ctx: TcContext) -> i32 {
    frame(&ctx)
}

/// Entry point at the host's lookup of a socket for what begins a connection: inspected services are the agent's.
#[sk_lookup]
pub fn snigate_dispatch(ctx: SkLookupContext) -> u32 {
    dispatch::dispatch(&ctx)
}

/// Entry point at the ingress of traffic control, behind either: what Edges answer to the agent's transparent sockets is marked, and what comes too
/// late for a socket that was given up is kept from the host.
#[classifier]
pub fn snigate_return(ctx: TcContext) -> i32 {
    transparent::mark(&ctx)
}

/// A frame, from its first byte to the hook's action.
#[inline(always)]
fn frame<C: Frame>(ctx: &C) -> i32 {
    let Some(scratch) = scratch() else {
        return foreign(ctx, Counter::Unparsed);
    };
    let packet = &mut scratch.packet;
    let kind = parse(ctx, packet);
    if let Kind::Foreign(counter) = kind {
        return foreign(ctx, counter);
    }
    capture::begin(ctx, packet, C::HOOK);
    let verdict = match kind {
        Kind::Tcp => tcp(ctx, packet),
        Kind::IcmpError => icmp::translate(ctx, packet),
        _ => Verdict::Pass(lookup::fragment(packet)),
    };
    finish(ctx, packet, verdict)
}

/// A TCP packet: whose is it, which flow is it of, and out it goes.
#[inline(always)]
fn tcp(ctx: &impl Frame, packet: &Packet) -> Verdict {
    let step = match claim(packet) {
        Claim::Established(flow) => flow::established(ctx, packet, flow),
        // SAFETY: a live map value.
        Claim::HalfOpen(flow) if unsafe { (*flow).way } == Way::Bound as u8 => {
            // SAFETY: likewise.
            let mut outcome = bind::half_open(ctx, packet, unsafe { &*flow });
            if outcome.is(Outcome::AGAIN) {
                // SAFETY: likewise.
                outcome = bind::again(ctx, packet, unsafe { (*flow).edge }.into());
            }
            if outcome.is(Outcome::ANEW) {
                Step::Anew
            } else if outcome.is(Outcome::LAST) {
                Step::Send {
                    flow,
                    counter: Counter::Forwarded,
                    last: true,
                }
            } else {
                return outcome.verdict(ctx, packet);
            }
        }
        Claim::HalfOpen(flow) => flow::half_open(ctx, packet, flow),
        Claim::Service => Step::Anew,
        Claim::Edge => {
            splice::edge_syn_ack(ctx, packet);
            Step::Pass(Counter::Passed)
        }
        Claim::None => Step::Pass(Counter::Passed),
    };
    let step = match step {
        Step::Anew => match service(packet) {
            Offer::Steer(service) => steer::first_packet(ctx, packet, &service),
            Offer::Inspect(service) => return inspect::packet(ctx, packet, &service),
            Offer::None => Step::Pass(Counter::Passed),
        },
        step => step,
    };
    match step {
        Step::Anew => Verdict::Drop(DropReason::NoFlow),
        Step::Send {
            flow,
            counter,
            last,
        } => {
            let verdict = forward::segment(ctx, packet, flow, counter);
            if last {
                flow::forget(packet, flow);
            }
            verdict
        }
        Step::Reset(reason) => answer::reset(ctx, packet, reason),
        Step::Pass(counter) => Verdict::Pass(counter),
        Step::Drop(reason) => Verdict::Drop(reason),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
