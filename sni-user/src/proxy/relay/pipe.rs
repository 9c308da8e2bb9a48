//! Pipes for splice(2).

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};
use tokio::time::sleep;

/// What a pipe holds: enough for a window of a fast connection, within what an unprivileged process may have.
pub(super) const PIPE: usize = 256 * 1024;
/// How long to wait for a pipe when there are no more file descriptors.
const NO_PIPE: Duration = Duration::from_millis(50);
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
    /// An empty pipe. When there are no more file descriptors, the bytes wait until another connection has returned one.
    pub(super) async fn borrow() -> io::Result<Self> {
        loop {
            let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if let Some(pipe) = spare {
                return Ok(pipe);
            }
            match pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC) {
                Ok((read, write)) => {
                    // A system that allows less works as well, with more system calls.
                    let _ = fcntl_setpipe_size(&write, PIPE);
                    return Ok(Self { read, write });
                }
                Err(Errno::MFILE | Errno::NFILE) => sleep(NO_PIPE).await,
                Err(error) => return Err(error.into()),
            }
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
