//! What holds for the reader's answers to any bytes whatsoever. The fuzz target runs this very file.

use crate::hello::{self, ClientHello, HelloError, MAX_HELLO, Peeked};

/// Panics if the reader's answers to `bytes`, to its beginnings, and to the same message in other records are not consistent.
pub(crate) fn check(bytes: &[u8]) {
    let whole = hello::read(bytes);
    for end in cuts(bytes.len()) {
        check_prefix(bytes, end, &whole);
    }
    if let Ok(Peeked::Found(found)) = &whole {
        check_found(found);
        check_records(bytes, &whole);
    }
}

/// Puts a handshake message into records of `size` bytes each, as a client's first flight.
pub(crate) fn into_records(message: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fragment in message.chunks(size) {
        bytes.extend_from_slice(&[22, 3, 1]);
        bytes.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
        bytes.extend_from_slice(fragment);
    }
    bytes
}

/// The handshake message at the beginning of a stream that the reader understood.
pub(crate) fn message_of(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while message.len() < 4 || message.len() < message_len(&message) {
        let len = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        message.extend_from_slice(&bytes[5..5 + len]);
        bytes = &bytes[5 + len..];
    }
    message
}

fn message_len(message: &[u8]) -> usize {
    4 + u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize
}

/// Where to cut: everywhere near the beginning, and here and there behind it.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    let step = (len / 50).max(1);
    (0..len.min(20)).chain((20..len).step_by(step))
}

/// What a beginning decides, the whole does not change; and nothing is decided before the bytes that were asked for are there.
fn check_prefix(bytes: &[u8], end: usize, whole: &Result<Peeked, HelloError>) {
    match hello::read(&bytes[..end]) {
        Ok(Peeked::Incomplete { needed }) => {
            assert!(
                end < needed && needed <= MAX_HELLO,
                "{needed} needed of {end}"
            );
            let before = &bytes[..bytes.len().min(needed - 1)];
            let still = hello::read(before);
            assert!(
                matches!(still, Ok(Peeked::Incomplete { .. })),
                "{needed} needed of {end}, but {} decide: {still:?}",
                before.len()
            );
        }
        // What it looks like may become clearer.
        Ok(Peeked::NotTls(_)) => assert!(matches!(whole, Ok(Peeked::NotTls(_))), "{whole:?}"),
        decided => assert_eq!(decided, *whole, "after {end} of {} bytes", bytes.len()),
    }
}

fn check_found(found: &ClientHello) {
    if let Some(name) = &found.server_name {
        assert!((1..=253).contains(&name.len()), "{name}");
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| allowed(byte) || b"-_".contains(&byte))
        };
        assert!(name.split('.').all(is_label), "{name}");
        assert!(name.parse::<std::net::IpAddr>().is_err(), "{name}");
    }
    let is_grease = |version: &u16| version & 0x0f0f == 0x0a0a && version >> 8 == version & 0xff;
    assert!(!found.versions.iter().any(is_grease));
    assert!(found.versions.is_empty() || found.versions.contains(&found.newest_version()));
    assert!(found.alpn.iter().all(|protocol| !protocol.is_empty()));
    let ja4 = found.ja4.to_string();
    assert_eq!(
        ja4.split('_').map(str::len).collect::<Vec<_>>(),
        [10, 12, 12],
        "{ja4}"
    );
}

/// Neither how the message is cut into records nor what follows it matters.
fn check_records(bytes: &[u8], whole: &Result<Peeked, HelloError>) {
    let message = message_of(bytes);
    for size in [1, 2, 16, 1000, 16384] {
        let mut again = into_records(&message, size);
        if again.len() > MAX_HELLO {
            assert_eq!(hello::read(&again), Err(HelloError::TooLarge));
            continue;
        }
        assert_eq!(hello::read(&again), *whole, "records of {size} bytes");
        // A change of cipher spec, as TLS 1.3's clients send it before early data.
        again.extend_from_slice(&[20, 3, 3, 0, 1, 1]);
        assert_eq!(hello::read(&again), *whole, "something behind it");
    }
}
