//! Internet checksums updated in place (RFC 1624), so that a payload is never read and damage to it stays visible.
//!
//! Sums are one's complement over 16-bit words as they stand in memory: the arithmetic is the same in either byte order
//! (RFC 1071, 2B), so nothing is ever swapped.

/// Folds a running sum into 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    // Four folds: 64 bits carry into at most 48, then 33, then 17, then 16.
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// What a change of one 32-bit field adds to a sum: ~m + m' of RFC 1624, equation 3.
#[inline(always)]
pub const fn change(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// The sum of the changes of an address; zero in one's complement where old and new agree, so IPv4 and IPv6 need no branch.
#[inline(always)]
pub const fn change_address(old: &crate::Address, new: &crate::Address) -> u64 {
    change(old.0[0], new.0[0])
        + change(old.0[1], new.0[1])
        + change(old.0[2], new.0[2])
        + change(old.0[3], new.0[3])
}

/// The checksum field after a change: ~(~HC + delta), RFC 1624, equation 3.
///
/// `delta` is a sum of [`change`]s, folded or not. Equation 3 rather than RFC 1141's, which can turn a correct field into 0xffff.
#[inline(always)]
pub const fn update(field: u16, delta: u64) -> u16 {
    !fold(!field as u64 + delta)
}

/// The checksum of `words` (16-bit, memory order), as a fresh header needs it.
#[inline(always)]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Adds a byte slice to a sum; an odd last byte is padded with zero (RFC 1071).
///
/// For the host: the datapath never has a slice of unknown length.
pub fn add_bytes(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn checksum(bytes: &[u8]) -> u16 {
        finish(add_bytes(0, bytes))
    }

    /// Equal as one's complement numbers: 0x0000 and 0xffff are the same zero.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // HC = 0xDD2F, m = 0x5555, m' = 0x3285: the new checksum is 0x0000, where RFC 1141 gives 0xffff.
        assert_eq!(update(0xdd2f, u64::from(!0x5555u16) + 0x3285), 0x0000);
    }

    #[test]
    fn the_header_of_rfc_1071_sums_as_written() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(
            u16::from_be_bytes(fold(add_bytes(0, &bytes)).to_ne_bytes()),
            0xddf2
        );
    }

    proptest! {
        #[test]
        fn an_update_equals_a_fresh_sum(mut bytes in prop::collection::vec(any::<u8>(), 8..200), at in 0usize..40, new: u32) {
            let at = (at * 4) % (bytes.len() / 4 * 4);
            let before = checksum(&bytes);
            let old = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&new.to_ne_bytes());
            prop_assert!(same(update(before, change(old, new)), checksum(&bytes)));
        }

        #[test]
        fn deltas_add_up_and_may_be_folded_early(fields in prop::collection::vec((any::<u32>(), any::<u32>()), 1..12), field: u16) {
            let sum: u64 = fields.iter().map(|(old, new)| change(*old, *new)).sum();
            prop_assert_eq!(update(field, sum), update(field, u64::from(fold(sum))));
        }

        #[test]
        fn a_delta_undone_leaves_the_packet_as_it_was(field: u16, old: u32, new: u32) {
            let there = update(field, change(old, new));
            prop_assert!(same(update(there, change(new, old)), field));
        }

        #[test]
        fn fold_equals_the_slow_way(sum: u64) {
            let words: Vec<u64> = (0..4).map(|i| (sum >> (16 * i)) & 0xffff).collect();
            let mut slow: u64 = words.iter().sum();
            while slow > 0xffff {
                slow = (slow & 0xffff) + (slow >> 16);
            }
            prop_assert_eq!(u64::from(fold(sum)), slow);
        }
    }
}
