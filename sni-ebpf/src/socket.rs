//! The host's own sockets: whether one of them is an end of a connection.

use core::{mem::offset_of, ptr};

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
};
use sni_common::contract::FlowKey;

/// States of a socket (include/net/tcp_states.h) that is no end of a connection: a listener, and a connection that a listener has not accepted yet.
/// TIME_WAIT is one: the last acknowledgements belong there.
const TCP_LISTEN: u32 = 10;
const TCP_NEW_SYN_RECV: u32 = 12;

/// What the host has for a packet that arrives.
pub enum Socket {
    /// An end of its connection.
    Connection,
    /// A handshake that it may belong to.
    Handshake,
}

/// The socket for a TCP packet with this source and destination; listeners don't count.
#[inline(always)]
pub fn of(ctx: &impl EbpfContext, key: &FlowKey) -> Option<Socket> {
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
    // SAFETY: the tuple is as long as said; the helper does not write to it.
    let socket = unsafe {
        bpf_skc_lookup_tcp(
            ctx.as_ptr(),
            tuple.cast_mut(),
            size as u32,
            BPF_F_CURRENT_NETNS as i64 as u64,
            0,
        )
    };
    if socket.is_null() {
        return None;
    }
    // SAFETY: a live socket; volatile, because the verifier takes loads of the field's own size only.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    // SAFETY: the reference that the lookup has taken, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    match state {
        TCP_LISTEN => None,
        TCP_NEW_SYN_RECV => Some(Socket::Handshake),
        _ => Some(Socket::Connection),
    }
}
