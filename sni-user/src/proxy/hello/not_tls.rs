//! What a stream is that does not begin with a ClientHello: a guess for logs and counts.

/// What a stream that is not TLS looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotTls {
    /// An HTTP request in the clear.
    Http,
    /// A SIP request or response in the clear.
    Sip,
    /// A hello in the format of SSL 2.0 (RFC 5246 appendix E.2), which carries no server name.
    Ssl2,
    /// A PROXY protocol header, which nobody expects here.
    Proxy,
    /// TLS, but no ClientHello: an alert, or a connection in mid-stream.
    NoHello,
    /// Anything else.
    Other,
}

impl NotTls {
    /// A short name that stays the same from version to version, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Sip => "sip",
            Self::Ssl2 => "ssl2",
            Self::Proxy => "proxy",
            Self::NoHello => "no-hello",
            Self::Other => "other",
        }
    }

    /// The best guess from `bytes`, the whole of what has come so far. That it is no ClientHello is certain from the first byte
    /// or two, so nobody waits for a better one.
    pub(super) fn guess(bytes: &[u8]) -> Self {
        if let [flags, _, 1, version @ ..] = bytes
            && flags & 0x80 != 0
            && matches!(version, [0, 2, ..] | [3, _, ..])
        {
            return Self::Ssl2;
        }
        if matches!(bytes, [20..=24, 3, ..]) {
            return Self::NoHello;
        }
        // Both protocols have this method, and only its object tells them apart.
        if let Some(object) = bytes.strip_prefix(b"OPTIONS ") {
            let scheme = object.get(..3).unwrap_or_default();
            return if scheme.eq_ignore_ascii_case(b"sip") {
                Self::Sip
            } else {
                Self::Http
            };
        }
        let begins = |start: &&[u8]| bytes.starts_with(start) || start.starts_with(bytes);
        let (_, what) = BEGINNINGS
            .iter()
            .find(|(starts, _)| starts.iter().any(begins))
            .unwrap_or(&(&[], Self::Other));
        *what
    }
}

const BEGINNINGS: &[(&[&[u8]], NotTls)] = &[
    (
        &[
            b"GET ",
            b"HEAD ",
            b"POST ",
            b"PUT ",
            b"DELETE ",
            b"CONNECT ",
            b"OPTIONS ",
            b"TRACE ",
            b"PATCH ",
            b"PRI * HTTP/2",
        ],
        NotTls::Http,
    ),
    (
        &[
            b"INVITE ",
            b"ACK ",
            b"BYE ",
            b"CANCEL ",
            b"REGISTER ",
            b"PRACK ",
            b"SUBSCRIBE ",
            b"NOTIFY ",
            b"PUBLISH ",
            b"INFO ",
            b"REFER ",
            b"MESSAGE ",
            b"UPDATE ",
            b"SERVICE ",
            b"NEGOTIATE ",
            b"SIP/2.0 ",
        ],
        NotTls::Sip,
    ),
    (&[b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"], NotTls::Proxy),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses() {
        for (bytes, what) in [
            (&b"GET / HTTP/1.1\r\n"[..], NotTls::Http),
            (b"G", NotTls::Http),
            (b"PRI * HTTP/2.0\r\n", NotTls::Http),
            (b"OPTIONS * HTTP/1.1\r\n", NotTls::Http),
            (b"OPTIONS sip:sip.fabrikam.example SIP/2.0\r\n", NotTls::Sip),
            (b"OPTIONS SIPS:a@b SIP/2.0\r\n", NotTls::Sip),
            (b"INVITE sip:a@fabrikam.example SIP/2.0\r\n", NotTls::Sip),
            (b"SIP/2.0 200 OK\r\n", NotTls::Sip),
            (b"NEGOTIATE sip:192.0.2.1:5061 SIP/2.0\r\n", NotTls::Sip),
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 1 5061\r\n",
                NotTls::Proxy,
            ),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", NotTls::Proxy),
            (b"\x80\x2e\x01\x00\x02\x00\x15", NotTls::Ssl2),
            (b"\x80\x2e\x01\x03\x01\x00\x15", NotTls::Ssl2),
            (b"\x80\x2e\x02\x03\x01\x00\x15", NotTls::Other),
            (b"\x15\x03\x01\x00\x02\x02\x46", NotTls::NoHello),
            (b"\x17\x03\x03", NotTls::NoHello),
            (b"SSH-2.0-OpenSSH_9.2\r\n", NotTls::Other),
            (b"<?xml version='1.0'?>", NotTls::Other),
            (b"\0", NotTls::Other),
        ] {
            assert_eq!(NotTls::guess(bytes), what, "{}", bytes.escape_ascii());
        }
    }
}
