//! Translation between the two legs of a handed-off flow.
//!
//! The client and the Edge each have a connection with the gateway, with sequence numbers, timestamps and window scales of its own. From the
//! handshakes on, the two streams differ by constants: what one side sends is what the other would have received from a real peer once these are
//! added (RFC 9293, 3.4; RFC 7323; RFC 2018). [`Translation`] is one direction; [`pair`] makes both from what is known of the legs.

use crate::{checksum, contract::wire_struct};

/// End of the option list (RFC 9293, 3.2).
pub const OPTION_END: u8 = 0;
/// An option of one byte that says nothing.
pub const OPTION_NOP: u8 = 1;
/// Maximum segment size (RFC 9293, 3.7.1), of SYN segments.
pub const OPTION_MSS: u8 = 2;
/// SACK permitted (RFC 2018), of SYN segments.
pub const OPTION_SACK_PERMITTED: u8 = 4;
/// Selective acknowledgement (RFC 2018).
pub const OPTION_SACK: u8 = 5;
/// Timestamps (RFC 7323).
pub const OPTION_TIMESTAMPS: u8 = 8;
/// Length of the timestamps option, in bytes.
pub const TIMESTAMPS_LEN: usize = 10;
/// The start of an option area that holds timestamps and nothing else, as RFC 7323's appendix A recommends: two NOPs, kind and length.
pub const ALIGNED_TIMESTAMPS: u32 = u32::from_ne_bytes([1, 1, OPTION_TIMESTAMPS, 10]);
/// Four NOPs.
const NOPS: u32 = u32::from_ne_bytes([OPTION_NOP; 4]);
/// Longest option area: a data offset of 15 words, less the header (RFC 9293, 3.1).
pub const MAX_OPTIONS: usize = 40;
/// The largest window scale; a larger one that a peer announces counts as this (RFC 7323, 2.3).
const MAX_SCALE: u8 = 14;
/// Keeps a shift within its operand, whatever an entry says.
const SCALE_MASK: u8 = 15;

/// Bits of [`Translation::options`].
pub mod options {
    /// Timestamps are translated.
    pub const TIMESTAMPS: u8 = 0x01;
    /// One side knows no timestamps: the option is replaced with NOPs.
    pub const NO_TIMESTAMPS: u8 = 0x02;
    /// The receiver knows no selective acknowledgement: likewise.
    pub const NO_SACK: u8 = 0x04;
}

/// What one direction of a handed-off flow adds to the headers of its segments; all zero for a flow that is only steered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Added to sequence numbers.
    pub seq: u32,
    /// Added to acknowledgement numbers and the edges of SACK blocks: the other direction's `seq`, negated.
    pub ack: u32,
    /// Added to the timestamp value.
    pub ts_value: u32,
    /// Added to the timestamp echo: the other direction's `ts_value`, negated.
    pub ts_echo: u32,
    /// Window scale that the sender has announced.
    pub sender_scale: u8,
    /// Window scale that has been announced to the receiver.
    pub receiver_scale: u8,
    /// Bits of [`options`].
    pub options: u8,
    /// Zero.
    pub padding: u8,
}
wire_struct!(Translation, 20);

/// What is known of one leg: a connection between the gateway's socket and a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// The next sequence number that the gateway's socket would use for new data.
    pub write_seq: u32,
    /// The peer's sequence number of the next byte to be read from the socket.
    pub read_seq: u32,
    /// The timestamps of both, where the leg has them.
    pub timestamps: Option<Timestamps>,
    /// Whether the peer understands SACK.
    pub sack: bool,
    /// Window scale that the peer has announced; 0 without scaling.
    pub peer_scale: u8,
    /// Window scale that the gateway's socket has announced; 0 without scaling.
    pub own_scale: u8,
}

/// Timestamps of a leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// What the gateway's socket would send now.
    pub own: u32,
    /// One that the peer has sent; an early one, because those that the peer sends from now on must not map to what its receiver has seen already.
    pub peer: u32,
}

/// Ticks by which translated timestamps are ahead of the gateway's sockets: PAWS drops what seems to go back (RFC 7323, 5.3), the sockets repeat
/// what was lost until they are given up, and while their clocks tick every millisecond, a peer's may tick a thousand times slower (5.4).
///
/// A second, a few round trips and a retransmission timeout. More would cost nothing but a longer first round-trip time where a receiver measures
/// one by echoes of what the sockets had sent.
const AHEAD: u32 = 1000;

/// Both directions of a flow, to the Edge and to the client, when every byte that was read from one leg is written to the other.
pub const fn pair(client: &Leg, edge: &Leg) -> (Translation, Translation) {
    translations(client, edge, AHEAD)
}

/// The same for a flow that never had sockets: what [`Timestamps::own`] says is the very timestamp that the leg's peer has seen, and none will come
/// after it but translated ones.
pub const fn bound(client: &Leg, edge: &Leg) -> (Translation, Translation) {
    translations(client, edge, 0)
}

