//! What the datapath makes of what real clients send, and how much it leaves to the agent.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use sni_common::{
    contract::HELLO_ROOM,
    hello::{Answer, walk},
};

use crate::{
    builder::{Hello, alpn, key_share, server_name, supported_versions},
    captured::{Captured, captured},
    datapath::{check_beginnings, why_left, with_extensions},
    differential,
    hello::{self, Peeked},
};

const CASES: usize = 8_000;
const SEED: u64 = 5061;

/// Reads them, which is where the two are compared.
fn check(bytes: &[u8]) {
    let _ = hello::read(bytes);
}

/// OpenSSL puts what is longer than the record it has negotiated into several; the agent takes those.
#[test]
fn what_real_clients_send_is_found() {
    for Captured { file, bytes, .. } in captured() {
        let Ok(Peeked::Found(hello)) = hello::read(bytes) else {
            panic!("{file}");
        };
        let wanted = match file {
            "gnutls-no-name" | "openssl-no-name" => Some("no name"),
            "openssl-split" => Some("several records"),
            _ => None,
        };
        assert_eq!(why_left(bytes, &hello), wanted, "{file}");
        let found = walk(bytes).answer() == Answer::Found;
        assert_eq!(found, wanted.is_none(), "{file}");
    }
}

/// As two segments at any place: the first is enough to know how many bytes there will be.
#[test]
fn beginnings_of_what_real_clients_send() {
    for Captured { file, bytes, .. } in captured() {
        if walk(bytes).answer() != Answer::Found {
            continue;
        }
        for end in 0..bytes.len() {
            check(&bytes[..end]);
            match walk(&bytes[..end]).answer() {
                Answer::Incomplete { needed, .. } => assert_eq!(needed as usize, bytes.len()),
                answer => assert!(answer == Answer::Left && end < 9, "{end} bytes of {file}"),
            }
        }
    }
}

/// One byte changed to each of a few values, at any place, with and without the rest.
#[test]
fn what_real_clients_send_with_a_fault() {
    for Captured { bytes, .. } in captured() {
        for at in 0..bytes.len() {
            for byte in [
                0,
                1,
                0xff,
                bytes[at].wrapping_add(1),
                bytes[at].wrapping_sub(1),
            ] {
                let mut bytes = bytes.to_vec();
                bytes[at] = byte;
                check(&bytes);
            }
        }
    }
}

/// A hello with all that browsers have, and as long as it may be.
#[test]
fn a_long_one_with_post_quantum_shares() {
    let name = ["a", "b", "c", "d"].map(|label| label.repeat(63)).join(".");
    let mut hello = Hello::new()
        .with(alpn(&[b"h2", b"http/1.1"]))
        .with(supported_versions(&[0x3a3a, 0x0304, 0x0303]))
        .with(key_share(&[(0x1a1a, 1), (0x11ec, 1216), (29, 32)]));
    for kind in 100..120 {
        hello = hello.with((kind, vec![0; 9]));
    }
    let hello = hello.with(server_name(&name.as_bytes()[..253]));
    let length = hello.bytes().len();
    let fits = hello.clone().with((21, vec![0; HELLO_ROOM - 4 - length]));
    assert_eq!(fits.bytes().len(), HELLO_ROOM);
    assert_eq!(walk(&fits.bytes()).answer(), Answer::Found);
    check(&fits.bytes());
    let longer = hello.with((21, vec![0; HELLO_ROOM - 3 - length]));
    assert_eq!(walk(&longer.bytes()).answer(), Answer::Left);
    check(&longer.bytes());
}

#[test]
fn corpus() {
    crate::corpus::each("walk", |bytes| {
        for stream in [bytes, &with_extensions(bytes)] {
            check(stream);
            check_beginnings(stream, usize::MAX, hello::read);
        }
    });
}

#[test]
fn never_looser_than_the_agent() {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut counts = BTreeMap::<_, usize>::new();
    for _ in 0..CASES {
        let bytes = differential::stream(&mut random);
        check(&bytes);
        let what = match (walk(&bytes).answer(), hello::read(&bytes)) {
            (Answer::Found, _) => "found",
            (Answer::Incomplete { .. }, _) => "incomplete",
            (Answer::Left, Ok(Peeked::Found(hello))) => {
                why_left(&bytes, &hello).unwrap_or_default()
            }
            (Answer::Left, Ok(Peeked::Incomplete { .. })) => "early",
            (Answer::Left, _) => "refused",
        };
        *counts.entry(what).or_default() += 1;
    }
    println!("{counts:?}");
    // The comparison is worth something only while each kind of answer comes up often.
    for (what, share) in [("found", 4), ("refused", 10), ("incomplete", 200)] {
        let count = counts.get(what).copied().unwrap_or_default();
        assert!(count > CASES / share, "{counts:?}");
    }
}

/// Extensions of which any part may be wrong.
fn extension() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(vec![0u16, 13, 16, 43, 51, 51, 16, 0x0a0a, 23]);
    let content = prop_oneof![
        prop::collection::vec(0u8..4, 0..12),
        prop::collection::vec(any::<u8>(), 0..12),
        Just(server_name(b"Sip.fabrikam.example.").1),
        Just(alpn(&[b"h2", b"sip"]).1),
        Just(supported_versions(&[0x0304, 0x0303]).1),
        Just(key_share(&[(29, 3), (0x11ec, 5)]).1),
    ];
    let by = prop::sample::select(vec![0i32, 0, 0, 0, 0, 0, 0, 1, -1]);
    (kind, content, by).prop_map(|(kind, content, by)| {
        let length = (content.len() as i32 + by).max(0) as u16;
        [&kind.to_be_bytes()[..], &length.to_be_bytes(), &content].concat()
    })
}

proptest! {
    #[test]
    fn any_extensions(
        mut all in prop::collection::vec(extension(), 0..6),
        at in any::<prop::sample::Index>(),
    ) {
        let (_, name) = server_name(b"sip.fabrikam.example");
        let name = [&[0, 0, 0, name.len() as u8], &*name].concat();
        check(&with_extensions(&all.concat()));
        all.insert(at.index(all.len() + 1), name);
        check(&with_extensions(&all.concat()));
    }

    #[test]
    fn any_name(name in "[a-zA-Z0-9.x_-]{0,260}|[a-z0-9.-]{0,12}\\.?|(0x)?[0-9a-f.]{1,12}|\\PC{0,20}") {
        check(&Hello::named(name.as_bytes()).bytes());
    }
}
