//! The datapath's walk over the same bytes. It may leave to the agent what the agent would take, and the reasons are counted here; it never
//! finds what the agent would refuse, and never another name. The fuzz target `walk` runs this very file.

use sni_common::{
    contract::HELLO_ROOM,
    hello::{Answer, STEPS, walk},
};

use crate::hello::{ClientHello, HelloError, Peeked};

/// Most extensions that the walk tells apart.
const MAX_EXTENSIONS: usize = 32;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// A first segment with less is the agent's.
const HEADERS: usize = RECORD_HEADER + MESSAGE_HEADER;

/// Panics if the walk over `bytes` and the agent's reading of them don't fit.
pub(crate) fn check(bytes: &[u8], read: &Result<Peeked, HelloError>) {
    let walk = walk(bytes);
    match (walk.answer(), read) {
        (Answer::Found, Ok(Peeked::Found(hello))) => {
            assert_eq!(hello.server_name.as_deref(), Some(walk.key.name.as_str()));
            assert_eq!(why_left(bytes, hello), None);
            let end = walk.hello_length() as usize;
            assert!(end == RECORD_HEADER + number16(&bytes[3..]) && end <= bytes.len());
        }
        (Answer::Incomplete { needed, .. }, Ok(Peeked::Incomplete { needed: wanted })) => {
            assert_eq!(needed as usize, *wanted);
        }
        (Answer::Left, Ok(Peeked::Found(hello))) => {
            assert!(why_left(bytes, hello).is_some(), "{hello:?}");
        }
        (Answer::Left, _) => {}
        (answer, _) => panic!("{answer:?} there, {read:?} here"),
    }
}

/// Likewise for its beginnings: of a hello that comes in two segments, the datapath sees one first, cut wherever the client has cut it.
///
/// At `most` places; which these are is left to the bytes.
pub(crate) fn check_beginnings(
    bytes: &[u8],
    most: usize,
    read: impl Fn(&[u8]) -> Result<Peeked, HelloError>,
) {
    let step = bytes.len().div_ceil(most).max(1);
    let first = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % step;
    let whole = walk(bytes);
    for end in (first..bytes.len()).step_by(step) {
        let beginning = &bytes[..end];
        check(beginning, &read(beginning));
        let part = walk(beginning);
        match (part.answer(), whole.answer()) {
            (Answer::Found, answer) => {
                assert_eq!(answer, Answer::Found, "found after {end} bytes only");
                assert_eq!(part.key.name.as_str(), whole.key.name.as_str());
                assert_eq!(part.hello_length(), whole.hello_length());
            }
            (Answer::Incomplete { needed, named }, Answer::Found) => {
                assert_eq!(needed, whole.hello_length(), "after {end} bytes");
                // The hello is kept by its name; it must not become another's.
                assert!(!named || part.key.name.as_str() == whole.key.name.as_str());
            }
            (Answer::Left, Answer::Found) => {
                assert!(end < HEADERS, "left to the agent after {end} bytes");
            }
            _ => {}
        }
    }
}

/// A hello with these extensions, in one record and with outer lengths that fit; at most 60,000 bytes.
pub(crate) fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let vec16 = |content: &[u8]| [&(content.len() as u16).to_be_bytes(), content].concat();
    // No session id, one cipher suite, no compression.
    let lists = [0, 0, 2, 0x13, 1, 1, 0];
    let body = [&[3, 3], &[0x5a; 32][..], &lists, &vec16(extensions)].concat();
    // The length has three bytes.
    let message = [&[1, 0], &*vec16(&body)].concat();
    [&[22, 3, 1], &*vec16(&message)].concat()
}

/// Why the walk must leave a hello to the agent that the agent takes; the only reasons there are.
pub(crate) fn why_left(bytes: &[u8], hello: &ClientHello) -> Option<&'static str> {
    let Some(name) = &hello.server_name else {
        return Some("no name");
    };
    // One record has the message's header and all of it.
    let record = number16(&bytes[3..]);
    let end = RECORD_HEADER + record;
    if record < MESSAGE_HEADER || MESSAGE_HEADER + number24(&bytes[6..]) != record {
        return Some("several records");
    }
    if end > HELLO_ROOM {
        return Some("long");
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if !last.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Some("last label");
    }
    let (extensions, shares) = count(&bytes[RECORD_HEADER + MESSAGE_HEADER..end]);
    if extensions > MAX_EXTENSIONS {
        return Some("many extensions");
    }
    let parts = extensions + shares + hello.alpn.len() + name.len().div_ceil(8);
    // Four before the extensions, and the end.
    (4 + parts + 1 > STEPS as usize).then_some("many steps")
}

fn number24(bytes: &[u8]) -> usize {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize
}

fn number16(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// The extensions and the key shares of a body that the agent has taken.
fn count(body: &[u8]) -> (usize, usize) {
    let rest = &body[34..];
    let rest = &rest[1 + usize::from(rest[0])..];
    let rest = &rest[2 + number16(rest)..];
    let mut rest = &rest[1 + usize::from(rest[0]) + 2..];
    let (mut extensions, mut shares) = (0, 0);
    while !rest.is_empty() {
        let (content, behind) = rest[4..].split_at(number16(&rest[2..]));
        if number16(rest) == 51 {
            let mut list = &content[2..];
            while !list.is_empty() {
                list = &list[4 + number16(&list[2..])..];
                shares += 1;
            }
        }
        extensions += 1;
        rest = behind;
    }
    (extensions, shares)
}
