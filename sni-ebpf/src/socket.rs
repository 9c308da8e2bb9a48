//! The host's own sockets.

use core::{ffi::c_void, mem::offset_of, ptr};

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
};
use sni_common::contract::FlowKey;

use crate::scratch::scratch;

/// States of a socket (include/net/tcp_states.h). A listener is no end of a connection. TIME_WAIT is one: the last acknowledgements belong there.
const LISTEN: u32 = 10;
/// A connection that a listener has not accepted yet.
pub const NEW_SYN_RECV: u32 = 12;
/// Connecting, without an answer so far.
pub const SYN_SENT: u32 = 2;

const TIME_WAIT: u32 = 6;

/// Whether a packet with these addresses and ports belongs to a connection of the host's that has got beyond its beginning.
#[inline(always)]
pub fn is_open(ctx: *mut c_void, key: &FlowKey) -> bool {
    state(ctx, key).is_some_and(|state| state != SYN_SENT && state != TIME_WAIT)
}

/// State of the host's socket to which a packet with these addresses and ports belongs, if there is one; `ctx` is a program's context.
#[inline(always)]
pub fn state(ctx: *mut c_void, key: &FlowKey) -> Option<u32> {
    const _: () = assert!(size_of::<FlowKey>() == 36 && offset_of!(FlowKey, source_port_be) == 32);
    let v4 = [
        key.source.v4_word(),
        key.destination.v4_word(),
        key.ports_word(),
    ];
    // The kernel's tuple: an IPv6 one is laid out like a key.
    let (tuple, size) = if key.source.is_v4() {
        (
            ptr::from_ref(&v4).cast::<bpf_sock_tuple>(),
            size_of_val(&v4),
        )
    } else {
        (ptr::from_ref(key).cast(), size_of::<FlowKey>())
    };
    // A packet of no connection makes the host ask for a listener, which is not to be counted.
    let scratch = scratch()?;
    scratch.asking = 1;
    // SAFETY: the tuple is as long as said; the helper does not write to it.
    let socket = unsafe {
        bpf_skc_lookup_tcp(
            ctx,
            tuple.cast_mut(),
            size as u32,
            BPF_F_CURRENT_NETNS as i64 as u64,
            0,
        )
    };
    scratch.asking = 0;
    if socket.is_null() {
        return None;
    }
    // SAFETY: a live socket; volatile, because the verifier takes loads of the field's own size only.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    // SAFETY: the reference that the lookup has taken, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    (state != LISTEN).then_some(state)
}
