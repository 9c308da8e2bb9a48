//! Option areas: any bytes, likely ones, the fuzzer's seeds, and those that were wrong once.

use std::{fs, path::Path};

use proptest::prelude::*;
use sni_common::translate::{Leg, Translation, options, pair, translate_options};

use crate::invariants;

#[test]
fn corpus() {
    crate::corpus::each("translate", invariants::check);
}

/// As [`invariants::check`] takes it: sequence numbers, timestamps, scales 7 and 3, these options, ACK, a window.
fn input(options: u8, area: &[u8]) -> Vec<u8> {
    let words = [1u32, 0xffff_0000, 77, 0x8000_0001].map(u32::to_be_bytes);
    [&words.concat()[..], &[7, 3, options, 1, 0x20, 0x40], area].concat()
}

/// Something that may stand in an option area; also with a wrong length.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let option = |kind: u8| {
        (prop::collection::vec(any::<u8>(), 0..36), -2i16..3).prop_map(move |(data, wrong)| {
            let length = (data.len() as i16 + 2 + wrong).max(0) as u8;
            [&[kind, length], &data[..]].concat()
        })
    };
    let timestamps = any::<[u8; 8]>().prop_map(|data| [&[8, 10], &data[..]].concat());
    let sack = (1usize..5).prop_flat_map(|blocks| {
        prop::collection::vec(any::<u8>(), blocks * 8)
            .prop_map(move |data| [&[5, 2 + 8 * blocks as u8], &data[..]].concat())
    });
    prop_oneof![
        8 => Just(vec![1]),
        1 => Just(vec![0]),
        4 => timestamps,
        4 => sack,
        1 => option(5),
        1 => option(8),
        1 => any::<u8>().prop_flat_map(option),
    ]
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        invariants::check(&bytes);
    }

    #[test]
    fn likely_areas(
        head in any::<[u8; 18]>(),
        options in 0u8..8,
        rest in any::<[u8; 3]>(),
        pieces in prop::collection::vec(piece(), 0..8),
    ) {
        invariants::check(&[&head[..], &[options], &rest, &pieces.concat()].concat());
    }

    #[test]
    fn the_usual_area(
        head in any::<[u8; 18]>(),
        options in 0u8..8,
        rest in any::<[u8; 3]>(),
        values in any::<[u8; 8]>(),
    ) {
        invariants::check(&[&head[..], &[options], &rest, &[1, 1, 8, 10], &values].concat());
    }

    #[test]
    fn every_scale(sender in 0u8..15, receiver in 0u8..15, field: u16) {
        let mut bytes = input(0, &[]);
        bytes[16..18].copy_from_slice(&[sender, receiver]);
        bytes[20..22].copy_from_slice(&field.to_be_bytes());
        invariants::check(&bytes);
    }
}

#[test]
fn the_fuzzers_seeds() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate/seeds");
    let mut count = 0;
    for file in fs::read_dir(directory).unwrap() {
        invariants::check(&fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

/// Of the longest option area all is one option, which no receiver takes for blocks; half of it left behind would be read as other options.
#[test]
fn a_sack_option_of_any_length_is_left_out_as_a_whole() {
    let translation = Translation {
        options: options::NO_SACK,
        ..Translation::default()
    };
    for length in 2..=40u8 {
        let mut area = vec![0x08; 40];
        area[..2].copy_from_slice(&[5, length]);
        translate_options(&translation, &mut area, true);
        assert_eq!(area[..length.into()], vec![1; length.into()]);
        invariants::check(&input(options::NO_SACK, &area));
    }
}

#[test]
fn what_makes_no_option_ends_the_walk() {
    let timestamps = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    for broken in [&[2, 0][..], &[2, 1], &[8, 0], &[5, 1], &[0], &[99, 39]] {
        let area = [broken, &timestamps].concat();
        let mut after = area.clone();
        let translation = Translation {
            ts_value: 5,
            options: options::TIMESTAMPS,
            ..Translation::default()
        };
        assert_eq!(
            translate_options(&translation, &mut after, true) % 0xffff,
            0
        );
        assert_eq!(after, area);
    }
    // Cut off at every byte of an option.
    for end in 1..timestamps.len() {
        for option in [options::TIMESTAMPS, options::NO_TIMESTAMPS] {
            invariants::check(&input(option, &timestamps[..end]));
        }
    }
}

#[test]
fn the_echo_of_a_segment_without_ack_says_nothing() {
    let translation = Translation {
        ts_value: 1,
        ts_echo: 1,
        options: options::TIMESTAMPS,
        ..Translation::default()
    };
    assert_eq!(translation.timestamps(7, 0, false), (8, 0));
    assert_eq!(translation.timestamps(7, u32::MAX, true), (8, 0));
}

/// RFC 7323, 3.2: timestamps that were not agreed on are ignored. Passed on to a receiver who has agreed on some, they would not be.
#[test]
fn timestamps_of_a_peer_that_has_none_are_left_out() {
    let without = Leg::default();
    let with = Leg {
        timestamps: Some(Default::default()),
        ..Leg::default()
    };
    for (client, edge) in [(without, with), (with, without), (without, without)] {
        let (to_edge, to_client) = pair(&client, &edge);
        assert_eq!(
            to_edge.options & options::NO_TIMESTAMPS,
            options::NO_TIMESTAMPS
        );
        assert_eq!(
            to_client.options & options::NO_TIMESTAMPS,
            options::NO_TIMESTAMPS
        );
    }
}

/// RFC 7323, 2.3.
#[test]
fn a_larger_scale_counts_as_14() {
    let leg = Leg {
        peer_scale: 200,
        own_scale: 15,
        ..Leg::default()
    };
    let (to_edge, _) = pair(&leg, &leg);
    assert_eq!((to_edge.sender_scale, to_edge.receiver_scale), (14, 14));
}
