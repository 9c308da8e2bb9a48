//! What the first bytes of a connection are: a ClientHello and what it asks for, something that is not TLS, or not enough yet.
//!
//! Pure code on a slice. The caller peeks into the stream, calls [`read`] with all bytes from the first one on, and comes back
//! with more while the answer is [`Peeked::Incomplete`]. It does not matter how the bytes were cut into TCP segments or TLS
//! records, nor what follows the ClientHello. The bytes go to the Edge as they came: nothing here changes them.
//!
//! The rule of this module is that of a gateway: what a ClientHello's receiver could read in another way than we do is an error,
//! never a match. Stricter than a receiver costs one connection that is odd anyway; looser sends a customer's partner to someone
//! else's Edge.

mod error;
mod ja4;
mod message;
mod not_tls;
mod records;
mod server_name;

pub use error::HelloError;
pub use ja4::Ja4;
pub use not_tls::NotTls;

use records::Handshake;

/// The most bytes of a stream in which its ClientHello must end, records' headers included.
pub const MAX_HELLO: usize = 64 * 1024;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// A whole ClientHello.
    Found(ClientHello),
    /// Not the beginning of a TLS connection.
    NotTls(NotTls),
    /// A ClientHello so far; more bytes must come.
    Incomplete {
        /// How many bytes of the stream, from its first one on, must be there before the answer can be another one: more than
        /// there were, and at most [`MAX_HELLO`]. What `SO_RCVLOWAT` wants to know.
        needed: usize,
    },
}

/// What a ClientHello asks for (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The name from `server_name` (RFC 6066 section 3), in lower case, without a trailing dot. A client that names nobody is normal.
    pub server_name: Option<String>,
    /// The protocols of ALPN (RFC 7301) in the client's order; empty without the extension.
    pub alpn: Vec<Vec<u8>>,
    /// The versions offered, such as 0x0304 for TLS 1.3: `supported_versions` in the client's order and without GREASE, else every
    /// version from the legacy field's, TLS 1.2 at most, down to TLS 1.0.
    pub versions: Vec<u16>,
    /// Whether a key share of a hybrid with ML-KEM, or of its draft with Kyber, is offered. Such a hello is bigger than a segment.
    pub post_quantum: bool,
    /// Whether `encrypted_client_hello` (0xfe0d) is offered, in earnest or as GREASE. The server name then is the outer one.
    pub ech: bool,
    /// What the JA4 fingerprint is made from; hashed when it is displayed.
    pub ja4: Ja4,
}

impl ClientHello {
    /// The newest of [`versions`](Self::versions); 0 if the client offered GREASE alone.
    pub fn newest_version(&self) -> u16 {
        // A draft's number (0x7f..) is above every version's.
        let newest = |drafts| {
            let versions = self.versions.iter().copied();
            versions.filter(|version| drafts || version >> 8 == 3).max()
        };
        newest(false).or_else(|| newest(true)).unwrap_or(0)
    }
}

/// Reads the beginning of a stream; `bytes` starts at its first byte and may end anywhere.
///
/// The answer comes as early as it can be known, and more bytes do not change it, except that [`NotTls`] may be seen more clearly.
/// An error means a ClientHello that must not be routed. Bytes beyond [`MAX_HELLO`] are not looked at.
pub fn read(bytes: &[u8]) -> Result<Peeked, HelloError> {
    Ok(match records::handshake(bytes)? {
        Handshake::ClientHello(body) => Peeked::Found(message::parse(&body)?),
        Handshake::NotTls(what) => Peeked::NotTls(what),
        Handshake::Incomplete { needed } => Peeked::Incomplete { needed },
    })
}

/// Values that clients sprinkle in so that servers stay tolerant of unknown ones (RFC 8701): they say nothing about the client.
fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}