#[inline(always)]
const fn translations(client: &Leg, edge: &Leg, ahead: u32) -> (Translation, Translation) {
    let to_edge = edge.write_seq.wrapping_sub(client.read_seq);
    let to_client = client.write_seq.wrapping_sub(edge.read_seq);
    let (value_to_edge, value_to_client) = match (client.timestamps, edge.timestamps) {
        (Some(c), Some(e)) => (
            e.own.wrapping_add(ahead).wrapping_sub(c.peer),
            c.own.wrapping_add(ahead).wrapping_sub(e.peer),
        ),
        _ => (0, 0),
    };
    (
        direction(
            client,
            edge,
            (to_edge, to_client),
            (value_to_edge, value_to_client),
        ),
        direction(
            edge,
            client,
            (to_client, to_edge),
            (value_to_client, value_to_edge),
        ),
    )
}

const fn direction(from: &Leg, to: &Leg, seq: (u32, u32), ts: (u32, u32)) -> Translation {
    // Where the sender's leg has none, an option that comes all the same is to be ignored (RFC 7323, 3.2); its receiver would take it.
    let timestamps = if from.timestamps.is_some() && to.timestamps.is_some() {
        options::TIMESTAMPS
    } else {
        options::NO_TIMESTAMPS
    };
    let sack = if to.sack { 0 } else { options::NO_SACK };
    Translation {
        seq: seq.0,
        ack: seq.1.wrapping_neg(),
        ts_value: ts.0,
        ts_echo: ts.1.wrapping_neg(),
        sender_scale: scale(from.peer_scale),
        receiver_scale: scale(to.own_scale),
        options: timestamps | sack,
        padding: 0,
    }
}

const fn scale(announced: u8) -> u8 {
    if announced > MAX_SCALE {
        MAX_SCALE
    } else {
        announced
    }
}

impl Translation {
    /// A window field as the receiver must read it, in the units that were announced to it (RFC 7323, 2.3). Not for SYN segments, whose windows
    /// are never scaled.
    ///
    /// Rounded down: it never promises what the sender has not.
    #[inline(always)]
    pub const fn window(&self, field: u16) -> u16 {
        let bytes = (field as u32) << (self.sender_scale & SCALE_MASK);
        let scaled = bytes >> (self.receiver_scale & SCALE_MASK);
        if scaled > u16::MAX as u32 {
            u16::MAX
        } else {
            scaled as u16
        }
    }

    /// The two timestamps of an option, host byte order. The echo means something only where ACK is set (RFC 7323, 3.2).
    #[inline(always)]
    pub const fn timestamps(&self, value: u32, echo: u32, ack: bool) -> (u32, u32) {
        let echo = if ack {
            echo.wrapping_add(self.ts_echo)
        } else {
            echo
        };
        (value.wrapping_add(self.ts_value), echo)
    }

    /// The words of an aligned timestamps option behind [`ALIGNED_TIMESTAMPS`], as they stand in the packet: what becomes of all three, and what
    /// that adds to the checksum. Nearly every segment has this option area and no other.
    #[inline(always)]
    pub const fn aligned_timestamps(
        &self,
        value_be: u32,
        echo_be: u32,
        ack: bool,
    ) -> ([u32; 3], u64) {
        let before = [ALIGNED_TIMESTAMPS, value_be, echo_be];
        let after = if self.options & options::TIMESTAMPS != 0 {
            let (value, echo) = self.timestamps(u32::from_be(value_be), u32::from_be(echo_be), ack);
            [before[0], value.to_be(), echo.to_be()]
        } else if self.options & options::NO_TIMESTAMPS != 0 {
            [NOPS; 3]
        } else {
            before
        };
        (
            after,
            checksum::change(before[0], after[0])
                + checksum::change(before[1], after[1])
                + checksum::change(before[2], after[2]),
        )
    }
}

/// The translation of a whole option area, step by step: the datapath must not loop without a bound that the verifier sees, and has the kernel
/// call [`Walk::step`] ([`MAX_OPTIONS`] times at most).
///
/// What is malformed ends the walk; the rest stays as it came, as its receiver would ignore it or drop the segment.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// The options as they came; 64 bytes, so that an index masked with 63 is always within.
    pub before: [u8; AREA],
    /// As they leave.
    pub after: [u8; AREA],
    /// Length of the area, in bytes.
    pub length: u32,
    /// Where the next option starts.
    at: u32,
    /// Whether the segment has ACK set; else 0.
    ack: u32,
    /// The timestamp value that came, host byte order; meaningful where `has_timestamps` is not 0.
    pub ts_value: u32,
    /// Whether there was a timestamps option.
    pub has_timestamps: u32,
    /// The timestamp echo that came, host byte order; likewise.
    pub ts_echo: u32,
}

