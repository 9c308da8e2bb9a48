//! SIP OPTIONS over TLS (RFC 3261 section 11), to see whether more than TLS is alive.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::SocketAddr,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// Longer than any answer's header.
const LONGEST: usize = 16 << 10;
/// It is overloaded or in maintenance, in its own words (RFC 3261 section 21.5.4).
const UNAVAILABLE: u16 = 503;

/// Why OPTIONS had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// There was nobody to ask.
    #[error(
        "it refuses the gateway's TLS, so it can't be asked for OPTIONS: let it trust the gateway's certificate ([identity]), or leave `options` out"
    )]
    NoSession,
    /// The connection ended or broke.
    #[error("the connection ended before SIP OPTIONS was answered: {0}")]
    Gone(#[from] io::Error),
    /// It does not speak SIP.
    #[error("what it answers to SIP OPTIONS is no SIP")]
    NoSip,
    /// It says itself that it is not there.
    #[error("it answers SIP OPTIONS with 503, Service Unavailable")]
    Unavailable,
}

/// Asks, and returns the final status. Every one but 503 is an answer of somebody who is alive: an Edge need not like the gateway's questions.
pub(super) async fn ask(tls: &mut TlsStream<TcpStream>, edge: SocketAddr) -> Result<u16, NoAnswer> {
    let local = tls.get_ref().0.local_addr()?;
    tls.write_all(request(edge, local).as_bytes()).await?;
    tls.flush().await?;
    let mut received = Vec::with_capacity(1024);
    loop {
        match read(&received) {
            Read::Final(UNAVAILABLE) => return Err(NoAnswer::Unavailable),
            Read::Final(status) => return Ok(status),
            Read::NoSip => return Err(NoAnswer::NoSip),
            Read::More if received.len() >= LONGEST => return Err(NoAnswer::NoSip),
            Read::More => {}
        }
        if tls.read_buf(&mut received).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Max-Forwards is 0: whoever is asked answers, and asks nobody else (section 11.1).
fn request(edge: SocketAddr, local: SocketAddr) -> String {
    let random = RandomState::new();
    let [branch, tag, call] = [1, 2, 3].map(|n| random.hash_one(n));
    format!(
        "OPTIONS sip:{edge};transport=tls SIP/2.0\r\n\
         Via: SIP/2.0/TLS {local};branch=z9hG4bK{branch:016x}\r\n\
         Max-Forwards: 0\r\n\
         From: <sip:snigate@{own}>;tag={tag:016x}\r\n\
         To: <sip:{edge}>\r\n\
         Call-ID: {call:016x}@{own}\r\n\
         CSeq: 1 OPTIONS\r\n\
         Contact: <sip:{local};transport=tls>\r\n\
         Accept: application/sdp\r\n\
         Content-Length: 0\r\n\r\n",
        own = host(local),
    )
}

/// As SIP writes an address: IPv6 in brackets.
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// The status of a final answer.
    Final(u16),
    /// No final answer so far.
    More,
    /// It is none, whatever comes.
    NoSip,
}

/// Looks for a final answer behind any provisional ones, which have no body (section 18.4 leaves that to them; none is defined).
fn read(mut received: &[u8]) -> Read {
    const VERSION: &[u8] = b"SIP/2.0 ";
    loop {
        let known = received.len().min(VERSION.len());
        if received[..known] != VERSION[..known] {
            return Read::NoSip;
        }
        let Some(status) = received.get(VERSION.len()..VERSION.len() + 3) else {
            return Read::More;
        };
        let digits = str::from_utf8(status).ok();
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(100..=199) => {}
            Some(status @ 200..=699) => return Read::Final(status),
            _ => return Read::NoSip,
        }
        let end = received.windows(4).position(|four| four == b"\r\n\r\n");
        match end {
            Some(end) => received = &received[end + 4..],
            None => return Read::More,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_an_answer_is_no_answer_yet() {
        let answer = b"SIP/2.0 100 Trying\r\nVia: x\r\n\r\nSIP/2.0 483 Too Many Hops\r\n";
        let status = answer.len() - b" Too Many Hops\r\n".len();
        for length in 0..status {
            assert_eq!(read(&answer[..length]), Read::More, "{length}");
        }
        for length in status..=answer.len() {
            assert_eq!(read(&answer[..length]), Read::Final(483), "{length}");
        }
    }

    #[test]
    fn what_is_no_sip_is_known_by_its_first_bytes() {
        for wrong in [
            &b"H"[..],
            b"HTTP/1.1 400 Bad Request\r\n",
            b"SIP/2.0 abc",
            b"SIP/2.0 999",
            b"SIP/3",
        ] {
            assert_eq!(read(wrong), Read::NoSip, "{wrong:02x?}");
        }
    }

    #[test]
    fn requests_name_both_ends_and_differ() {
        let [edge, local] = ["[2001:db8::10]:5061", "[2001:db8::1]:40000"];
        let [edge, local] = [edge, local].map(|text| text.parse().expect("an address"));
        let text = request(edge, local);
        for line in [
            "OPTIONS sip:[2001:db8::10]:5061;transport=tls SIP/2.0\r\n",
            "\r\nVia: SIP/2.0/TLS [2001:db8::1]:40000;branch=z9hG4bK",
            "\r\nMax-Forwards: 0\r\n",
            "\r\nFrom: <sip:snigate@[2001:db8::1]>;tag=",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{text}");
        assert_ne!(text, request(edge, local));
    }
}
