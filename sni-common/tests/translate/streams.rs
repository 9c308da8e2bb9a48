//! For any two connections, what one peer sends is what the other would have received from a real one.

use proptest::{option, prelude::*};
use sni_common::tcp::{ACK, SYN};
use sni_common::translate::{Translation, options, pair};

use crate::model::{Clock, Connection};
use crate::reference;
use crate::segments::{Counting, Fill, Item, Segment, forward};

/// When the agent reads both sockets, in milliseconds; the connections may be older.
const READ_MS: u32 = 3_600_000;
/// How long the sockets may still send after that.
const GIVEN_UP_WITHIN_MS: u32 = 1000;

const PORTS: [[u8; 4]; 2] = [[0x9c, 0x40, 0x13, 0xc5], [0xff, 0xfe, 0x00, 0x01]];

/// What a segment's timestamp echoes, by when that was sent.
#[derive(Clone, Copy, Debug)]
enum Echo {
    /// The gateway's socket, before it was given up.
    Socket(u32),
    /// The other peer.
    Peer(u32),
}

fn clock(ms_per_tick: impl Strategy<Value = u32>) -> impl Strategy<Value = Clock> {
    (number(), ms_per_tick).prop_map(|(start, ms_per_tick)| Clock { start, ms_per_tick })
}

/// Any number; often one from which it is not far to the wrap.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0xffff_0000u32.., 0x7fff_f000u32..0x8000_1000]
}

fn connection() -> impl Strategy<Value = Connection> {
    let numbers = (number(), number(), 0u32..300, 0u32..300);
    let clocks = (
        any::<bool>(),
        clock(prop_oneof![Just(1u32), Just(4), Just(10), Just(1000)]),
        clock(Just(1u32)),
        0..READ_MS,
    );
    let scales = option::of((0u8..15, 0u8..15));
    (numbers, clocks, any::<bool>(), scales).prop_map(|(numbers, clocks, sack, scales)| {
        Connection {
            peer_isn: numbers.0,
            own_isn: numbers.1,
            read_alone: numbers.2,
            written_alone: numbers.3,
            timestamps: clocks.0,
            peer_clock: clocks.1,
            own_clock: clocks.2,
            known_ms: clocks.3,
            sack,
            scales,
        }
    })
}

fn item() -> impl Strategy<Value = Item> {
    let block = (number(), number());
    prop_oneof![
        3 => (1usize..4).prop_map(Item::Nops),
        3 => Just(Item::Timestamps),
        3 => prop::collection::vec(block, 1..5).prop_map(Item::Sack),
        1 => (9u8..255, prop::collection::vec(any::<u8>(), 0..8))
            .prop_map(|(kind, data)| Item::Unknown(kind, data)),
    ]
}

fn segment() -> impl Strategy<Value = Segment> {
    let fill = prop_oneof![
        Just(Fill::Nops),
        any::<u8>().prop_map(Fill::End),
        Just(Fill::Broken)
    ];
    (
        prop_oneof![4 => Just(ACK), 1 => any::<u8>()],
        number(),
        number(),
        any::<u16>(),
        prop::collection::vec(item(), 0..6),
        fill,
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(flags, at, acked, urgent, items, fill, payload)| Segment {
            flags,
            at,
            acked,
            urgent,
            items,
            fill,
            payload,
        })
}

/// Two connections, what they have relayed, and the agent's two translations: from the first to the second, and back.
#[derive(Clone, Debug)]
struct Pair {
    from: Connection,
    to: Connection,
    there: Translation,
    back: Translation,
}

fn two_connections() -> impl Strategy<Value = Pair> {
    let relayed = (number(), number());
    (connection(), connection(), relayed, any::<bool>()).prop_map(|(from, to, relayed, client)| {
        let first = from.leg(relayed.0, relayed.1, READ_MS);
        let second = to.leg(relayed.1, relayed.0, READ_MS);
        // The sender is the client or the Edge.
        let (there, back) = if client {
            pair(&first, &second)
        } else {
            let (back, there) = pair(&second, &first);
            (there, back)
        };
        Pair {
            from,
            to,
            there,
            back,
        }
    })
}

fn echo() -> impl Strategy<Value = Echo> {
    prop_oneof![
        (0..READ_MS + GIVEN_UP_WITHIN_MS).prop_map(Echo::Socket),
        (0..2 * READ_MS).prop_map(Echo::Peer)
    ]
}

impl Pair {
    /// The timestamps that the sender puts into a segment, and the echo that the receiver should find where that is known.
    fn timestamps(&self, ms: u32, echo: Echo) -> ((u32, u32), Option<u32>) {
        let value = self.from.peer_clock.at(ms);
        match echo {
            Echo::Socket(at) => ((value, self.from.own_clock.at(at)), None),
            Echo::Peer(at) => {
                let sent = self.to.peer_clock.at(at.clamp(self.to.known_ms, ms));
                let (received, _) = self.back.timestamps(sent, 0, true);
                ((value, received), Some(sent))
            }
        }
    }

    fn sent(&self, segment: &Segment, window: u16, timestamps: (u32, u32)) -> Vec<u8> {
        segment.encode(&Counting {
            seq: self.from.first_from_peer(),
            ack: self.from.first_to_peer(),
            window,
            timestamps: self.from.timestamps.then_some(timestamps),
            sack: self.from.sack,
            ports: PORTS[0],
            pseudo: 0xbeef,
        })
    }

    fn forwarded(&self, bytes: &[u8]) -> Vec<u8> {
        forward(&self.there, bytes, PORTS[1], (0xbeef, 0x1dea))
    }
}

