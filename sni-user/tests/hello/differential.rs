//! rustls's reading of the same bytes. It may take what is refused here, never the other way round, and it never reads another name.

use rand::{
    RngExt as _, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedMutRandom as _, IndexedRandom as _},
};
use rustls::server::Acceptor;

use crate::{
    builder::{
        Hello, alpn, key_share, message, server_name, server_names, signature_algorithms,
        supported_versions,
    },
    hello::{self, HelloError, Peeked},
    invariants::{into_records, message_of},
};

const CASES: usize = 8_000;
const SEED: u64 = 5061;

/// The two readers' answers to one stream, where they may differ.
#[derive(Debug, Default)]
struct Counts {
    /// Both read the same names and protocols.
    agree: usize,
    /// Of these, with a server name.
    named: usize,
    /// Both refuse.
    refused: usize,
    /// Both wait for more.
    incomplete: usize,
    /// Refused here, taken by rustls.
    stricter: usize,
    /// Refused here, while rustls still waits for more.
    earlier: usize,
    /// Taken here; rustls does not like what a gateway does not read.
    elsewhere: usize,
}

#[test]
fn never_looser_than_rustls() {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut counts = Counts::default();
    for case in 0..CASES {
        let bytes = stream(&mut random);
        compare(&bytes, &mut counts)
            .unwrap_or_else(|differ| panic!("case {case}: {differ}\n{}", bytes.escape_ascii()));
    }
    println!("{counts:?}");
    // The comparison is worth something only while each kind of answer comes up often.
    let Counts {
        agree,
        named,
        refused,
        incomplete,
        ..
    } = counts;
    assert!(agree > CASES / 4 && named > CASES / 5, "{counts:?}");
    assert!(
        refused > CASES / 10 && incomplete > CASES / 50,
        "{counts:?}"
    );
    assert!(
        counts.stricter < CASES / 10 && counts.elsewhere < CASES / 10,
        "{counts:?}"
    );
}

fn compare(bytes: &[u8], counts: &mut Counts) -> Result<(), String> {
    let ours = hello::read(bytes);
    let theirs = rustls_reads(bytes);
    let count = match (&ours, &theirs) {
        (Ok(Peeked::Found(ours)), Theirs::Found(theirs)) => {
            let ours = (ours.server_name.clone(), ours.alpn.clone());
            if ours != *theirs {
                return Err(format!("{ours:?} here, {theirs:?} there"));
            }
            counts.named += usize::from(ours.0.is_some());
            &mut counts.agree
        }
        (Ok(Peeked::Found(found)), Theirs::Refused(why)) => {
            let theirs = rustls_reads(&without_what_is_not_read(bytes));
            let ours = (found.server_name.clone(), found.alpn.clone());
            if theirs != Theirs::Found(ours) {
                return Err(format!(
                    "{found:?} here, but {why}; and {theirs:?} of what is read"
                ));
            }
            &mut counts.elsewhere
        }
        (Err(_) | Ok(Peeked::NotTls(_)), Theirs::Refused(_)) => &mut counts.refused,
        (Err(_) | Ok(Peeked::NotTls(_)), Theirs::Incomplete) => &mut counts.earlier,
        (Err(why), Theirs::Found((name, _))) if may_be_stricter(*why, name.as_deref()) => {
            &mut counts.stricter
        }
        (Ok(Peeked::Incomplete { .. }), Theirs::Incomplete | Theirs::Refused(_)) => {
            &mut counts.incomplete
        }
        _ => return Err(format!("{ours:?} here, {theirs:?} there")),
    };
    *count += 1;
    Ok(())
}

/// Whether this is one of the things that rustls takes on purpose; `name` is what it makes of it.
fn may_be_stricter(why: HelloError, name: Option<&str>) -> bool {
    match why {
        // It goes on as if the client had named nobody.
        HelloError::NameAddress | HelloError::NameType(_) => name.is_none(),
        // It ignores the list from the first entry of an unknown type on.
        HelloError::NameSeveral => name.is_some(),
        // A dash must not end a label there, but may begin one.
        HelloError::NameNotHost => {
            name.is_some_and(|name| name.split('.').any(|label| label.starts_with('-')))
        }
        _ => false,
    }
}

