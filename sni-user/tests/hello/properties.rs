//! Any bytes, any name, any cut.

use proptest::prelude::*;

use crate::{
    builder::Hello,
    hello::{self, Peeked},
    invariants,
};

#[test]
fn corpus() {
    crate::corpus::each("hello", invariants::check);
}

/// Streams that begin like a ClientHello, so that random bytes reach the inner parts.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let hello = prop::sample::select(vec![
        include_bytes!("../hellos/openssl-tls13.bin").to_vec(),
        include_bytes!("../hellos/openssl-split.bin").to_vec(),
        include_bytes!("../hellos/chromium.bin").to_vec(),
    ]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (hello, changes, any::<prop::sample::Index>()).prop_map(|(mut bytes, changes, end)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Half of them whole.
        let end = end.index(2 * bytes.len());
        bytes.truncate(end.max(1));
        bytes
    })
}

/// Mostly handshake records; every other one's content begins like a ClientHello.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(vec![22, 22, 22, 20, 23]);
    let content = prop::collection::vec(any::<u8>(), 0..40);
    (kind, content, any::<bool>()).prop_map(|(kind, mut content, hello)| {
        if hello {
            content.splice(0..0, [1, 0, 0]);
        }
        let len = content.len() as u8;
        [&[kind, 3, 1, 0, len], content.as_slice()].concat()
    })
}

fn label() -> impl Strategy<Value = String> {
    "[a-z_]([a-z0-9_-]{0,20}[a-z0-9_])?"
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        invariants::check(&bytes);
    }

    #[test]
    fn any_records(records in prop::collection::vec(record(), 0..8)) {
        invariants::check(&records.concat());
    }

    #[test]
    fn nearly_right(bytes in nearly()) {
        invariants::check(&bytes);
    }

    /// RFC 4343: names are compared without regard to case.
    #[test]
    fn case_and_a_trailing_dot_do_not_matter(
        labels in prop::collection::vec(label(), 1..6),
        upper in any::<u128>(),
        dot in any::<bool>(),
    ) {
        let name = labels.join(".");
        let mut sent: String = name
            .chars()
            .enumerate()
            .map(|(at, char)| if upper >> (at % 128) & 1 == 1 { char.to_ascii_uppercase() } else { char })
            .collect();
        if dot {
            sent.push('.');
        }
        let Ok(Peeked::Found(hello)) = hello::read(&Hello::named(sent.as_bytes()).bytes()) else {
            return Err(TestCaseError::fail(format!("{sent} was refused")));
        };
        prop_assert_eq!(hello.server_name, Some(name));
    }

    #[test]
    fn records_may_be_cut_anywhere(
        cuts in prop::collection::vec(1usize..600, 0..20),
        file in prop::sample::select(vec![
            &include_bytes!("../hellos/chromium.bin")[..],
            include_bytes!("../hellos/gnutls-tls12.bin"),
        ]),
    ) {
        let message = invariants::message_of(file);
        let mut bytes = Vec::new();
        let mut rest = &message[..];
        for cut in cuts {
            let (fragment, behind) = rest.split_at(cut.min(rest.len()));
            bytes.extend(invariants::into_records(fragment, 1 << 14));
            rest = behind;
        }
        bytes.extend(invariants::into_records(rest, 1 << 14));
        prop_assert_eq!(hello::read(&bytes), hello::read(file));
    }
}