/// `a` is not after `b`.
fn up_to(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_segment_is_what_a_real_peer_would_have_sent(
        pair in two_connections(),
        segment in segment(),
        window: u16,
        ms in 0..2 * READ_MS,
        echo in echo(),
    ) {
        let Pair { from, to, .. } = pair;
        // Nothing that the peer sends from now on is older than what the agent knows, and what arrives now was not sent later.
        let ms = ms.max(from.known_ms).max(to.known_ms);
        let (timestamps, echoed) = pair.timestamps(ms, echo);
        let received = pair.forwarded(&pair.sent(&segment, window, timestamps));

        let end = usize::from(received[12] >> 4) * 4;
        let found = reference::pieces(&received[20..end])
            .into_iter()
            .find(|piece| piece.kind == 8 && piece.data.len() == 8);
        let both = from.timestamps && to.timestamps;
        if let Some(found) = &found {
            prop_assert!(both);
            let value = u32::from_be_bytes(found.data[..4].try_into().unwrap());
            let reply = u32::from_be_bytes(found.data[4..].try_into().unwrap());
            let last = to.own_clock.at(READ_MS + GIVEN_UP_WITHIN_MS);
            prop_assert!(up_to(last, value), "PAWS: {value} after the socket's {last}");
            if segment.flags & ACK == 0 {
                prop_assert_eq!(reply, timestamps.1);
            } else if let Some(echoed) = echoed {
                prop_assert_eq!(reply, echoed);
            } else {
                let clock = to.peer_clock.at(ms);
                prop_assert!(up_to(reply, clock), "{reply} is echoed at {clock}");
            }
        }
        let values = found.map(|found| {
            let word = |at: usize| u32::from_be_bytes(found.data[at..at + 4].try_into().unwrap());
            (word(0), word(4))
        });
        let scaled = (u64::from(window) << from.peer_scale()) >> to.own_scale();
        let expected = segment.encode(&Counting {
            seq: to.first_to_peer(),
            ack: to.first_from_peer(),
            window: if segment.flags & SYN != 0 { window } else { scaled.min(0xffff) as u16 },
            timestamps: values,
            sack: from.sack && to.sack,
            ports: PORTS[1],
            pseudo: 0x1dea,
        });
        // The checksum apart: 0x0000 and 0xffff are the same.
        let fields = |bytes: &[u8]| [&bytes[..16], &bytes[18..]].concat();
        let sum = |bytes: &[u8]| u16::from_be_bytes([bytes[16], bytes[17]]);
        prop_assert_eq!(fields(&received), fields(&expected));
        prop_assert!(
            sum(&received) == sum(&expected) || sum(&received) % 0xffff == 0 && sum(&expected) % 0xffff == 0
        );
    }

    #[test]
    fn a_later_segment_never_has_an_earlier_timestamp(
        pair in two_connections(),
        first in 0..2 * READ_MS,
        later in 0..READ_MS,
    ) {
        let first = first.max(pair.from.known_ms);
        let at = |ms| pair.there.timestamps(pair.from.peer_clock.at(ms), 0, true).0;
        prop_assert!(up_to(at(first), at(first + later)));
    }

    /// What was lost on the way and what was made up by a middle box show in the checksum as before.
    #[test]
    fn damage_stays_visible(
        pair in two_connections(),
        segment in segment(),
        window: u16,
        bit in 0usize..8,
        at: prop::sample::Index,
    ) {
        let (timestamps, _) = pair.timestamps(READ_MS, Echo::Socket(READ_MS));
        let segment = Segment { payload: b"damaged".to_vec(), ..segment };
        let mut bytes = pair.sent(&segment, window, timestamps);
        let at = bytes.len() - 1 - at.index(segment.payload.len());
        bytes[at] ^= 1 << bit;
        let received = pair.forwarded(&bytes);
        let right = reference::checksum(0x1dea, &received);
        prop_assert_ne!(u16::from_be_bytes([received[16], received[17]]) % 0xffff, right % 0xffff);
    }

    /// And back again by the other direction's numbers: what came.
    #[test]
    fn there_and_back_is_what_it_was(pair in two_connections(), segment in segment(), window: u16) {
        let (timestamps, _) = pair.timestamps(READ_MS, Echo::Socket(READ_MS));
        let bytes = pair.sent(&segment, window, timestamps);
        let Pair { there, back, .. } = pair;
        // The way of an acknowledgement is that of a sequence number in the other direction.
        prop_assert_eq!(there.seq, back.ack.wrapping_neg());
        prop_assert_eq!(there.ack, back.seq.wrapping_neg());
        prop_assert_eq!(there.ts_value, back.ts_echo.wrapping_neg());
        prop_assert_eq!(there.ts_echo, back.ts_value.wrapping_neg());
        let undo = Translation {
            seq: back.ack,
            ack: back.seq,
            ts_value: back.ts_echo,
            ts_echo: back.ts_value,
            sender_scale: 0,
            receiver_scale: 0,
            options: options::TIMESTAMPS,
            padding: 0,
        };
        // Windows lose what a unit can't say, and what was left out is gone.
        let there = Translation {
            sender_scale: 0,
            receiver_scale: 0,
            options: options::TIMESTAMPS,
            ..there
        };
        let out = forward(&there, &bytes, PORTS[1], (0xbeef, 0x1dea));
        let again = forward(&undo, &out, PORTS[0], (0x1dea, 0xbeef));
        let fields = |bytes: &[u8]| [&bytes[..16], &bytes[18..]].concat();
        prop_assert_eq!(fields(&again), fields(&bytes));
    }
}
