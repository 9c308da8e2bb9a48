//! What rustls does not speak: TLS 1.0 and 1.1, and 1.2 with the key exchanges and ciphers of their time. A ClientHello by hand, and what
//! comes back in plain: up to TLS 1.2 that includes the certificates.

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What servers of that time know: ECDHE and RSA key exchange with AES or 3DES in CBC mode.
const CIPHERS: [u16; 9] = [
    0xc009, 0xc00a, 0xc013, 0xc014, 0xc027, 0x003c, 0x002f, 0x0035, 0x000a,
];
/// P-256, P-384, P-521.
const GROUPS: [u16; 3] = [23, 24, 25];
/// RSA and ECDSA with SHA-256, SHA-384, SHA-512 and SHA-1.
const SIGNATURES: [u16; 8] = [
    0x0401, 0x0501, 0x0601, 0x0403, 0x0503, 0x0603, 0x0201, 0x0203,
];

const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;

/// What a handshake up to the certificates may take; the longest of real chains are a fifth of it.
const MOST: usize = 64 * 1024;

/// The newest version that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newest {
    V11,
    V12,
}

/// What a server says to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The version that it agrees to.
    pub(super) version: &'static str,
    /// As they are sent.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// The server's answer; none where it refuses.
pub(super) async fn ask(mut tcp: TcpStream, name: &str, newest: Newest) -> Option<Answer> {
    tcp.write_all(&client_hello(name, newest)).await.ok()?;
    let mut messages = Vec::new();
    loop {
        let mut header = [0; 5];
        tcp.read_exact(&mut header).await.ok()?;
        let [kind, _, _, high, low] = header;
        let mut content = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        tcp.read_exact(&mut content).await.ok()?;
        if kind != HANDSHAKE || messages.len() + content.len() > MOST {
            return None;
        }
        messages.extend(content);
        if let Some(answer) = read(&messages) {
            return answer;
        }
    }
}

/// The answer; `None` where more must come, and `Some(None)` where there will be none.
fn read(messages: &[u8]) -> Option<Option<Answer>> {
    let (kind, hello, rest) = message(messages)?;
    let version = match (kind, hello) {
        (SERVER_HELLO, [3, 3, ..]) => "1.2",
        (SERVER_HELLO, [3, 2, ..]) => "1.1",
        (SERVER_HELLO, [3, 1, ..]) => "1.0",
        _ => return Some(None),
    };
    let (kind, list, _) = message(rest)?;
    let chain = match kind {
        CERTIFICATE => certificates(list).unwrap_or_default(),
        _ => Vec::new(),
    };
    Some(Some(Answer { version, chain }))
}

/// The first message's type and body, and what follows it.
fn message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (body, rest) = long(rest)?;
    Some((*kind, body, rest))
}

/// RFC 5246 section 7.4.2.
fn certificates(list: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let (mut list, _) = long(list)?;
    let mut found = Vec::new();
    while !list.is_empty() {
        let (certificate, rest) = long(list)?;
        found.push(certificate.to_vec().into());
        list = rest;
    }
    Some(found)
}

/// What has its length in three bytes before it, and what follows it.
fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(3)?;
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

/// RFC 5246 section 7.4.1.2, in one record. The random is of no use to anybody: the handshake is not finished.
fn client_hello(name: &str, newest: Newest) -> Vec<u8> {
    let minor = match newest {
        Newest::V11 => 2,
        Newest::V12 => 3,
    };
    let mut body = vec![3, minor];
    body.extend([0x53; 32]);
    body.push(0);
    body.extend(counted(&numbers(&CIPHERS)));
    body.extend([1, 0]);
    let host = [&[0][..], &counted(name.as_bytes())].concat();
    let mut extensions = extension(0, &counted(&host));
    extensions.extend(extension(10, &counted(&numbers(&GROUPS))));
    // Uncompressed points.
    extensions.extend(extension(11, &[1, 0]));
    if newest == Newest::V12 {
        extensions.extend(extension(13, &counted(&numbers(&SIGNATURES))));
    }
    body.extend(counted(&extensions));
    // The length of a message has three bytes.
    let message = [&[1, 0][..], &counted(&body)].concat();
    [&[HANDSHAKE, 3, 1][..], &counted(&message)].concat()
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &counted(content)].concat()
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_be_bytes()).collect()
}

/// With its length in two bytes before it; nothing here comes near to more.
fn counted(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::hello::{self, Peeked};

    #[test]
    fn the_hello_is_one() {
        for (newest, version) in [(Newest::V11, 0x0302), (Newest::V12, 0x0303)] {
            let bytes = client_hello("sip.fabrikam.example", newest);
            let Ok(Peeked::Found(found)) = hello::read(&bytes) else {
                panic!("{newest:?}: {:?}", hello::read(&bytes));
            };
            assert_eq!(found.server_name.as_deref(), Some("sip.fabrikam.example"));
            assert_eq!(found.newest_version(), version);
        }
    }

    fn server(version: u8, certificates: &[&[u8]]) -> Vec<u8> {
        let long = |content: &[u8]| [&[0][..], &counted(content)].concat();
        let list: Vec<u8> = certificates.iter().flat_map(|it| long(it)).collect();
        let hello = [&[SERVER_HELLO][..], &long(&[3, version, 0, 0])].concat();
        let certificate = [&[CERTIFICATE][..], &long(&long(&list))].concat();
        [hello, certificate].concat()
    }

    #[test]
    fn an_answer_is_whole_or_waited_for() {
        let bytes = server(1, &[b"own", b"issuer"]);
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length}");
        }
        let expected = Answer {
            version: "1.0",
            chain: vec![b"own".to_vec().into(), b"issuer".to_vec().into()],
        };
        assert_eq!(read(&bytes), Some(Some(expected)));
        // What it is no answer to.
        assert_eq!(read(&server(4, &[])), Some(None));
    }

    #[test]
    fn a_list_that_lies_about_its_length_has_no_certificates() {
        let mut bytes = server(3, &[b"own"]);
        let last = bytes.len() - b"own".len() - 1;
        bytes[last] = 200;
        let chain = read(&bytes).flatten().map(|answer| answer.chain);
        assert_eq!(chain, Some(Vec::new()));
    }
}
