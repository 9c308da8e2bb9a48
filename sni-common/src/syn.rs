//! The options of SYN segments, read and written; and what a SYN cookie and the timestamp beside it keep of them.
//!
//! A gateway that answers SYNs with cookies keeps nothing: what it must know of the client's SYN comes back with the client's acknowledgement. The
//! maximum segment size is in the cookie; window scale and SACK are in the lowest bits of the SYN-ACK's timestamp, which the client echoes. Both are
//! in the kernel's own format (net/ipv4/syncookies.c), for the kernel completes the connection where the datapath does not.

use crate::{
    contract::client_options,
    translate::{
        ALIGNED_TIMESTAMPS, MAX_OPTIONS, OPTION_END, OPTION_MSS, OPTION_NOP, OPTION_SACK_PERMITTED,
        OPTION_TIMESTAMPS, TIMESTAMPS_LEN,
    },
};

/// Window scale (RFC 7323, 2), of SYN segments.
const OPTION_SCALE: u8 = 3;
/// The largest window scale; a larger one counts as this (RFC 7323, 2.3).
const MAX_SCALE: u8 = 14;
/// What a peer that announces no segment size takes at least (RFC 9293, 3.7.1; over IPv6 it may be 1220).
const DEFAULT_MSS: u16 = 536;

const AREA: usize = 64;
const AREA_MASK: usize = AREA - 1;

/// A walk over the options of a SYN or SYN-ACK, one at a time: see [`crate::translate::Walk`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct SynWalk {
    /// The options as they came; 64 bytes, so that an index masked with 63 is always within.
    pub bytes: [u8; AREA],
    /// Length of the area, in bytes.
    length: u32,
    /// Where the next option starts.
    at: u32,
    /// Timestamp value, host byte order; 0 without timestamps.
    pub ts_value: u32,
    /// Maximum segment size, 536 where there is none.
    pub mss: u16,
    /// Window scale; 0 without scaling.
    pub scale: u8,
    /// Bits of [`client_options`].
    pub options: u8,
}

impl Default for SynWalk {
    fn default() -> Self {
        Self {
            bytes: [0; AREA],
            length: 0,
            at: 0,
            ts_value: 0,
            mss: DEFAULT_MSS,
            scale: 0,
            options: 0,
        }
    }
}

impl SynWalk {
    /// Begins with the options that stand in `bytes`, `length` of them.
    #[inline(always)]
    pub fn begin(&mut self, length: u32) {
        self.length = length;
        self.at = 0;
        self.ts_value = 0;
        self.mss = DEFAULT_MSS;
        self.scale = 0;
        self.options = 0;
        // The order of tcp_options_write (net/ipv4/tcp_output.c).
        let kinds = [self.bytes[0], self.bytes[4], self.bytes[6]];
        if kinds[0] == OPTION_MSS
            && kinds[1] == OPTION_SACK_PERMITTED
            && kinds[2] == OPTION_TIMESTAMPS
        {
            self.options = client_options::LINUX;
        }
    }

    /// Reads the next option; `false` at the end, and at what is malformed.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        let at = self.at as usize & AREA_MASK;
        let end = self.length as usize & AREA_MASK;
        if at >= end {
            return false;
        }
        let kind = self.bytes[at];
        if kind == OPTION_END {
            return false;
        }
        if kind == OPTION_NOP {
            self.at = at as u32 + 1;
            return true;
        }
        let length = self.bytes[(at + 1) & AREA_MASK] as usize;
        if length < 2 || at + length > end {
            return false;
        }
        if kind == OPTION_MSS && length == 4 {
            self.mss = (self.word(at) & 0xffff) as u16;
        } else if kind == OPTION_SCALE && length == 3 {
            let scale = self.bytes[(at + 2) & AREA_MASK];
            self.scale = if scale > MAX_SCALE { MAX_SCALE } else { scale };
            self.options |= client_options::SCALE;
        } else if kind == OPTION_SACK_PERMITTED && length == 2 {
            self.options |= client_options::SACK;
        } else if kind == OPTION_TIMESTAMPS && length == TIMESTAMPS_LEN {
            self.ts_value = self.word(at + 2);
            self.options |= client_options::TIMESTAMPS;
        }
        self.at = (at + length) as u32;
        true
    }

    #[inline(always)]
    fn word(&self, at: usize) -> u32 {
        let byte = |n: usize| self.bytes[(at + n) & AREA_MASK];
        u32::from_be_bytes([byte(0), byte(1), byte(2), byte(3)])
    }
}

