//! Why a ClientHello must not be routed.

/// A ClientHello that must not be routed. The sentence names the fault for the log; [`name`](Self::name) is for counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// A NUL in the server name: C code would see another, shorter name.
    #[error("the server name has a NUL byte in it")]
    NameNul,
    /// A `server_name` extension without a name.
    #[error("the server name is empty")]
    NameEmpty,
    /// Characters or labels that no host name has.
    #[error(
        "the server name is no host name: labels are 1 to 63 letters, digits, underscores, and dashes that are neither first nor last"
    )]
    NameNotHost,
    /// An address instead of a name, which RFC 6066 section 3 forbids.
    #[error("the server name is an IP address or looks like one")]
    NameAddress,
    /// More than 253 bytes.
    #[error("the server name has {0} bytes, and 253 are the most")]
    NameTooLong(usize),
    /// An entry of the server name list that is not of type host_name.
    #[error("the server name is of the unknown type {0}")]
    NameType(u8),
    /// More than one entry in the server name list: RFC 6066 section 3 forbids two host names, and there is no other type.
    #[error("there is more than one server name")]
    NameSeveral,
    /// A length that does not fit what it is the length of: it runs over the end, or leaves something behind.
    #[error("lengths do not fit in {0}")]
    LengthsOverrun(&'static str),
    /// A list that must have an entry has none.
    #[error("there is no entry in {0}")]
    ListEmpty(&'static str),
    /// The same extension twice (RFC 8446 section 4.2): which one counts differs between receivers.
    #[error("the extension {0:#06x} comes twice")]
    DuplicateExtension(u16),
    /// The message does not end within [`MAX_HELLO`](super::MAX_HELLO) bytes of the stream.
    #[error("the ClientHello does not end within {} bytes", super::MAX_HELLO)]
    TooLarge,
    /// A handshake record without content (RFC 8446 section 5.1).
    #[error("an empty handshake record")]
    RecordEmpty,
    /// A record above 2^14 bytes (RFC 8446 section 5.1).
    #[error("a record of {0} bytes, and 16384 are the most")]
    RecordTooLong(u16),
    /// Something other than a handshake record before the message's end (RFC 8446 section 5.1).
    #[error("something other than a handshake record comes before the ClientHello's end")]
    RecordInterleaved,
    /// More handshake data in the record in which the message ends. A client has nothing to say before the answer.
    #[error("another handshake message follows the ClientHello in its record")]
    RecordTrailing,
}

impl HelloError {
    /// A short name that stays the same from version to version, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NameNul => "name-nul",
            Self::NameEmpty => "name-empty",
            Self::NameNotHost => "name-not-host",
            Self::NameAddress => "name-address",
            Self::NameTooLong(_) => "name-too-long",
            Self::NameType(_) => "name-type",
            Self::NameSeveral => "name-several",
            Self::LengthsOverrun(_) => "lengths-overrun",
            Self::ListEmpty(_) => "list-empty",
            Self::DuplicateExtension(_) => "duplicate-extension",
            Self::TooLarge => "too-large",
            Self::RecordEmpty => "record-empty",
            Self::RecordTooLong(_) => "record-too-long",
            Self::RecordInterleaved => "record-interleaved",
            Self::RecordTrailing => "record-trailing",
        }
    }
}
