//! Pipes for splice(2).

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};

use crate::descriptors::is_of_reserve;

/// What a pipe holds: enough for a window of a fast connection, within what an unprivileged process may have.
pub(super) const PIPE: usize = 256 * 1024;
/// Pipes that are kept for the next bytes.
const SPARE_PIPES: usize = 64;

/// A pipe on its way between two sockets. One that is dropped with bytes in it is closed.
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// Empty pipes, for whichever connection has something to pass on.
static SPARE: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

impl Pipe {
    /// An empty pipe, unless there are no file descriptors left for one.
    pub(super) fn borrow() -> io::Result<Option<Self>> {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if spare.is_some() {
            return Ok(spare);
        }
        match pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC) {
            // The second one has the higher number.
            Ok((_, write)) if is_of_reserve(&write) => Ok(None),
            Ok((read, write)) => {
                // A system that allows less works as well, with more system calls.
                let _ = fcntl_setpipe_size(&write, PIPE);
                Ok(Some(Self { read, write }))
            }
            Err(Errno::MFILE | Errno::NFILE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns an empty pipe.
    pub(super) fn give_back(self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_PIPES {
            spare.push(self);
        }
    }
}
