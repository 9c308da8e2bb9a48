//! What holds for the translation of any option area. The fuzz target runs this very file.

use sni_common::checksum;
use sni_common::translate::{MAX_OPTIONS, Translation, Walk, options, translate_options};

use crate::reference;

/// Bytes of an input before the option area: what [`Translation`] has, flags, and the window.
const HEAD: usize = 4 * 4 + 3 + 1 + 2;

/// Panics if the translation of an option area contradicts a straightforward one, or itself.
///
/// `bytes` are a translation, the ACK bit and a window, and the option area; too few are nothing.
pub(crate) fn check(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return;
    };
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let translation = Translation {
        seq: word(0),
        ack: word(4),
        ts_value: word(8),
        ts_echo: word(12),
        sender_scale: head[16],
        receiver_scale: head[17],
        options: head[18],
        padding: 0,
    };
    let ack = head[19] & 1 != 0;
    window(&translation, u16::from_be_bytes([head[20], head[21]]));
    let area = &rest[..rest.len().min(MAX_OPTIONS)];
    let after = whole(&translation, area, ack);
    walked(&translation, area, &after, ack);
    aligned(&translation, area, &after, ack);
    there_and_back(translation, area, &after, ack);
}

/// As the reference has it; what the change adds to a checksum is what it changes.
fn whole(translation: &Translation, area: &[u8], ack: bool) -> Vec<u8> {
    let mut after = area.to_vec();
    let change = translate_options(translation, &mut after, ack);
    assert_eq!(
        after,
        reference::translated(translation, area, ack),
        "{area:02x?} by {translation:?}"
    );
    same_sum(area, &after, change);
    after
}

/// In front of any segment with the old bytes: a header, and behind the area, which may end at an odd byte, data.
fn same_sum(before: &[u8], after: &[u8], change: u64) {
    let segment = |area: &[u8]| [&[0x5a; 16][..], &[0; 2], &[3; 2], area, b"data"].concat();
    let old = reference::checksum(0x1234, &segment(before));
    let new = reference::checksum(0x1234, &segment(after));
    let updated = checksum::update(old.to_be(), change).to_be();
    // Zero has two representations (RFC 1624, 3), and both are right.
    assert!(
        updated == new || updated.is_multiple_of(0xffff) && new.is_multiple_of(0xffff),
        "{updated:#06x} instead of {new:#06x}"
    );
}

/// The walk ends in time, reads and writes nothing behind the area, and tells the last timestamp.
fn walked(translation: &Translation, area: &[u8], after: &[u8], ack: bool) {
    let mut walk = Walk::default();
    // Kinds and lengths of timestamps and SACK, where the area must not go on.
    for (i, byte) in walk.before.iter_mut().enumerate() {
        *byte = [8, 10, 5, 10][i % 4];
    }
    walk.before[..area.len()].copy_from_slice(area);
    let behind = walk.before;
    walk.begin(area.len() as u32, ack);
    let steps = (0..)
        .take_while(|_| walk.step(translation))
        .take(1000)
        .count();
    assert!(steps <= MAX_OPTIONS, "{steps} steps in {area:02x?}");
    assert!(!walk.step(translation), "the end is not the end");
    assert_eq!(walk.after[..area.len()], *after);
    assert_eq!(walk.after[area.len()..], behind[area.len()..]);
    let last = reference::pieces(area)
        .into_iter()
        .rfind(|piece| piece.kind == 8 && piece.data.len() == 8)
        .map(|piece| u32::from_be_bytes(piece.data[..4].try_into().expect("four bytes")));
    assert_eq!((walk.has_timestamps != 0).then_some(walk.ts_value), last);
}

/// The short way for the usual area is the long way.
fn aligned(translation: &Translation, area: &[u8], after: &[u8], ack: bool) {
    let Ok(area) = <[u8; 12]>::try_from(area) else {
        return;
    };
    if area[..4] != [1, 1, 8, 10] {
        return;
    }
    let word = |at: usize| u32::from_ne_bytes(area[at..at + 4].try_into().expect("four bytes"));
    let (words, change) = translation.aligned_timestamps(word(4), word(8), ack);
    assert_eq!(words.map(u32::to_ne_bytes).concat(), after);
    same_sum(&area, after, change);
}

/// By the opposite translation everything becomes what it was, unless something was left out.
fn there_and_back(translation: Translation, area: &[u8], after: &[u8], ack: bool) {
    if translation.options & (options::NO_TIMESTAMPS | options::NO_SACK) != 0 {
        return;
    }
    let opposite = Translation {
        seq: translation.seq.wrapping_neg(),
        ack: translation.ack.wrapping_neg(),
        ts_value: translation.ts_value.wrapping_neg(),
        ts_echo: translation.ts_echo.wrapping_neg(),
        ..translation
    };
    let mut back = after.to_vec();
    translate_options(&opposite, &mut back, ack);
    assert_eq!(back, area);
}

/// Never more than was promised, and less by less than one unit, unless the field can't say it.
fn window(translation: &Translation, field: u16) {
    let scale = |scale: u8| u32::from(scale & 15);
    let promised = u64::from(field) << scale(translation.sender_scale);
    let unit = 1u64 << scale(translation.receiver_scale);
    let told = translation.window(field);
    let bytes = u64::from(told) * unit;
    assert!(bytes <= promised, "{bytes} of {promised} bytes promised");
    assert!(
        told == u16::MAX || promised - bytes < unit,
        "{bytes} of {promised} bytes left"
    );
}
