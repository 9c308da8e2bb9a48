//! What one direction reads, and how it is written to the far end.

use std::{
    cell::RefCell,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    net::{SendFlags, send},
    pipe::{SpliceFlags, splice},
};
use tokio::{io::Interest, net::TcpStream};

use super::{
    activity::Activity,
    pipe::{PIPE, Pipe},
};

/// What a message fits into; a TLS record does, with its header.
pub(super) const MESSAGE: usize = 17 * 1024;

/// What there was to pass on.
pub(super) enum Taken {
    /// So many bytes, and perhaps more.
    Some(usize),
    /// So many bytes, or none, and no more for now.
    All(usize),
    /// The end.
    End,
}

/// One direction's far end.
pub(super) struct Onward<'a> {
    pub(super) to: &'a TcpStream,
    pub(super) passed: &'a AtomicU64,
    pub(super) activity: &'a Activity,
}

thread_local! {
    /// Holds nothing from one call to the next.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; MESSAGE].into_boxed_slice());
}

impl Onward<'_> {
    /// By a pipe; through the buffer where none can be had.
    pub(super) async fn splice(&self, from: &TcpStream) -> io::Result<Taken> {
        let Some(pipe) = Pipe::borrow()? else {
            return self.copy(from).await;
        };
        let filled = from.try_io(Interest::READABLE, || {
            Ok(splice(from, None, &pipe.write, None, PIPE, flags())?)
        });
        let taken = match filled {
            Ok(0) => Taken::End,
            Ok(filled) => {
                let mut left = filled;
                while left > 0 {
                    left -= self
                        .write(|| Ok(splice(&pipe.read, None, self.to, None, left, flags())?))
                        .await?;
                }
                Taken::Some(filled)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Taken::All(0),
            Err(error) => return Err(error),
        };
        pipe.give_back();
        Ok(taken)
    }

    /// Through the thread's buffer.
    pub(super) async fn copy(&self, from: &TcpStream) -> io::Result<Taken> {
        let (taken, rest) = BUFFER.with_borrow_mut(|buffer| self.copy_now(from, buffer))?;
        // The receiver is slow: what it does not take yet leaves the buffer to others.
        let mut rest = &rest[..];
        while !rest.is_empty() {
            let sent = self
                .write(|| Ok(send(self.to, rest, SendFlags::NOSIGNAL)?))
                .await?;
            rest = &rest[sent..];
        }
        Ok(taken)
    }

    /// Reads, and writes as much of it as can be written now; returns the rest.
    fn copy_now(&self, from: &TcpStream, buffer: &mut [u8]) -> io::Result<(Taken, Vec<u8>)> {
        let mut read = None;
        let outcome = from.try_io(Interest::READABLE, || {
            let bytes = rustix::io::read(from, &mut *buffer)?;
            read = Some(bytes);
            // To say that there is nothing (more) is what makes the runtime wait for the kernel's next word.
            match bytes {
                0 => Ok(()),
                _ if bytes < buffer.len() => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        let bytes = match (read, outcome) {
            (Some(0), _) => return Ok((Taken::End, Vec::new())),
            (Some(bytes), _) => bytes,
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            (None, _) => return Ok((Taken::All(0), Vec::new())),
        };
        self.activity.note();
        let sent = match self.to.try_write(&buffer[..bytes]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        self.passed.fetch_add(sent as u64, Ordering::Relaxed);
        let rest = buffer[sent..bytes].to_vec();
        let taken = if bytes < buffer.len() {
            Taken::All(bytes)
        } else {
            Taken::Some(bytes)
        };
        Ok((taken, rest))
    }

    /// Writes when that is possible; returns how much it was.
    async fn write(&self, mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            self.to.writable().await?;
            match self.to.try_io(Interest::WRITABLE, &mut write) {
                Ok(sent) => {
                    self.passed.fetch_add(sent as u64, Ordering::Relaxed);
                    self.activity.note();
                    return Ok(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::NONBLOCK | SpliceFlags::MOVE
}
