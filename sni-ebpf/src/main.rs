//! snigate's datapath.
//!
//! A packet's way: `packet` parses it, `lookup` asks whether a flow or a service claims it, `admit` and `steer` choose an Edge for a new
//! flow, `forward` finds the way out, `rewrite` translates, and `finish` counts and returns the hook's action. `icmp` does the same
//! for errors about a flow, and `answer` turns a packet into a reset or an ICMP error for its sender.
//!
//! A connection to a service that is inspected is the agent's: `inspect` admits it, `dispatch` finds it the agent's listener, and `transparent`
//! brings the Edge's answers to the agent's socket that speaks in the client's name.
#![no_std]
#![no_main]
// `packet::at` hides a pointer from the optimiser.
#![feature(asm_experimental_arch)]

mod admit;
mod answer;
mod dispatch;
mod ethernet;
mod finish;
mod flow;
mod forward;
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
mod steer;
mod transparent;
mod verdict;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    macros::{classifier, sk_lookup, xdp},
    programs::{SkLookupContext, TcContext, XdpContext},
};
use sni_common::contract::{Counter, DropReason};

use crate::{
    finish::{finish, foreign},
    lookup::{Claim, Offer, claim, service},
    packet::{Kind, Packet, parse},
    scratch::scratch,
    verdict::{Step, Verdict},
};

/// Entry point at the XDP hook. Packets of several buffers (`frags`) are welcome: only headers are ever touched.
#[xdp(frags)]
pub fn snigate_xdp(ctx: XdpContext) -> u32 {
    let Some(scratch) = scratch() else {
        return foreign(Counter::Unparsed);
    };
    let packet = &mut scratch.packet;
    let kind = parse(&ctx, packet);
    if let Kind::Foreign(counter) = kind {
        return foreign(counter);
    }
    let verdict = match kind {
        Kind::Tcp => tcp(&ctx, packet),
        Kind::IcmpError => icmp::translate(&ctx, packet),
        _ => Verdict::Pass(lookup::fragment(packet)),
    };
    finish(&ctx, packet, verdict)
}

/// Entry point at the host's lookup of a socket for what begins a connection: inspected services are the agent's.
#[sk_lookup]
pub fn snigate_dispatch(ctx: SkLookupContext) -> u32 {
    dispatch::dispatch(&ctx)
}

/// Entry point at the ingress of traffic control: what Edges answer to the agent's transparent sockets is marked.
#[classifier]
pub fn snigate_return(ctx: TcContext) -> i32 {
    transparent::mark(&ctx);
    TC_ACT_UNSPEC
}

/// A TCP packet: whose is it, which flow is it of, and out it goes.
#[inline(always)]
fn tcp(ctx: &XdpContext, packet: &Packet) -> Verdict {
    let step = match claim(packet) {
        Claim::Established(flow) => flow::established(ctx, packet, flow),
        Claim::HalfOpen(flow) => flow::half_open(ctx, packet, flow),
        Claim::Service => Step::Anew,
        Claim::None => Step::Pass(Counter::Passed),
    };
    let step = match step {
        Step::Anew => match service(packet) {
            Offer::Steer(service) => steer::first_packet(ctx, packet, &service),
            Offer::Inspect => inspect::packet(ctx, packet),
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
