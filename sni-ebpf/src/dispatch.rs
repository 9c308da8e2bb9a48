//! The socket lookup: what begins a connection to an inspected service goes to the agent's one listener, whatever address and port it asks for.
//!
//! Run by the kernel for TCP packets that belong to no connection of the host, in the softirq that received them: no XDP program runs on this CPU
//! until it is done, and the counters need no atomics. (A lookup by a diagnostic tool such as `ss -K` may cost one count.)

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        bpf_sk_lookup,
        sk_action::{SK_DROP, SK_PASS},
    },
    helpers::generated::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release},
    programs::SkLookupContext,
};
use sni_common::{
    Address,
    contract::{
        CONTROL_GENERATION, CONTROL_LISTENER_PORT, Counter, DropReason, FILTER_SERVICES, FlowKey,
        LISTENER, Mode, ServiceKey, filter_bit,
    },
};

use crate::{
    capture,
    finish::{count, count_drop},
    lookup::{entry, in_filter},
    maps::{LISTENERS, control},
    scratch::scratch,
};

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
/// First octet of 127.0.0.0/8.
const LOOPBACK_V4: u8 = 127;
/// `::1`.
const LOOPBACK_V6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// Hands a connection to the agent's listener; without one, or when it does not take this address family, the connection is refused: another
/// program of the host that listens on every address must not get it.
#[inline(always)]
pub fn dispatch(ctx: &SkLookupContext) -> u32 {
    let purpose = purpose(ctx.lookup);
    if purpose == Purpose::Foreign {
        return SK_PASS;
    }
    let key = LISTENER;
    // SAFETY: the map and a key of its type, on the stack.
    let socket = unsafe { bpf_map_lookup_elem(LISTENERS.as_ptr(), (&raw const key).cast()) };
    if purpose == Purpose::OwnPort {
        if socket.is_null() {
            // It was the port of an agent that has ended, and may be anybody's now.
            return SK_PASS;
        }
        // SAFETY: the reference of above, released once.
        unsafe { bpf_sk_release(socket) };
        return SK_DROP;
    }
    let is_packet = scratch().is_none_or(|scratch| scratch.asking == 0);
    if socket.is_null() {
        if is_packet {
            refuse(ctx.lookup);
        }
        return SK_DROP;
    }
    // SAFETY: the context, and a socket that the lookup above has taken a reference to.
    let assigned = unsafe { bpf_sk_assign(ctx.as_ptr(), socket, 0) };
    // SAFETY: the reference of above, released once.
    unsafe { bpf_sk_release(socket) };
    if assigned != 0 {
        if is_packet {
            refuse(ctx.lookup);
        }
        return SK_DROP;
    }
    if is_packet {
        count(Counter::Dispatched, 1);
    }
    SK_PASS
}

/// Counts a connection that nobody takes, and shows it to whoever captures.
#[inline(always)]
fn refuse(lookup: *mut bpf_sk_lookup) {
    count_drop(DropReason::NoListener);
    if capture::is_wanted() {
        let Peers { key, ifindex, .. } = peers(lookup);
        capture::refused(&key, ifindex, DropReason::NoListener);
    }
}

/// What a packet that looks for a listening socket is after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A service where the ClientHello decides.
    Inspected,
    /// The port that the agent's listener is bound to, where nobody should find it but the agent itself: it connects over loopback.
    OwnPort,
    /// Something else.
    Foreign,
}

#[inline(always)]
fn purpose(lookup: *mut bpf_sk_lookup) -> Purpose {
    let Peers {
        key, is_v4, is_tcp, ..
    } = peers(lookup);
    if !is_tcp {
        return Purpose::Foreign;
    }
    // No network's packet has such a source: the host drops it before it looks for a socket.
    let loopback = if is_v4 {
        key.source.v4_word().to_ne_bytes()[0] == LOOPBACK_V4
    } else {
        key.source.0 == LOOPBACK_V6
    };
    let (address, port_be) = (key.destination, key.destination_port_be);
    let port = u16::from_be(port_be);
    let otherwise = if control(CONTROL_LISTENER_PORT) == u64::from(port) && !loopback {
        Purpose::OwnPort
    } else {
        Purpose::Foreign
    };
    if !in_filter(FILTER_SERVICES + filter_bit(&address, port_be)) {
        return otherwise;
    }
    let generation = control(CONTROL_GENERATION) as u32;
    match entry(&ServiceKey::tcp(generation, address, port_be)) {
        Some(service) if service.mode == Mode::Inspect as u8 => Purpose::Inspected,
        _ => otherwise,
    }
}

/// Between whom the connection is to be.
struct Peers {
    key: FlowKey,
    is_v4: bool,
    is_tcp: bool,
    ifindex: u32,
}

#[inline(always)]
fn peers(lookup: *mut bpf_sk_lookup) -> Peers {
    // SAFETY: fields of a valid context; the address of the other family reads as zero. Volatile and on no branch, because the verifier takes
    // loads of a field's own size at a constant offset only, and LLVM would join them.
    let (protocol, family, ifindex, v4, v6, port, remote_v4, remote_v6, remote_port_be) = unsafe {
        let words = (&raw const (*lookup).local_ip6).cast::<u32>();
        let remote = (&raw const (*lookup).remote_ip6).cast::<u32>();
        (
            (&raw const (*lookup).protocol).read_volatile(),
            (&raw const (*lookup).family).read_volatile(),
            (&raw const (*lookup).ingress_ifindex).read_volatile(),
            (&raw const (*lookup).local_ip4).read_volatile(),
            [
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ],
            // In host byte order, as the kernel has it here.
            (&raw const (*lookup).local_port).read_volatile() as u16,
            (&raw const (*lookup).remote_ip4).read_volatile(),
            [
                remote.read_volatile(),
                remote.add(1).read_volatile(),
                remote.add(2).read_volatile(),
                remote.add(3).read_volatile(),
            ],
            (&raw const (*lookup).remote_port).read_volatile(),
        )
    };
    let is_v4 = family == AF_INET;
    let address = |v4, v6| {
        if is_v4 {
            Address::from_v4_word(v4)
        } else {
            Address(v6)
        }
    };
    Peers {
        key: FlowKey {
            source: address(remote_v4, remote_v6),
            destination: address(v4, v6),
            source_port_be: remote_port_be,
            destination_port_be: port.to_be(),
        },
        is_v4,
        is_tcp: protocol == IPPROTO_TCP,
        ifindex,
    }
}
