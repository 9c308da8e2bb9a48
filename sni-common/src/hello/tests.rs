//! Each rule for itself. That they are the agent's, `sni-user/tests/hello/` shows.

use std::{iter, string::String, vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::contract::{MAX_SNI_NAME, SniName};

const NAME: &[u8] = b"sip.fabrikam.example";

fn vec8(content: &[u8]) -> Vec<u8> {
    [&[content.len() as u8], content].concat()
}

fn vec16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn name_list(name: &[u8]) -> Vec<u8> {
    vec16(&[&[0], &*vec16(name)].concat())
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols.iter().flat_map(|name| vec8(name)).collect();
    vec16(&list)
}

fn shares(shares: &[(u16, usize)]) -> Vec<u8> {
    let share = |(group, length): &(u16, usize)| {
        [&group.to_be_bytes(), &*vec16(&vec![1; *length])].concat()
    };
    vec16(&shares.iter().flat_map(share).collect::<Vec<u8>>())
}

/// The parts of a hello before its extensions.
struct Body {
    session: Vec<u8>,
    ciphers: Vec<u8>,
    compression: Vec<u8>,
}

impl Default for Body {
    fn default() -> Self {
        Self {
            session: vec8(&[7; 32]),
            ciphers: vec16(&[0x13, 1, 0x13, 2]),
            compression: vec8(&[0]),
        }
    }
}

impl Body {
    fn with(&self, extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, content)| [&kind.to_be_bytes(), &*vec16(content)].concat())
            .collect();
        let body = [
            &[3, 3],
            &[0x5a; 32][..],
            &self.session,
            &self.ciphers,
            &self.compression,
            &vec16(&extensions),
        ];
        record(&body.concat())
    }
}

/// A hello with this body, in one record.
fn record(body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    let message = [&[CLIENT_HELLO, a, b, c], body].concat();
    [&[HANDSHAKE, 3, 1], &*vec16(&message)].concat()
}

fn named(name: &[u8], others: &[(u16, Vec<u8>)]) -> Vec<u8> {
    Body::default().with(&[&[(0, name_list(name))], others].concat())
}

fn answer(bytes: &[u8]) -> Answer {
    walk(bytes).answer()
}

/// The name that was found.
fn found(bytes: &[u8]) -> Option<String> {
    let walk = walk(bytes);
    (walk.answer() == Answer::Found).then(|| walk.key.name.as_str().into())
}

#[track_caller]
fn left(bytes: &[u8]) {
    assert_eq!(answer(bytes), Answer::Left, "{}", bytes.escape_ascii());
}

/// What a browser sends: post-quantum shares, GREASE, and all extensions in any order.
fn browser() -> Vec<u8> {
    let mut extensions: Vec<(u16, Vec<u8>)> = [
        0x0a0a, 5, 10, 11, 17, 18, 23, 27, 35, 45, 0x4469, 0xfe0d, 0xff01, 0x1a1a,
    ]
    .map(|kind| (kind, vec![0; 5]))
    .into();
    extensions.extend([
        (16, alpn(&[b"h2", b"http/1.1"])),
        (43, vec8(&[0x3a, 0x3a, 3, 4, 3, 3])),
        (13, vec16(&[4, 3, 8, 4])),
        (51, shares(&[(0x2a2a, 1), (0x11ec, 1216), (29, 32)])),
        (0, name_list(NAME)),
    ]);
    Body::default().with(&extensions)
}