#[derive(Debug, PartialEq)]
enum Theirs {
    Found((Option<String>, Vec<Vec<u8>>)),
    Incomplete,
    Refused(String),
}

fn rustls_reads(mut bytes: &[u8]) -> Theirs {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        // An error here is one of a full buffer: accept() then says what is wrong.
        let read = acceptor.read_tls(&mut bytes).unwrap_or_default();
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                // A trailing dot is not part of a name (RFC 6066 section 3); rustls leaves it to its caller.
                let name = hello
                    .server_name()
                    .map(|name| name.strip_suffix('.').unwrap_or(name));
                let protocols = hello
                    .alpn()
                    .map(|names| names.map(<[u8]>::to_vec).collect());
                return Theirs::Found((name.map(Into::into), protocols.unwrap_or_default()));
            }
            Ok(None) if read == 0 => return Theirs::Refused("rustls takes no more".into()),
            Ok(None) => {}
            Err((error, _)) => return Theirs::Refused(error.to_string()),
        }
    }
    Theirs::Incomplete
}

/// The same hello without the extensions that say nothing to a gateway, and with what rustls insists on for its own handshake.
fn without_what_is_not_read(bytes: &[u8]) -> Vec<u8> {
    let message = message_of(bytes);
    let (_, hello) = tls_parser::parse_tls_handshake_client_hello(&message[4..]).unwrap();
    let mut rest = hello.ext.unwrap_or_default();
    let mut extensions = Vec::new();
    while let [a, b, c, d, behind @ ..] = rest {
        let (content, behind) = behind.split_at(usize::from(u16::from_be_bytes([*c, *d])));
        extensions.push((u16::from_be_bytes([*a, *b]), content.to_vec()));
        rest = behind;
    }
    extensions.retain(|(kind, _)| [0, 13, 16, 43, 51].contains(kind));
    if !extensions.iter().any(|(kind, _)| *kind == 13) {
        extensions.push(signature_algorithms(&[0x0403]));
    }
    let hello = Hello {
        legacy_version: hello.version.0,
        session_id: hello.session_id.unwrap_or_default().to_vec(),
        ciphers: hello.ciphers.iter().map(|cipher| cipher.0).collect(),
        compression: vec![0],
        extensions,
    };
    hello.bytes()
}

/// A client's first bytes, mostly right.
pub(crate) fn stream(random: &mut StdRng) -> Vec<u8> {
    let mut message = match random.random_range(0..4) {
        0 => message_of(captured(random)),
        _ => hello(random).message(),
    };
    if random.random_bool(0.3) {
        message = changed(random, message);
    }
    let size = *[
        1,
        2,
        16,
        100,
        1 << 14,
        1 << 14,
        1 << 14,
        1 << 14,
        1 << 14,
        1 << 14,
    ]
    .choose(random)
    .unwrap();
    let mut bytes = into_records(&message, size);
    match random.random_range(0..20) {
        0 | 1 => bytes.truncate(random.random_range(0..bytes.len())),
        2 => {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        3 => bytes.extend_from_slice(b"\x14\x03\x03\x00\x01\x01\x17\x03\x03\x00\x02hi"),
        _ => {}
    }
    bytes
}

fn captured(random: &mut StdRng) -> &'static [u8] {
    let all: [&[u8]; 4] = [
        include_bytes!("../hellos/chromium.bin"),
        include_bytes!("../hellos/curl.bin"),
        include_bytes!("../hellos/gnutls-default.bin"),
        include_bytes!("../hellos/openssl-tls12.bin"),
    ];
    all.choose(random).copied().unwrap()
}