/// Bytes of a [`Walk`]'s buffers.
const AREA: usize = 64;
const AREA_MASK: usize = AREA - 1;

impl Default for Walk {
    fn default() -> Self {
        Self {
            before: [0; AREA],
            after: [0; AREA],
            length: 0,
            at: 0,
            ack: 0,
            ts_value: 0,
            has_timestamps: 0,
            ts_echo: 0,
        }
    }
}

impl Walk {
    /// Begins with the options that stand in `before`.
    #[inline(always)]
    pub fn begin(&mut self, length: u32, ack: bool) {
        self.after = self.before;
        self.length = length;
        self.at = 0;
        self.ack = ack as u32;
        self.has_timestamps = 0;
    }

    /// Translates the next option; `false` at the end.
    #[inline(always)]
    pub fn step(&mut self, translation: &Translation) -> bool {
        let at = self.at as usize & AREA_MASK;
        let end = self.length as usize & AREA_MASK;
        if at >= end {
            return false;
        }
        let kind = self.after[at];
        if kind == OPTION_END {
            return false;
        }
        if kind == OPTION_NOP {
            self.at = at as u32 + 1;
            return true;
        }
        let length = self.after[(at + 1) & AREA_MASK] as usize;
        if length < 2 || at + length > end {
            return false;
        }
        if kind == OPTION_TIMESTAMPS && length == TIMESTAMPS_LEN {
            self.timestamps(at, translation);
        } else if kind == OPTION_SACK {
            self.sack(at, length, translation);
        }
        self.at = (at + length) as u32;
        true
    }

    #[inline(always)]
    fn timestamps(&mut self, at: usize, translation: &Translation) {
        let value = self.word(at + 2);
        let echo = self.word(at + 6);
        self.ts_value = value;
        self.ts_echo = echo;
        self.has_timestamps = 1;
        if translation.options & options::TIMESTAMPS != 0 {
            let (value, echo) = translation.timestamps(value, echo, self.ack != 0);
            self.set_word(at + 2, value);
            self.set_word(at + 6, echo);
        } else if translation.options & options::NO_TIMESTAMPS != 0 {
            self.blank(at, TIMESTAMPS_LEN);
        }
    }

    /// Up to four blocks, eight edges (RFC 2018, 3). A D-SACK block (RFC 2883) is one like the others.
    #[inline(always)]
    fn sack(&mut self, at: usize, length: usize, translation: &Translation) {
        const EDGES: usize = 8;
        if translation.options & options::NO_SACK != 0 {
            return self.blank(at, length);
        }
        let mut edge = 0;
        while edge < EDGES {
            let offset = 2 + edge * 4;
            if offset + 4 <= length {
                let value = self.word(at + offset).wrapping_add(translation.ack);
                self.set_word(at + offset, value);
            }
            edge += 1;
        }
    }

    /// Replaces a whole option with NOPs, however long: what is left of one would be read as others.
    #[inline(always)]
    fn blank(&mut self, at: usize, length: usize) {
        let mut byte = 0;
        while byte < MAX_OPTIONS {
            if byte < length {
                self.after[(at + byte) & AREA_MASK] = OPTION_NOP;
            }
            byte += 1;
        }
    }

    /// What the translation adds to the checksum.
    #[inline(always)]
    pub fn change(&self) -> u64 {
        let mut sum = 0;
        let mut word = 0;
        while word < MAX_OPTIONS / 4 {
            let at = |bytes: &[u8; AREA]| {
                u32::from_ne_bytes([
                    bytes[4 * word],
                    bytes[4 * word + 1],
                    bytes[4 * word + 2],
                    bytes[4 * word + 3],
                ])
            };
            sum += checksum::change(at(&self.before), at(&self.after));
            word += 1;
        }
        sum
    }

    #[inline(always)]
    fn word(&self, at: usize) -> u32 {
        let byte = |n: usize| self.after[(at + n) & AREA_MASK];
        u32::from_be_bytes([byte(0), byte(1), byte(2), byte(3)])
    }

    #[inline(always)]
    fn set_word(&mut self, at: usize, value: u32) {
        let [a, b, c, d] = value.to_be_bytes();
        self.after[at & AREA_MASK] = a;
        self.after[(at + 1) & AREA_MASK] = b;
        self.after[(at + 2) & AREA_MASK] = c;
        self.after[(at + 3) & AREA_MASK] = d;
    }
}

/// Translates an option area of at most [`MAX_OPTIONS`] bytes, on the host.
pub fn translate_options(translation: &Translation, area: &mut [u8], ack: bool) -> u64 {
    let length = area.len().min(MAX_OPTIONS);
    let mut walk = Walk::default();
    walk.before[..length].copy_from_slice(&area[..length]);
    walk.begin(length as u32, ack);
    while walk.step(translation) {}
    area[..length].copy_from_slice(&walk.after[..length]);
    walk.change()
}
