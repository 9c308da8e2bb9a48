//! The option area as its receiver reads it (RFC 9293, 3.1), and the checksum summed afresh: a second opinion, without a line of the datapath's.

use sni_common::translate::{Translation, options};

/// An option and where it starts.
pub(crate) struct Piece<'a> {
    pub(crate) at: usize,
    pub(crate) kind: u8,
    /// What follows kind and length.
    pub(crate) data: &'a [u8],
}

/// The options before the list's end, or before what makes no option: a length below two or beyond the area.
pub(crate) fn pieces(area: &[u8]) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        match area[at..] {
            [] | [0, ..] => return found,
            [1, ..] => at += 1,
            [kind, length, ..] => {
                let Some(option) = area[at..].get(..length.into()) else {
                    return found;
                };
                let Some(data) = option.get(2..) else {
                    return found;
                };
                found.push(Piece { at, kind, data });
                at += option.len();
            }
            [_] => return found,
        }
    }
}

/// The translation of an option area.
pub(crate) fn translated(translation: &Translation, area: &[u8], ack: bool) -> Vec<u8> {
    let mut out = area.to_vec();
    let has = |bit| translation.options & bit != 0;
    for Piece { at, kind, data } in pieces(area) {
        let values = &mut out[at + 2..at + 2 + data.len()];
        match kind {
            8 if data.len() == 8 && has(options::TIMESTAMPS) => {
                add(&mut values[..4], translation.ts_value);
                add(&mut values[4..], if ack { translation.ts_echo } else { 0 });
            }
            8 if data.len() == 8 && has(options::NO_TIMESTAMPS) => {
                out[at..at + 10].fill(1);
            }
            5 if has(options::NO_SACK) => out[at..at + 2 + data.len()].fill(1),
            5 => {
                for edge in values.chunks_exact_mut(4).take(8) {
                    add(edge, translation.ack);
                }
            }
            _ => {}
        }
    }
    out
}

fn add(bytes: &mut [u8], by: u32) {
    let word = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    bytes.copy_from_slice(&word.wrapping_add(by).to_be_bytes());
}

/// The checksum of a segment behind a pseudo header's sum (RFC 9293, 3.1), its own field counted as zero.
pub(crate) fn checksum(pseudo: u16, segment: &[u8]) -> u16 {
    let mut sum = u64::from(pseudo);
    for (i, byte) in segment.iter().enumerate() {
        if !(16..18).contains(&i) {
            sum += u64::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
        }
    }
    // Modulo 2^16 - 1; a sum of something never folds to zero.
    match sum % 0xffff {
        0 if sum != 0 => 0,
        rest => !(rest as u16),
    }
}
