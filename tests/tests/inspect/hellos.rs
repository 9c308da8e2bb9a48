//! ClientHellos of real clients, as they are and changed.

use std::path::PathBuf;

use anyhow::Result;
use snigate_tests::peers::{captured_hello, captured_hellos, in_records};

const RECORD_HEADER: usize = 5;
const SERVER_NAME: u16 = 0;
const PADDING: u16 = 21;
/// The greatest record (RFC 8446 section 5.1).
const RECORD: usize = 1 << 14;

/// All captured ones by name.
pub(crate) fn all_captured() -> Result<Vec<(String, Vec<u8>)>> {
    let hellos = captured_hellos()?;
    let named = |(path, bytes): (PathBuf, Vec<u8>)| {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into());
        (name.unwrap_or_default(), bytes)
    };
    Ok(hellos.into_iter().map(named).collect())
}

/// OpenSSL's, asking for `name`.
pub(crate) fn asking_for(name: &str) -> Result<Vec<u8>> {
    let name = vector([&[0], vector(name.bytes()).as_slice()].concat());
    with_server_name(&name)
}

/// OpenSSL's, with this content of its `server_name` extension (RFC 6066 section 3).
pub(crate) fn with_server_name(content: &[u8]) -> Result<Vec<u8>> {
    changed(SERVER_NAME, content)
}

/// OpenSSL's, with an extension that pads it by so many bytes, in records of the greatest size.
pub(crate) fn padded(bytes: usize) -> Result<Vec<u8>> {
    changed(PADDING, &vec![0; bytes])
}

/// OpenSSL's, with an extension in place of its own one of that type, or added.
fn changed(extension: u16, content: &[u8]) -> Result<Vec<u8>> {
    let hello = captured_hello("openssl-tls13")?;
    let message = &hello[RECORD_HEADER..];
    // Message header, version, random; then session id, cipher suites and compression methods (RFC 8446 section 4.1.2).
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(message[at]);
    at += 2 + length(&message[at..]);
    at += 1 + usize::from(message[at]);
    let (head, mut rest) = (&message[4..at], &message[at + 2..]);
    let mut extensions = Vec::new();
    while !rest.is_empty() {
        let (one, others) = rest.split_at(4 + length(&rest[2..]));
        if one[..2] != extension.to_be_bytes() {
            extensions.extend_from_slice(one);
        }
        rest = others;
    }
    extensions.extend(extension.to_be_bytes());
    extensions.extend(vector(content.iter().copied()));
    let body = [head, &vector(extensions)].concat();

    let body_length = u32::try_from(body.len())?.to_be_bytes();
    let message = [&[1], &body_length[1..], &body].concat();
    let mut records = Vec::new();
    for piece in message.chunks(RECORD) {
        records.extend([22, 3, 1]);
        records.extend(vector(piece.iter().copied()));
    }
    // It is read as records again.
    in_records(&records, RECORD)
}

fn length(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Bytes behind their length in two bytes.
pub(crate) fn vector(bytes: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let bytes: Vec<u8> = bytes.into_iter().collect();
    let length = u16::try_from(bytes.len()).expect("less than 64 KiB");
    [length.to_be_bytes().as_slice(), &bytes].concat()
}
