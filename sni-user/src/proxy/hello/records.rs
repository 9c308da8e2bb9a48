//! From TLS records to the first handshake message (RFC 8446 section 5.1).

use std::borrow::Cow;

use tls_parser::{TlsHandshakeType, TlsRecordHeader, TlsRecordType, parse_tls_record_header};

use super::{HelloError, MAX_HELLO, NotTls};

/// What the stream begins with.
pub(super) enum Handshake<'a> {
    /// A ClientHello's body, behind the message's header; borrowed if it came in one record.
    ClientHello(Cow<'a, [u8]>),
    NotTls(NotTls),
    Incomplete {
        needed: usize,
    },
}

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const MAX_RECORD: u16 = 1 << 14;

/// Finds the ClientHello at the beginning of a stream.
pub(super) fn handshake(bytes: &[u8]) -> Result<Handshake<'_>, HelloError> {
    // With the window, an answer never depends on how much more the caller happens to have.
    let found = walk(&bytes[..bytes.len().min(MAX_HELLO)])?;
    match found {
        Handshake::Incomplete { needed } if needed > MAX_HELLO => Err(HelloError::TooLarge),
        found => Ok(found),
    }
}

/// The handshake message so far, over all records.
#[derive(Default)]
struct Message {
    header: [u8; MESSAGE_HEADER],
    /// Bytes in the records before the current one, the header's included.
    received: usize,
}

impl Message {
    /// Takes what of the header is in the message's next bytes.
    fn take_header(&mut self, fragment: &[u8]) {
        let missing = self.header.iter_mut().skip(self.received);
        for (to, from) in missing.zip(fragment) {
            *to = *from;
        }
    }

    /// The whole message's length, once the header's `have` bytes are all there.
    fn len(&self, have: usize) -> Option<usize> {
        let [_, a, b, c] = self.header;
        (have >= MESSAGE_HEADER).then(|| MESSAGE_HEADER + u32::from_be_bytes([0, a, b, c]) as usize)
    }
}

/// One pass over the records' headers; nothing is copied before the message is complete.
fn walk(bytes: &[u8]) -> Result<Handshake<'_>, HelloError> {
    let mut message = Message::default();
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        if !may_be_handshake_record(rest) {
            return if at == 0 {
                Ok(Handshake::NotTls(NotTls::guess(bytes)))
            } else {
                Err(HelloError::RecordInterleaved)
            };
        }
        let Ok((fragment, header)) = parse_tls_record_header(rest) else {
            // The first two bytes each decide something, and after them the length.
            let enough = if rest.len() < 2 {
                rest.len() + 1
            } else {
                RECORD_HEADER
            };
            return Ok(Handshake::Incomplete {
                needed: at + enough,
            });
        };
        let len = fragment_len(header)?;
        let fragment = &fragment[..fragment.len().min(len)];
        message.take_header(fragment);
        let have = message.received + fragment.len();
        if have > 0 && message.header[0] != u8::from(TlsHandshakeType::ClientHello) {
            return Ok(Handshake::NotTls(NotTls::NoHello));
        }

        let start = at + RECORD_HEADER;
        let end = start + len;
        let Some(message_len) = message.len(have) else {
            if fragment.len() < len {
                let wanted = if have == 0 { 1 } else { MESSAGE_HEADER };
                let needed = end.min(start + wanted - message.received);
                return Ok(Handshake::Incomplete { needed });
            }
            message.received = have;
            at = end;
            continue;
        };
        // In the best case the rest comes in this one record.
        let missing = message_len - message.received;
        if start + missing > MAX_HELLO {
            return Err(HelloError::TooLarge);
        }
        if missing < len {
            return Err(HelloError::RecordTrailing);
        }
        if fragment.len() < len {
            return Ok(Handshake::Incomplete { needed: end });
        }
        if missing == len {
            let body = if at == 0 {
                Cow::Borrowed(&fragment[MESSAGE_HEADER..])
            } else {
                Cow::Owned(gather(&bytes[..end], message_len))
            };
            return Ok(Handshake::ClientHello(body));
        }
        message.received = have;
        at = end;
    }
}

/// Whether what there is of a record's header can be that of a handshake record of any version 3.x (RFC 8446 section 5.1: the
/// version is to be ignored; rustls and OpenSSL insist on the 3).
fn may_be_handshake_record(rest: &[u8]) -> bool {
    rest.iter()
        .zip([u8::from(TlsRecordType::Handshake), 3])
        .all(|(byte, wanted)| *byte == wanted)
}

fn fragment_len(header: TlsRecordHeader) -> Result<usize, HelloError> {
    match header.len {
        0 => Err(HelloError::RecordEmpty),
        1..=MAX_RECORD => Ok(usize::from(header.len)),
        longer => Err(HelloError::RecordTooLong(longer)),
    }
}

/// The body of a message of `message_len` bytes from `records`, which hold exactly that message and have been walked through.
fn gather(mut records: &[u8], message_len: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(message_len);
    while let Ok((rest, header)) = parse_tls_record_header(records) {
        let (fragment, behind) = rest.split_at(usize::from(header.len).min(rest.len()));
        message.extend_from_slice(fragment);
        records = behind;
    }
    message.drain(..MESSAGE_HEADER);
    message
}
