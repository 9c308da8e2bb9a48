//! A tuple of the Edge leg for a new flow: no two flows may share one, or the Edge's answers could not be told apart.
//!
//! `preserve` keeps the client's address and port, unless another flow or the agent has them: one client may use one port toward two public
//! addresses whose Edge is the same. `gateway` starts at a port given by the client's, so that a repeated SYN finds the same.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::generated::bpf_loop,
};
use sni_common::{
    contract::{Counter, DropReason, Edge, FlowKey, Settings, SourceMode},
    maglev,
};

use crate::{
    finish::count,
    frame::Frame,
    lookup,
    maps::{FLOWS, HALF_OPEN},
    scratch::{Scratch, copy, scratch},
    socket,
};

/// Ports that are tried.
const TRIES: u32 = 16;
/// Lowest port that a client's own is replaced with.
const FIRST_CLIENT_PORT: u16 = 1024;

/// Takes a tuple for the flow of `key`, by inserting the entry of the Edge's packets that stands in SCRATCH: whoever inserts it owns it.
///
/// The tuple that the client's packets leave with is SCRATCH's `search.out` then. A function of its own, for the sake of the stack.
#[inline(never)]
pub fn claim(
    ctx: &impl Frame,
    key: &FlowKey,
    settings: &Settings,
    edge: &Edge,
) -> Result<(), DropReason> {
    let search = &mut scratch().ok_or(DropReason::Incoherent)?.search;
    let preserve = edge.source == SourceMode::Preserve as u8;
    if preserve {
        copy(&mut search.out.source, &key.source);
        search.first = FIRST_CLIENT_PORT.into();
        search.ports = (u16::MAX - FIRST_CLIENT_PORT).into();
    } else {
        copy(&mut search.out.source, &edge.gateway);
        search.first = settings.first_port.into();
        search.ports = settings.ports.into();
    }
    let client = u64::from(key.source.0[3] ^ key.source.0[1]);
    let service = u64::from(key.destination.0[3] ^ key.destination.0[1]);
    search.hash = maglev::mix(maglev::mix(client << 32 | service) ^ u64::from(key.ports_word()));
    copy(&mut search.out.destination, &edge.address);
    search.out.source_port_be = key.source_port_be;
    search.out.destination_port_be = edge.port_be;
    // The agent has connections of its own with clients' addresses and ports. That one of the ports below is such a one is as good as impossible.
    reverse(&search.out, &mut search.reverse);
    let is_free = |reverse: &FlowKey| socket::state(ctx.as_ptr(), reverse).is_none();
    search.keep_first = (preserve && is_free(&search.reverse)).into();
    search.found = 0;
    // A loop of the kernel's: unrolled, the branches of 16 tries are too many for the verifier.
    // SAFETY: the callback has the helper's signature; it needs no context, which would have to be on the stack.
    unsafe {
        let try_one: unsafe extern "C" fn(u32, *mut c_void) -> i64 = try_one;
        bpf_loop(TRIES, try_one as *mut c_void, ptr::null_mut(), 0);
    }
    if search.found != 0 {
        Ok(())
    } else {
        Err(DropReason::NoPort)
    }
}

/// One try; 1 ends the loop.
unsafe extern "C" fn try_one(attempt: u32, _: *mut c_void) -> i64 {
    let Some(Scratch {
        packet,
        entry,
        search,
        ..
    }) = scratch()
    else {
        return 1;
    };
    if attempt != 0 || search.keep_first == 0 {
        let port = search.first + (((search.hash >> 32) * u64::from(search.ports)) >> 32) as u32;
        search.out.source_port_be = (port as u16).to_be();
        search.hash = maglev::mix(search.hash);
    }
    // In SCRATCH, because the functions above leave no room: Linux 6.1 counts a stack of 512 bytes in steps of 32 for each of them.
    reverse(&search.out, &mut search.reverse);
    let reverse = &search.reverse;
    entry.port_delta = reverse.port_change(&entry.rewrite);
    entry.ip_delta = reverse.address_change(&entry.rewrite);
    // First take, then look: a flow on its way from HALF_OPEN to FLOWS is in at least one of them at any moment.
    if HALF_OPEN
        .insert(reverse, &*entry, BPF_NOEXIST.into())
        .is_ok()
    {
        if FLOWS.get_ptr_mut(reverse).is_none() {
            search.found = 1;
            return 1;
        }
        if !taken_by_another(reverse, &packet.key) {
            // A remnant of this client's own earlier flow.
            let _ = FLOWS.remove(reverse);
            search.found = 1;
            return 1;
        }
        let _ = HALF_OPEN.remove(reverse);
    } else if !taken_by_another(reverse, &packet.key) {
        search.found = HALF_OPEN
            .insert(reverse, &*entry, BPF_ANY.into())
            .is_ok()
            .into();
        return 1;
    }
    count(Counter::PortCollisions, 1);
    0
}

/// Whether a tuple of the Edge leg is taken by a flow other than the one of `key`.
#[inline(always)]
fn taken_by_another(reverse: &FlowKey, key: &FlowKey) -> bool {
    match lookup::flow(reverse) {
        // SAFETY: a live map value.
        Some(flow) => unsafe { !are_opposite(&(*flow).rewrite, key) },
        None => false,
    }
}

/// [`FlowKey::reversed`], without a copy on the stack.
#[inline(always)]
fn reverse(key: &FlowKey, reversed: &mut FlowKey) {
    copy(&mut reversed.source, &key.destination);
    copy(&mut reversed.destination, &key.source);
    reversed.source_port_be = key.destination_port_be;
    reversed.destination_port_be = key.source_port_be;
}

/// Whether one is the other reversed, likewise.
#[inline(always)]
fn are_opposite(one: &FlowKey, other: &FlowKey) -> bool {
    one.source == other.destination
        && one.destination == other.source
        && one.source_port_be == other.destination_port_be
        && one.destination_port_be == other.source_port_be
}