/// Reads the options of a SYN or SYN-ACK, on the host.
pub fn read_options(area: &[u8]) -> SynWalk {
    let length = area.len().min(MAX_OPTIONS);
    let mut walk = SynWalk::default();
    walk.bytes[..length].copy_from_slice(&area[..length]);
    walk.begin(length as u32);
    while walk.step() {}
    walk
}

/// Options to be written, as 32-bit words in memory order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The words; those behind `length` are zero.
    pub words: [u32; MAX_OPTIONS / 4],
    /// Length in bytes, a multiple of four.
    pub length: u32,
}

impl Options {
    /// Those of a SYN or SYN-ACK, in Linux' order. `options` are bits of [`client_options`]; SACK needs timestamps, as with cookies. `mss` 0 leaves it out.
    #[inline(always)]
    pub fn of_syn(&mut self, mss: u16, options: u8, timestamps: (u32, u32), scale: u8) {
        self.words = [0; MAX_OPTIONS / 4];
        let [high, low] = mss.to_be_bytes();
        let mss_word = u32::from_ne_bytes([OPTION_MSS, 4, high, low]);
        let first = if options & client_options::SACK != 0 {
            u32::from_ne_bytes([OPTION_SACK_PERMITTED, 2, OPTION_TIMESTAMPS, 10])
        } else {
            ALIGNED_TIMESTAMPS
        };
        let (value, echo) = (timestamps.0.to_be(), timestamps.1.to_be());
        let scale_word = u32::from_ne_bytes([OPTION_NOP, OPTION_SCALE, 3, scale]);
        let with_timestamps = options & client_options::TIMESTAMPS != 0;
        let with_scale = options & client_options::SCALE != 0;
        // Spelled out: an index that depends on what came before would be a branch more for the verifier.
        self.length = if mss == 0 {
            if with_timestamps {
                self.words[0] = first;
                self.words[1] = value;
                self.words[2] = echo;
                if with_scale {
                    self.words[3] = scale_word;
                    16
                } else {
                    12
                }
            } else {
                0
            }
        } else {
            self.words[0] = mss_word;
            if with_timestamps {
                self.words[1] = first;
                self.words[2] = value;
                self.words[3] = echo;
                if with_scale {
                    self.words[4] = scale_word;
                    20
                } else {
                    16
                }
            } else {
                4
            }
        };
    }

    /// Those of any other segment: timestamps, where `options` has them.
    #[inline(always)]
    pub fn of_segment(&mut self, options: u8, timestamps: (u32, u32)) {
        self.words = [0; MAX_OPTIONS / 4];
        self.length = 0;
        if options & client_options::TIMESTAMPS != 0 {
            self.words[0] = ALIGNED_TIMESTAMPS;
            self.words[1] = timestamps.0.to_be();
            self.words[2] = timestamps.1.to_be();
            self.length = 12;
        }
    }
}

/// The kernel's part of a cookie's timestamp: window scale, SACK, ECN (`TSBITS` of net/ipv4/syncookies.c).
const SCALE_MASK: u32 = 0xf;
const NO_SCALE: u32 = 0xf;
const SACK: u32 = 1 << 4;
/// Three more bits are the datapath's own: whether the SYN was Linux'. The kernel looks at none of them, and of its own timestamps one in eight says
/// "Linux" by chance; it answers SYNs to these services only where a socket has their very tuple.
const MARK: u32 = 0b111 << 6;
const LINUX: u32 = 0b101 << 6;
const OTHER: u32 = 0b010 << 6;
const BITS: u32 = 9;

/// The timestamp of a SYN-ACK with a cookie: the clock, in milliseconds, with what the client's SYN had in its lowest bits. Never later than the clock, so
/// that the host's timestamps, which come from the same clock (`net.ipv4.tcp_timestamps=2`), do not go back (PAWS, RFC 7323, 5.3).
#[inline(always)]
pub const fn cookie_timestamp(now_ms: u32, options: u8, scale: u8) -> u32 {
    let scale = if options & client_options::SCALE != 0 {
        scale as u32 & SCALE_MASK
    } else {
        NO_SCALE
    };
    let sack = if options & client_options::SACK != 0 {
        SACK
    } else {
        0
    };
    let linux = if options & client_options::LINUX != 0 {
        LINUX
    } else {
        OTHER
    };
    let ts = now_ms >> BITS << BITS | scale | sack | linux;
    if ts > now_ms {
        ts.wrapping_sub(1 << BITS)
    } else {
        ts
    }
}