fn hello(random: &mut StdRng) -> Hello {
    let mut hello = Hello::new();
    if random.random_bool(0.9) {
        hello = hello.with(server_name(&name(random)));
    } else if random.random_bool(0.3) {
        let kinds: [u8; 2] = [random.random_range(0..3), random.random_range(0..2)];
        let names = [name(random), name(random)];
        hello = hello.with(server_names(&[
            (kinds[0], &names[0]),
            (kinds[1], &names[1]),
        ]));
    }
    if random.random_bool(0.5) {
        let all: [&[u8]; 4] = [b"h2", b"http/1.1", b"sip", b"x"];
        let some = random.random_range(1..4);
        hello = hello.with(alpn(&all[..some]));
    }
    if random.random_bool(0.5) {
        hello = hello.with(supported_versions(&[0x3a3a, 0x0304, 0x0303]));
        hello = hello.with(key_share(&[(0x1a1a, 1), (0x11ec, 1216), (29, 32)]));
    }
    // Of types that rustls does not know, and sometimes one whose content it will not like.
    for kind in [0x1a1a, 0xabcd, 0x0012, 0xabce] {
        if random.random_bool(0.2) {
            hello = hello.with((kind, vec![0; random.random_range(0..5)]));
        }
    }
    if random.random_bool(0.1) {
        let kind = *[5, 10, 11, 23, 45, 0xfe0d, 0xabcd].choose(random).unwrap();
        hello = hello.with((
            kind,
            vec![random.random_range(0..3); random.random_range(0..5)],
        ));
    }
    if random.random_bool(0.1) {
        // Something behind what the content's own lengths cover, or a bit of it missing.
        let (_, content) = hello.extensions.choose_mut(random).unwrap();
        if random.random() {
            content.push(0);
        } else {
            content.pop();
        }
    }
    if random.random_bool(0.5) {
        let at = random.random_range(0..hello.extensions.len());
        let extension = hello.extensions.remove(at);
        hello.extensions.insert(0, extension);
    }
    hello
}

/// A host name, often; else one that is nearly one.
fn name(random: &mut StdRng) -> Vec<u8> {
    let mut name = Vec::new();
    let labels = if random.random_bool(0.03) {
        35
    } else {
        random.random_range(1..5)
    };
    for _ in 0..labels {
        let len = if random.random_bool(0.02) {
            70
        } else {
            random.random_range(1..12)
        };
        for at in 0..len {
            let dash = random.random_bool(if at == 0 || at + 1 == len {
                0.005
            } else {
                0.05
            });
            let other = *b"abcxyzABCXYZ0123456789_".choose(random).unwrap();
            name.push(if dash { b'-' } else { other });
        }
        name.push(b'.');
    }
    name.extend_from_slice(
        [
            &b"example"[..],
            b"Example",
            b"example.",
            b"0x1f",
            b"1",
            b"example\0",
        ]
        .choose_weighted(random, |end| {
            if end.len() >= 7 && !end.contains(&0) {
                10
            } else {
                1
            }
        })
        .unwrap(),
    );
    if random.random_bool(0.05) {
        let at = random.random_range(0..name.len());
        name[at] = random.random();
    }
    if random.random_bool(0.02) {
        return [
            &b"192.0.2.1"[..],
            b"2001:db8::1",
            b"",
            b".",
            b"*.fabrikam.example",
        ]
        .choose(random)
        .unwrap()
        .to_vec();
    }
    name
}

/// The message with a fault or two, most of them in lengths; the message's own length is right again in most.
fn changed(random: &mut StdRng, mut message: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.random_range(1..3) {
        let at = random.random_range(4..message.len());
        match random.random_range(0..6) {
            0 => message[at] = random.random(),
            1 => message[at] = message[at].wrapping_add(1),
            2 => message[at] = message[at].wrapping_sub(1),
            3 => message.insert(at, random.random()),
            4 => drop(message.remove(at)),
            _ => message.truncate(at.max(5)),
        }
    }
    if random.random_bool(0.9) {
        self::message(&message[4..])
    } else {
        message
    }
}