#[test]
fn names_that_are_found() {
    let long = ["a", "b", "c", "d"].map(|label| label.repeat(63)).join(".");
    let long = &long[..MAX_SNI_NAME];
    let shorter = std::format!("{}.", &long[..MAX_SNI_NAME - 1]);
    for (sent, name) in [
        ("sip.fabrikam.example", "sip.fabrikam.example"),
        ("SIP.Fabrikam.EXAMPLE", "sip.fabrikam.example"),
        ("sip.fabrikam.example.", "sip.fabrikam.example"),
        ("localhost", "localhost"),
        ("x", "x"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_sip._tls.fabrikam.example", "_sip._tls.fabrikam.example"),
        ("3com.example", "3com.example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("a-b--c.example", "a-b--c.example"),
        (long, long),
        (&shorter, &long[..MAX_SNI_NAME - 1]),
    ] {
        assert_eq!(
            found(&named(sent.as_bytes(), &[])).as_deref(),
            Some(name),
            "{sent}"
        );
    }
}

#[test]
fn names_that_are_left() {
    let label = "a".repeat(64);
    let first = std::format!("{label}.example");
    let last = std::format!("sip.{label}");
    let long = std::format!("{}.abc", vec!["a"; 125].join("."));
    assert_eq!(long.len(), MAX_SNI_NAME);
    let long = std::format!("{long}.");
    for name in [
        &b""[..],
        b".",
        b"..",
        b"-",
        b"sip.fabrikam.example\0",
        b"\0",
        b"sip..example",
        b".fabrikam.example",
        b"sip.fabrikam.example..",
        b"*.fabrikam.example",
        b"sip fabrikam.example",
        b"sip.fabrikam.example:5061",
        b"-sip.fabrikam.example",
        b"sip-.fabrikam.example",
        b"sip.fabrikam.-example",
        b"sip.fabrikam.example-",
        b"sip.fabrikam.example-.",
        b"b\xc3\xbccher.example",
        b"\xff\xfe.example",
        b"[2001:db8::1]",
        b"2001:db8::1",
        b"192.0.2.1",
        b"192.0.2.1.",
        b"127.1",
        b"0x7f000001",
        b"sip.0x",
        // The agent takes these; no top-level domain is like that.
        b"sip.3com",
        b"sip._example",
        first.as_bytes(),
        last.as_bytes(),
        long.as_bytes(),
        &[b'a'; 300],
    ] {
        left(&named(name, &[]));
    }
}

#[test]
fn lists_of_names() {
    let entry = [&[0], &*vec16(NAME)].concat();
    let mut long_name = entry.clone();
    long_name[2] += 1;
    let mut short_name = entry.clone();
    short_name[2] -= 1;
    for content in [
        vec![],
        vec![0],
        vec16(&[]),
        vec16(&[0]),
        vec16(&[0, 0]),
        vec16(&[0, 0, 0]),
        vec16(&[&*entry, &entry].concat()),
        vec16(&[&*entry, &[1, 0, 1, b'x']].concat()),
        vec16(&[&[1], &*vec16(NAME)].concat()),
        [&*vec16(&entry), &[0]].concat(),
        vec16(&long_name),
        vec16(&short_name),
        vec![0xff, 0xff, 0, 0, 1, b'a'],
    ] {
        left(&Body::default().with(&[(0, content)]));
    }
    left(&Body::default().with(&[(13, vec16(&[4, 3]))]));
    left(&Body::default().with(&[]));
}

#[test]
fn what_a_browser_sends_is_found() {
    let bytes = browser();
    let walk = walk(&bytes);
    assert_eq!(walk.answer(), Answer::Found);
    assert_eq!(walk.hello_length() as usize, bytes.len());
    assert_eq!(walk.key.name.as_str().as_bytes(), NAME);
    assert_eq!(walk.key.ip_set, 0);
}

/// The most that is promised: the longest name, 25 other extensions, a few protocols and shares.
#[test]
fn there_are_enough_steps() {
    let name = ["a", "b", "c", "d"].map(|label| label.repeat(63)).join(".");
    let mut others: Vec<_> = (100..123).map(|kind| (kind, vec![0])).collect();
    others.push((16, alpn(&[&b"h2"[..]; 50])));
    others.push((51, shares(&[(29, 32); 9])));
    let found = found(&named(&name.as_bytes()[..MAX_SNI_NAME], &others));
    assert_eq!(found.as_deref(), Some(&name[..MAX_SNI_NAME]));
    left(&named(NAME, &[(16, alpn(&[&b"h2"[..]; STEPS as usize]))]));
}

#[test]
fn an_extension_comes_once() {
    let kinds: Vec<u16> = (0..31).map(|number| number * 0x0807 + 1).collect();
    let others: Vec<_> = kinds.iter().map(|kind| (*kind, vec![0])).collect();
    assert!(found(&named(NAME, &others)).is_some());
    for (first, kind) in kinds.iter().enumerate() {
        for second in first + 1..others.len() {
            let mut twice = others.clone();
            twice[second].0 = *kind;
            left(&named(NAME, &twice));
        }
    }
    left(&named(NAME, &[(0, name_list(NAME))]));
    // The 33rd is too many, whatever it is.
    left(&named(NAME, &[&*others, &[(0xabcd, vec![])]].concat()));
}

#[test]
fn lists_in_extensions() {
    let wrong = [
        (16, vec![]),
        (16, vec![0]),
        (16, vec16(&[])),
        (16, vec16(&[3, b'h', b'2'])),
        (16, alpn(&[b"h2", b""])),
        (16, [&*alpn(&[b"h2"]), &[0]].concat()),
        (43, vec![]),
        (43, vec8(&[])),
        (43, vec8(&[3, 4, 3])),
        (43, vec![5, 3, 4]),
        (43, [&*vec8(&[3, 4]), &[0]].concat()),
        (13, vec![]),
        (13, vec16(&[])),
        (13, vec16(&[4, 3, 8])),
        (13, [&*vec16(&[4, 3]), &[0]].concat()),
        (51, vec![]),
        (51, vec16(&[0, 29, 0])),
        (51, vec16(&[0, 29, 0, 32, 1])),
        (51, [&*shares(&[(29, 32)]), &[0]].concat()),
    ];
    for (kind, content) in wrong {
        left(&named(NAME, &[(kind, content)]));
    }
    assert!(found(&named(NAME, &[(51, shares(&[]))])).is_some());
    assert!(found(&named(NAME, &[(51, shares(&[(29, 0)]))])).is_some());
}

#[test]
fn before_the_extensions() {
    let wrong = [
        Body {
            session: vec8(&[7; 33]),
            ..Body::default()
        },
        Body {
            ciphers: vec16(&[]),
            ..Body::default()
        },
        Body {
            ciphers: vec16(&[0x13, 1, 0x13]),
            ..Body::default()
        },
        Body {
            compression: vec8(&[]),
            ..Body::default()
        },
    ];
    for body in wrong {
        left(&body.with(&[(0, name_list(NAME))]));
    }
    let short = Body {
        session: vec8(&[]),
        ..Body::default()
    };
    assert!(found(&short.with(&[(0, name_list(NAME))])).is_some());
}

/// Cut anywhere, with the outer lengths put right.
#[test]
fn lengths_must_fit() {
    let whole = browser();
    let body = &whole[9..];
    for end in 0..body.len() {
        left(&record(&body[..end]));
    }
    left(&record(&[body, &[0]].concat()));
    // A whole extension, but behind their list.
    left(&record(&[body, &[0xab, 0xcd, 0, 0]].concat()));
}

#[test]
fn records() {
    let whole = named(NAME, &[]);
    let changed = |at: usize, by: u8| {
        let mut bytes = whole.clone();
        bytes[at] = bytes[at].wrapping_add(by);
        bytes
    };
    // Type, version, length and message's type and length.
    for at in [0, 1, 3, 4, 5, 6, 7, 8] {
        for by in [1, 255] {
            left(&changed(at, by));
        }
    }
    assert!(found(&changed(2, 9)).is_some());
    for bytes in [
        &b""[..],
        b"\x16",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        b"GET / HTTP/1.1\r\n",
        &[0xff; HELLO_ROOM],
        &[0; HELLO_ROOM],
    ] {
        left(bytes);
    }
    // The message goes on in another record, or ends before its own does.
    let (a, b) = whole[5..].split_at(60);
    left(&[&whole[..3], &*vec16(a), &whole[..3], &vec16(b)].concat());
    left(&[&whole[..3], &*vec16(&[&whole[5..], &[0]].concat())].concat());
}

#[test]
fn what_follows_is_not_looked_at() {
    let whole = browser();
    let early = [&*whole, b"\x17\x03\x03\x00\x05hello"].concat();
    assert!(found(&early).is_some());
    assert_eq!(walk(&early).hello_length() as usize, whole.len());
    let much = [&*whole, &[0xff; ROOM]].concat();
    assert!(found(&much).is_some());
}

#[test]
fn the_longest_hello() {
    let padding = HELLO_ROOM - named(NAME, &[(21, vec![])]).len();
    let fits = named(NAME, &[(21, vec![0; padding])]);
    assert_eq!(fits.len(), HELLO_ROOM);
    assert!(found(&fits).is_some());
    let needed = HELLO_ROOM as u32;
    assert_eq!(
        answer(&fits[..HELLO_ROOM - 1]),
        Answer::Incomplete {
            needed,
            named: true
        }
    );
    left(&named(NAME, &[(21, vec![0; padding + 1])]));
}

/// A walk begins anew with what another has left behind.
#[test]
fn begin_forgets() {
    let mut walk = walk(&named(b"much.longer.fabrikam.example", &[(21, vec![])]));
    let bytes = named(b"x.example", &[(21, vec![])]);
    let mut room = [0xff; ROOM];
    room[..bytes.len()].copy_from_slice(&bytes);
    walk.key.ip_set = 5;
    walk.begin(bytes.len() as u32);
    assert_eq!(walk.answer(), Answer::Left);
    while walk.step(&room) {}
    assert!(!walk.step(&room));
    assert_eq!(walk.answer(), Answer::Found);
    assert_eq!((walk.key.ip_set, walk.key.name.as_str()), (5, "x.example"));
}

/// What holds for any bytes.
fn check(bytes: &[u8]) {
    let whole = walk(bytes);
    for end in 0..bytes.len() {
        let part = walk(&bytes[..end]);
        match part.answer() {
            // More bytes change nothing.
            Answer::Found => assert_eq!(whole.answer(), Answer::Found),
            Answer::Incomplete { needed, named } => {
                assert!(end < needed as usize && needed as usize <= HELLO_ROOM);
                if named && whole.answer() == Answer::Found {
                    assert_eq!(part.key.name, whole.key.name);
                }
                match whole.answer() {
                    Answer::Found => {
                        assert_eq!(whole.hello_length(), needed);
                        assert!(bytes.len() >= needed as usize);
                    }
                    Answer::Incomplete {
                        needed: still,
                        named: by_then,
                    } => {
                        assert_eq!(still, needed);
                        assert!(bytes.len() < needed as usize);
                        assert!(by_then || !named);
                    }
                    Answer::Left => {}
                }
            }
            // With less than the headers nothing is known yet.
            Answer::Left if end >= 9 => assert_eq!(whole.answer(), Answer::Left),
            Answer::Left => {}
        }
    }
    if whole.answer() == Answer::Found {
        let name = whole.key.name.as_str();
        assert_eq!(SniName::new(name), Ok(whole.key.name));
        assert!(!name.is_empty() && !whole.key.name.is_wildcard());
    }
}

#[test]
fn every_beginning_is_incomplete() {
    let bytes = browser();
    check(&bytes);
    let needed = bytes.len() as u32;
    // The name comes last.
    for end in 9..bytes.len() {
        assert_eq!(
            answer(&bytes[..end]),
            Answer::Incomplete {
                needed,
                named: false
            }
        );
    }
    let first = named(NAME, &[(21, vec![0; 100])]);
    let end = first.len() - 50;
    assert_eq!(
        answer(&first[..end]),
        Answer::Incomplete {
            needed: first.len() as u32,
            named: true
        }
    );
}

fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let hello = prop::sample::select(vec![
        browser(),
        named(NAME, &[(16, alpn(&[b"h2", b"x"]))]),
        named(b"a.b-c.d.example.", &[(43, vec8(&[3, 4]))]),
    ]);
    let change = (any::<prop::sample::Index>(), any::<u8>());
    (hello, prop::collection::vec(change, 0..4)).prop_map(|(mut bytes, changes)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn any_body(body in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&record(&body));
    }

    #[test]
    fn nearly_right(bytes in nearly()) {
        check(&bytes);
    }

    #[test]
    fn any_name(name in "[a-zA-Z0-9._-]{0,80}") {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        };
        let host = name.strip_suffix('.').unwrap_or(&name);
        let last = host.rsplit('.').next().unwrap_or_default();
        let right = host.split('.').all(is_label) && last.starts_with(|c: char| c.is_ascii_alphabetic());
        let found = found(&named(name.as_bytes(), &[]));
        prop_assert_eq!(found, right.then(|| host.to_ascii_lowercase()));
    }

    /// Types in all lanes, with any difference between them.
    #[test]
    fn any_types(kinds in prop::collection::vec(prop::sample::select(vec![
        1u16, 2, 0x8000, 0x8001, 0x7fff, 0xffff, 0xfffe, 0x0100, 0x0101, 0x00ff, 0x8080, 3, 4, 0xff00,
    ]), 0..10)) {
        let mut sorted = kinds.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let others: Vec<_> = kinds.iter().copied().zip(iter::repeat(vec![])).collect();
        prop_assert_eq!(found(&named(NAME, &others)).is_some(), sorted.len() == kinds.len());
    }
}
