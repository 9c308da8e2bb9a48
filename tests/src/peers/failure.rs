//! What there is to say of a connection that comes to nothing.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
};

/// In an error's chain: whose connection it is about.
#[derive(Clone, Copy, Debug)]
pub struct LocalEnd(pub SocketAddr);

impl fmt::Display for LocalEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection of {}", self.0)
    }
}

/// In an error's chain: bytes have come that were not sent to this peer.
#[derive(Clone, Debug)]
pub struct WrongBytes(pub String);

impl fmt::Display for WrongBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongBytes {}

/// Whether an error is, or comes from, one of these of the kernel's.
#[must_use]
pub fn is_of_kind(error: &anyhow::Error, kinds: &[ErrorKind]) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| kinds.contains(&error.kind()))
}

/// Whether a connection was reset, and the RST met by a read or by the write before it.
#[must_use]
pub fn is_reset(error: &anyhow::Error) -> bool {
    let kinds = [
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::NotConnected,
    ];
    is_of_kind(error, &kinds)
}
