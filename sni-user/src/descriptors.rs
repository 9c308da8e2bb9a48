//! File descriptors: those that clients' connections leave to everything else.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, RawFd},
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, getrlimit},
};

/// The control socket, metrics, checks of Edges and reloads have them when there are none for further connections.
const RESERVE: u64 = 64;

/// Whether a descriptor is one of the last that this process may have. The kernel gives the lowest that is free, so that none before them is.
pub(crate) fn is_of_reserve(descriptor: &impl AsFd) -> bool {
    let limit = getrlimit(Resource::Nofile).current;
    limit.is_some_and(|limit| is_among_last(descriptor.as_fd().as_raw_fd(), limit))
}

fn is_among_last(descriptor: RawFd, limit: u64) -> bool {
    // Where few are allowed, connections get most of them all the same.
    let reserve = RESERVE.min(limit / 4);
    u64::try_from(descriptor).is_ok_and(|descriptor| descriptor >= limit - reserve)
}

/// What a client's connection may have.
///
/// # Errors
/// It is of the reserve, which is to the connection as if there were none: EMFILE.
pub(crate) fn outside_reserve<T: AsFd>(opened: T) -> io::Result<T> {
    if is_of_reserve(&opened) {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    Ok(opened)
}

/// Whether there is none left but for the reserve. Any descriptor will do to try with.
pub(crate) fn are_scarce(any: &impl AsFd) -> bool {
    match fcntl_dupfd_cloexec(any, 0) {
        Ok(next) => is_of_reserve(&next),
        Err(_) => true,
    }
}

/// Whether an error says that the process, or the host, has none left.
pub(crate) fn is_want(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_the_reserve() {
        assert!(!is_among_last(1023 - 64, 1024));
        assert!(is_among_last(1024 - 64, 1024));
        // Already open when the limit was lowered.
        assert!(is_among_last(2000, 1024));
        assert!(!is_among_last(29, 40));
        assert!(is_among_last(30, 40));
        assert!(is_among_last(0, 0));
    }

    #[test]
    fn its_want_is_told_from_other_errors() {
        assert!(is_want(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(is_want(&io::Error::from_raw_os_error(libc::ENFILE)));
        assert!(!is_want(&io::Error::from_raw_os_error(libc::ECONNREFUSED)));
    }
}
