//! What the work on one packet needs: more than the stack's 512 bytes.

use core::ptr;

use aya_ebpf::{macros::map, maps::PerCpuArray};
use sni_common::{
    contract::{Flow, FlowKey, Pending, SynSeen},
    hello,
    syn::SynWalk,
    token_bucket::TokenBucket,
    translate::{Translation, Walk},
};

use crate::{
    bind::Choice,
    bind::{cookie::Header, deliver::Delivery, outgoing::Outgoing, stream::Summing},
    capture::Seen,
    packet::{Packet, Quote},
};

/// See [`Scratch`].
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// What the work on one packet needs: more than the stack's 512 bytes. And what has been to a map is unknown to the verifier, so that
/// it follows all kinds of packets as one from parsing on.
#[repr(C, align(8))]
pub struct Scratch {
    /// The packet, parsed.
    pub packet: Packet,
    /// The entry of a new flow. Its account and its next hop's deadline are never written, and stay zero.
    pub entry: Flow,
    /// The packet that an ICMP error quotes.
    pub quote: Quote,
    /// The search for a tuple of the Edge leg.
    pub search: Search,
    /// The options of a segment (see `splice`), and what is done to them.
    pub walk: Walk,
    /// Likewise.
    pub translation: Translation,
    /// What a SYN or SYN-ACK to the agent began with.
    pub seen: SynSeen,
    /// Whether it is the datapath itself that has the host look for a socket right now, and no packet that begins a connection.
    pub asking: u32,
    /// What is left of this CPU's ICMP errors.
    pub icmp_budget: TokenBucket,
    /// What is left of this CPU's events about ClientHellos.
    pub hello_budget: TokenBucket,
    /// What is left of this CPU's captured packets.
    pub capture_budget: TokenBucket,
    /// The packet as it came in, where somebody captures (see `capture`).
    pub capture: Seen,
    /// A TCP header (see `cookie`).
    pub header: Header,
    /// The options of a SYN or SYN-ACK.
    pub syn: SynWalk,
    /// A segment to be written (see `outgoing`).
    pub outgoing: Outgoing,
    /// A pending connection (see `pending`).
    pub pending: Pending,
    /// Where its connection goes (see `bind`).
    pub choice: Choice,
    /// What of its hello is yet to be sent (see `deliver`).
    pub delivery: Delivery,
    /// What of the client's stream is to be summed.
    pub summing: Summing,
    /// The walk over its ClientHello.
    pub hello: hello::Walk,
    /// The first bytes of its stream. Twice as many as there may be, so that an offset and a length, each masked, are within.
    pub stream: Stream,
}

/// Bytes of a client's stream.
pub type Stream = [u8; 2 * hello::ROOM];

// SAFETY: each CPU has its own, and works on one packet at a time.
unsafe impl Sync for Scratch {}

/// This CPU's scratch value. Nothing else runs the program on this CPU until the packet is done.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: a live map value. Callers that take it again use other fields than those that they were handed.
    SCRATCH
        .get_ptr_mut(0)
        .map(|scratch| unsafe { &mut *scratch })
}

/// Copies a value, word by word: of an assignment of more than a few words LLVM makes a call of a bytewise `memmove`. Both must be aligned to words, and
/// as long as some.
#[inline(always)]
pub fn copy<T: Copy>(to: &mut T, from: &T) {
    const { assert!(size_of::<T>().is_multiple_of(size_of::<u32>())) };
    let (to, from) = (
        ptr::from_mut(to).cast::<u32>(),
        ptr::from_ref(from).cast::<u32>(),
    );
    let mut word = 0;
    while word < size_of::<T>() / size_of::<u32>() {
        // SAFETY: within both values.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
        word += 1;
    }
}

/// The search for a tuple of the Edge leg (see `port`).
#[repr(C, align(8))]
pub struct Search {
    pub hash: u64,
    pub out: FlowKey,
    /// The tuple of the Edge's answers to `out`.
    pub reverse: FlowKey,
    pub first: u32,
    pub ports: u32,
    pub keep_first: u32,
    pub found: u32,
}