/// What the echo of such a timestamp tells: bits of [`client_options`], and the window scale.
#[inline(always)]
pub const fn read_cookie_timestamp(echo: u32) -> (u8, u8) {
    let mut options = client_options::TIMESTAMPS;
    let mut scale = (echo & SCALE_MASK) as u8;
    if echo & SCALE_MASK == NO_SCALE {
        scale = 0;
    } else {
        options |= client_options::SCALE;
    }
    if echo & SACK != 0 {
        options |= client_options::SACK;
    }
    if echo & MARK == LINUX {
        options |= client_options::LINUX;
    }
    (options, scale)
}

/// The segment sizes that a cookie can keep (`msstab` of net/ipv4/syncookies.c and of net/ipv6/syncookies.c).
const MSS_V4: [u16; 4] = [536, 1300, 1440, 1460];
const MSS_V6: [u16; 4] = [1220, 1420, 1440, 8940];

/// The smallest of them, which the kernel puts into the cookie of a SYN that announces it.
#[inline(always)]
pub const fn smallest_mss(v4: bool) -> u16 {
    if v4 { MSS_V4[0] } else { MSS_V6[0] }
}

/// The client's segment size, by its cookie and by the one that the same SYN with [`smallest_mss`] would have got: the kernel adds the index of the size
/// to the cookie's lower part. They agree on nothing else when the kernel's minute has changed in between; then it is the smallest.
#[inline(always)]
pub const fn cookie_mss(v4: bool, cookie: u32, with_smallest: u32) -> u16 {
    let table = if v4 { MSS_V4 } else { MSS_V6 };
    match cookie.wrapping_sub(with_smallest) {
        1 => table[1],
        2 => table[2],
        3 => table[3],
        _ => table[0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn linux_is_known_by_its_order() {
        let linux = [
            2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
        let walk = read_options(&linux);
        let all = client_options::TIMESTAMPS
            | client_options::SACK
            | client_options::SCALE
            | client_options::LINUX;
        assert_eq!((walk.mss, walk.scale, walk.ts_value), (1460, 7, 1));
        assert_eq!(walk.options, all);
        let windows = [2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2];
        let walk = read_options(&windows);
        assert_eq!((walk.mss, walk.scale), (1460, 8));
        assert_eq!(walk.options, client_options::SACK | client_options::SCALE);
        assert_eq!(read_options(&[]).mss, 536);
    }

    #[test]
    fn a_cookie_keeps_the_segment_size() {
        for (index, mss) in [
            (0, 536),
            (1, 1300),
            (2, 1440),
            (3, 1460),
            (4, 536),
            (u32::MAX, 536),
        ] {
            assert_eq!(cookie_mss(true, 1000u32.wrapping_add(index), 1000), mss);
        }
        assert_eq!(cookie_mss(false, 2, 0), 1440);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(mss in 1u16.., options in 0u8..16, value: u32, echo: u32, scale in 0u8..=14) {
            // With a cookie there is neither SACK nor a scale without timestamps.
            let options = if options & client_options::TIMESTAMPS == 0 { 0 } else { options };
            let mut written = Options::default();
            written.of_syn(mss, options, (value, echo), scale);
            let bytes: std::vec::Vec<u8> = written.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            prop_assert!(bytes[written.length as usize..].iter().all(|byte| *byte == 0));
            let read = read_options(&bytes[..written.length as usize]);
            let expected = options & !client_options::LINUX;
            prop_assert_eq!(read.options & !client_options::LINUX, expected);
            prop_assert_eq!(read.mss, mss);
            if expected & client_options::TIMESTAMPS != 0 {
                prop_assert_eq!(read.ts_value, value);
            }
            if expected & client_options::SCALE != 0 {
                prop_assert_eq!(read.scale, scale);
            }
        }

        #[test]
        fn a_timestamp_keeps_the_options_and_is_not_ahead(now in 512u32.., options in 0u8..16, scale in 0u8..=14) {
            let options = options | client_options::TIMESTAMPS;
            let ts = cookie_timestamp(now, options, scale);
            prop_assert!(now - ts <= 1 << BITS);
            let expected = if options & client_options::SCALE != 0 { scale } else { 0 };
            prop_assert_eq!(read_cookie_timestamp(ts), (options, expected));
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..=40)) {
            let walk = read_options(&bytes);
            prop_assert!(walk.scale <= MAX_SCALE);
        }
    }
}
