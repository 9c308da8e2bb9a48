//! Diagnostics through aya-log. Functions of their own, not inlined: formatting takes stack and instructions that the hot path must not
//! pay for while the flag is off.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::{debug, info};
use sni_common::contract::{Counter, DropReason, FlowKey};

/// A packet handed to the host for a reason other than being foreign.
#[inline(never)]
pub fn passed(ctx: &impl EbpfContext, key: &FlowKey, counter: Counter) {
    debug!(
        ctx,
        "pass {:i}:{} -> {:i}:{} counter {}",
        words(&key.source.0),
        u16::from_be(key.source_port_be),
        words(&key.destination.0),
        u16::from_be(key.destination_port_be),
        counter as u32
    );
}

/// A packet translated and forwarded.
#[inline(never)]
pub fn forwarded(ctx: &impl EbpfContext, key: &FlowKey, ifindex: u32) {
    debug!(
        ctx,
        "forward {:i}:{} -> {:i}:{} to interface {}",
        words(&key.source.0),
        u16::from_be(key.source_port_be),
        words(&key.destination.0),
        u16::from_be(key.destination_port_be),
        ifindex
    );
}

/// A packet dropped or answered, and the number of the reason.
#[inline(never)]
pub fn dropped(ctx: &impl EbpfContext, key: &FlowKey, reason: DropReason) {
    info!(
        ctx,
        "drop {:i}:{} -> {:i}:{} reason {}",
        words(&key.source.0),
        u16::from_be(key.source_port_be),
        words(&key.destination.0),
        u16::from_be(key.destination_port_be),
        reason as u32
    );
}

/// An address as aya-log's `:i` takes IPv6: the mapped form shows IPv4 readably.
#[inline(always)]
fn words(address: &[u32; 4]) -> [u8; 16] {
    // SAFETY: same size, no invalid values.
    unsafe { core::mem::transmute(*address) }
}
