//! What is refused, each for its own reason, and what just passes.

use crate::{
    builder::{
        Hello, alpn, key_share, message, server_name, server_names, signature_algorithms,
        supported_versions, vec8, vec16,
    },
    hello::{self, ClientHello, HelloError, MAX_HELLO, NotTls, Peeked},
    invariants::into_records,
};

#[track_caller]
fn found(bytes: &[u8]) -> ClientHello {
    match hello::read(bytes) {
        Ok(Peeked::Found(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

fn name_error(name: &[u8]) -> Option<HelloError> {
    hello::read(&Hello::named(name).bytes()).err()
}

#[test]
fn names_that_pass() {
    let long = [
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(61),
    ]
    .join(".");
    assert_eq!(long.len(), 253);
    for (sent, name) in [
        ("sip.fabrikam.example", "sip.fabrikam.example"),
        ("SIP.Fabrikam.EXAMPLE", "sip.fabrikam.example"),
        ("sip.fabrikam.example.", "sip.fabrikam.example"),
        ("localhost", "localhost"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_sip._tls.fabrikam.example", "_sip._tls.fabrikam.example"),
        ("a_b.fabrikam.example", "a_b.fabrikam.example"),
        ("3com.example", "3com.example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("0x.fabrikam.example", "0x.fabrikam.example"),
        (&long, &long),
    ] {
        let hello = found(&Hello::named(sent.as_bytes()).bytes());
        assert_eq!(hello.server_name.as_deref(), Some(name));
    }
}

#[test]
fn names_that_do_not() {
    let label64 = format!("{}.example", "a".repeat(64));
    let long = format!("{}.example", ["a"; 130].join("."));
    for (sent, error) in [
        (&b""[..], HelloError::NameEmpty),
        (b"sip.fabrikam.example\0", HelloError::NameNul),
        (
            b"sip.fabrikam.example\0.contoso.example",
            HelloError::NameNul,
        ),
        (b"\0", HelloError::NameNul),
        (b".", HelloError::NameNotHost),
        (b"sip..example", HelloError::NameNotHost),
        (b".fabrikam.example", HelloError::NameNotHost),
        (b"sip.fabrikam.example..", HelloError::NameNotHost),
        (b"*.fabrikam.example", HelloError::NameNotHost),
        (b"sip fabrikam.example", HelloError::NameNotHost),
        (b"sip.fabrikam.example:5061", HelloError::NameNotHost),
        (b"sip/fabrikam.example", HelloError::NameNotHost),
        (b"-sip.fabrikam.example", HelloError::NameNotHost),
        (b"sip-.fabrikam.example", HelloError::NameNotHost),
        ("b\u{fc}cher.example".as_bytes(), HelloError::NameNotHost),
        (b"\xff\xfe.example", HelloError::NameNotHost),
        (b"[2001:db8::1]", HelloError::NameNotHost),
        (label64.as_bytes(), HelloError::NameNotHost),
        (b"192.0.2.1", HelloError::NameAddress),
        (b"192.0.2.1.", HelloError::NameAddress),
        (b"2001:db8::1", HelloError::NameAddress),
        (b"::ffff:192.0.2.1", HelloError::NameAddress),
        (b"127.1", HelloError::NameAddress),
        (b"2130706433", HelloError::NameAddress),
        (b"0x7f000001", HelloError::NameAddress),
        (b"sip.0X7f", HelloError::NameAddress),
        (long.as_bytes(), HelloError::NameTooLong(long.len())),
        (&[b'a'; 60_000], HelloError::NameTooLong(60_000)),
    ] {
        assert_eq!(name_error(sent), Some(error), "{}", sent.escape_ascii());
    }
}

/// The list of names is read by its letter or not at all.
#[test]
fn lists_of_names() {
    let name: &[u8] = b"sip.fabrikam.example";
    let overrun = HelloError::LengthsOverrun("server_name");
    let (_, mut with_junk) = server_name(name);
    with_junk.push(0);
    let entry = [&[0], &*vec16(name)].concat();
    let mut long_name = entry.clone();
    long_name[2] += 1;
    let mut short_name = entry.clone();
    short_name[2] -= 1;
    for (content, error) in [
        (vec![], HelloError::NameEmpty),
        (vec16(&[]), HelloError::NameEmpty),
        (
            server_names(&[(0, name), (0, name)]).1,
            HelloError::NameSeveral,
        ),
        (
            server_names(&[(0, name), (1, b"x")]).1,
            HelloError::NameSeveral,
        ),
        (
            server_names(&[(1, b"x"), (0, name)]).1,
            HelloError::NameType(1),
        ),
        (server_names(&[(255, name)]).1, HelloError::NameType(255)),
        (with_junk, overrun),
        (vec16(&long_name), overrun),
        (vec16(&short_name), HelloError::NameSeveral),
        (vec16(&[0]), overrun),
        (vec16(&[0, 0]), overrun),
        (vec![0], overrun),
        (vec![0xff, 0xff, 0, 0, 1, b'a'], overrun),
    ] {
        let bytes = Hello::new().with((0, content)).bytes();
        assert_eq!(hello::read(&bytes), Err(error), "{}", bytes.escape_ascii());
    }
}

#[test]
fn an_extension_comes_once() {
    let name = server_name(b"sip.fabrikam.example");
    for (twice, kind) in [
        (Hello::new().with(name.clone()).with(name.clone()), 0),
        (
            Hello::new()
                .with(name.clone())
                .with(server_name(b"sip.contoso.example")),
            0,
        ),
        (
            Hello::new()
                .with(name.clone())
                .with(signature_algorithms(&[0x0403])),
            13,
        ),
        (
            Hello::new()
                .with((0xabcd, vec![]))
                .with(name)
                .with((0xabcd, vec![1])),
            0xabcd,
        ),
    ] {
        assert_eq!(
            hello::read(&twice.bytes()),
            Err(HelloError::DuplicateExtension(kind))
        );
    }
}

#[test]
fn lengths_must_fit() {
    let whole = Hello::named(b"sip.fabrikam.example").message();
    let body = &whole[4..];
    // Cut anywhere, with the message's own length put right.
    for end in 0..body.len() {
        let cut = hello::read(&into_records(&message(&body[..end]), 1 << 14));
        // Exactly where the extensions begin, a ClientHello may end (RFC 8446 section 4.1.2).
        let without_extensions = end == 2 + 32 + 33 + 6 + 2;
        if without_extensions {
            assert!(
                matches!(cut, Ok(Peeked::Found(ref hello)) if hello.server_name.is_none()),
                "{cut:?}"
            );
        } else {
            assert!(
                matches!(cut, Err(HelloError::LengthsOverrun(_))),
                "{end}: {cut:?}"
            );
        }
    }
    let longer = message(&[body, &[0]].concat());
    assert!(matches!(
        hello::read(&into_records(&longer, 1 << 14)),
        Err(HelloError::LengthsOverrun(_))
    ));

    for (kind, content) in [
        (16, vec![0, 0, 0]),
        (16, vec16(&[3, b'h', b'2'])),
        (16, [alpn(&[b"h2"]).1, vec![0]].concat()),
        (43, vec8(&[3, 4, 3])),
        (43, vec![5, 3, 4]),
        (13, vec16(&[4, 3, 8])),
        (51, vec16(&[0, 29, 0, 32, 1])),
        (51, vec![]),
    ] {
        let mut hello = Hello::named(b"sip.fabrikam.example");
        hello.extensions.retain(|(other, _)| *other != kind);
        let read = hello::read(&hello.with((kind, content)).bytes());
        assert!(
            matches!(read, Err(HelloError::LengthsOverrun(_))),
            "{kind}: {read:?}"
        );
    }
}

#[test]
fn lists_that_must_not_be_empty() {
    let mut no_ciphers = Hello::new();
    no_ciphers.ciphers.clear();
    let mut no_compression = Hello::new();
    no_compression.compression.clear();
    let mut no_algorithms = Hello::new();
    no_algorithms.extensions = vec![signature_algorithms(&[])];
    for hello in [
        no_ciphers,
        no_compression,
        no_algorithms,
        Hello::new().with(alpn(&[])),
        Hello::new().with(alpn(&[b"h2", b""])),
        Hello::new().with(supported_versions(&[])),
    ] {
        let read = hello::read(&hello.bytes());
        assert!(matches!(read, Err(HelloError::ListEmpty(_))), "{read:?}");
    }
}

#[test]
fn versions() {
    let legacy = |version| {
        let mut hello = Hello::new();
        hello.legacy_version = version;
        found(&hello.bytes())
    };
    assert_eq!(legacy(0x0303).versions, [0x0303, 0x0302, 0x0301]);
    assert_eq!(legacy(0x0302).versions, [0x0302, 0x0301]);
    assert_eq!(legacy(0x0301).versions, [0x0301]);
    assert_eq!(legacy(0x0300).versions, [0x0300]);
    // RFC 8446 section 4.2.1: without the extension it is TLS 1.2, whatever the field says.
    assert_eq!(legacy(0x0304).versions, [0x0303, 0x0302, 0x0301]);

    let offered =
        |versions: &[u16]| found(&Hello::new().with(supported_versions(versions)).bytes());
    assert_eq!(
        offered(&[0xdada, 0x0303, 0x0304]).versions,
        [0x0303, 0x0304]
    );
    assert_eq!(offered(&[0xdada, 0x0303, 0x0304]).newest_version(), 0x0304);
    assert_eq!(offered(&[0x7f1c, 0x0303]).newest_version(), 0x0303);
    assert_eq!(offered(&[0x7f1c]).newest_version(), 0x7f1c);
    assert_eq!(offered(&[0xdada]).newest_version(), 0);
}

#[test]
fn post_quantum_and_ech() {
    let shares =
        |groups: &[(u16, usize)]| found(&Hello::new().with(key_share(groups)).bytes()).post_quantum;
    assert!(!shares(&[]));
    assert!(!shares(&[(29, 32), (0x0a0a, 1), (23, 65)]));
    for group in [0x11eb, 0x11ec, 0x11ed, 0x6399] {
        assert!(
            shares(&[(0x0a0a, 1), (group, 1216), (29, 32)]),
            "{group:#06x}"
        );
    }
    assert!(!found(&Hello::new().bytes()).ech);
    assert!(found(&Hello::new().with((0xfe0d, vec![1])).bytes()).ech);
}

#[test]
fn records() {
    let message = Hello::named(b"sip.fabrikam.example").message();
    let half = message.len() / 2;
    let (first, second) = message.split_at(half);
    let first = into_records(first, 1 << 14);
    let second = into_records(second, 1 << 14);
    assert!(found(&[&*first, &second].concat()).server_name.is_some());

    let between = |between: &[u8]| hello::read(&[&*first, between, &second].concat());
    assert_eq!(
        between(b"\x14\x03\x03\x00\x01\x01"),
        Err(HelloError::RecordInterleaved)
    );
    assert_eq!(
        between(b"\x15\x03\x03\x00\x02\x01\x00"),
        Err(HelloError::RecordInterleaved)
    );
    assert_eq!(
        between(b"\x16\x04\x00\x00\x01\x00"),
        Err(HelloError::RecordInterleaved)
    );
    assert_eq!(
        between(b"\x16\x03\x03\x00\x00"),
        Err(HelloError::RecordEmpty)
    );
    assert_eq!(
        between(b"\x16\x03\x03\x40\x01"),
        Err(HelloError::RecordTooLong(16385))
    );
    // The error does not wait for more.
    assert_eq!(
        hello::read(&[&*first, b"\x14"].concat()),
        Err(HelloError::RecordInterleaved)
    );

    assert_eq!(
        hello::read(b"\x16\x03\x01\x00\x00"),
        Err(HelloError::RecordEmpty)
    );
    assert_eq!(
        hello::read(b"\x16\x03\x01\x40\x01"),
        Err(HelloError::RecordTooLong(16385))
    );

    let two = [&*message, &[1, 0, 0, 0]].concat();
    assert_eq!(
        hello::read(&into_records(&two, 1 << 14)),
        Err(HelloError::RecordTrailing)
    );
    assert_eq!(
        hello::read(&into_records(&two, 1 << 14)[..9]),
        Err(HelloError::RecordTrailing)
    );

    for version in 0..=255 {
        let mut bytes = into_records(&message, 1 << 14);
        bytes[2] = version;
        assert!(found(&bytes).server_name.is_some(), "version 3.{version}");
    }
}

#[test]
fn the_bound() {
    // One that ends with the last byte that is looked at, and one that ends behind it.
    let fits = |len: usize| {
        let hello = Hello::named(b"sip.fabrikam.example").padded(len);
        let bytes = hello.bytes();
        (bytes.len(), hello::read(&bytes))
    };
    let headers = 4 * 5;
    let largest = MAX_HELLO - headers;
    let (len, read) = fits(largest);
    assert_eq!(len, MAX_HELLO);
    assert!(matches!(read, Ok(Peeked::Found(_))), "{read:?}");
    assert_eq!(fits(largest + 1).1, Err(HelloError::TooLarge));

    // A length that can't fit is known with the message's header,
    assert_eq!(
        hello::read(b"\x16\x03\x01\x40\x00\x01\x01\x00\x00"),
        Err(HelloError::TooLarge)
    );
    // and one that can't because of its small records when that is certain.
    let message = Hello::named(b"sip.fabrikam.example")
        .padded(40_000)
        .message();
    let bytes = into_records(&message, 1);
    let known = (0..bytes.len())
        .step_by(101)
        .find(|end| hello::read(&bytes[..*end]).is_err());
    assert!(known.is_some_and(|end| end <= MAX_HELLO), "{known:?}");
    assert_eq!(hello::read(&bytes[..MAX_HELLO]), Err(HelloError::TooLarge));
    assert_eq!(hello::read(&bytes), Err(HelloError::TooLarge));
}

#[test]
fn what_is_not_tls_is_known_at_once() {
    for (bytes, what) in [
        (&b"G"[..], NotTls::Http),
        (
            b"GET / HTTP/1.1\r\nHost: sip.fabrikam.example\r\n\r\n",
            NotTls::Http,
        ),
        (b"OPTIONS sip:sip.fabrikam.example SIP/2.0\r\n", NotTls::Sip),
        (
            b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
            NotTls::Ssl2,
        ),
        (b"\x00", NotTls::Other),
        (b"\x16\x02", NotTls::Other),
        (b"\x15\x03\x01", NotTls::NoHello),
        // A ServerHello, and a HelloRequest.
        (b"\x16\x03\x03\x00\x50\x02", NotTls::NoHello),
        (b"\x16\x03\x03\x00\x04\x00", NotTls::NoHello),
    ] {
        assert_eq!(
            hello::read(bytes),
            Ok(Peeked::NotTls(what)),
            "{}",
            bytes.escape_ascii()
        );
    }
    assert_eq!(hello::read(b""), Ok(Peeked::Incomplete { needed: 1 }));
    assert_eq!(hello::read(b"\x16"), Ok(Peeked::Incomplete { needed: 2 }));
}

#[test]
fn sentences_for_people() {
    assert_eq!(
        HelloError::DuplicateExtension(0).to_string(),
        "the extension 0x0000 comes twice"
    );
    assert_eq!(
        HelloError::TooLarge.to_string(),
        "the ClientHello does not end within 65536 bytes"
    );
    assert_eq!(HelloError::NameTooLong(300).name(), "name-too-long");
}

#[test]
fn many_extensions() {
    let mut hello = Hello::named(b"sip.fabrikam.example");
    hello
        .extensions
        .extend((0x1000..0x4c00).rev().map(|kind| (kind, vec![])));
    assert!(found(&hello.bytes()).server_name.is_some());
}
