//! What a peer's kernel says of a connection that comes to nothing.

use std::io::{self, ErrorKind};

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
