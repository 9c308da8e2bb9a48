//! One connection, with or without TLS, that never waits beyond its deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::pattern::{Hash, Hasher, Pattern};
use crate::deadline::Deadline;

/// How long a wait may go on without a look at the stop flag.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
const BUFFER: usize = 64 * 1024;

/// A non-blocking socket and perhaps TLS on it. `Read` and `Write` wait, up to the deadline.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: TcpStream,
    tls: Option<rustls::Connection>,
    deadline: Deadline,
    /// Set when the owner wants everybody out.
    stop: Arc<AtomicBool>,
}

/// What ends the receiving side of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// So many bytes; the connection stays open.
    Bytes(u64),
    /// The other side has finished sending.
    End,
}

/// What a transfer received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) hash: Hash,
}

impl Channel {
    /// Takes the socket over and, with TLS, completes the handshake.
    pub(crate) fn new(
        socket: TcpStream,
        tls: Option<rustls::Connection>,
        deadline: Deadline,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let mut channel = Self {
            socket,
            tls,
            deadline,
            stop,
        };
        channel.handshake()?;
        Ok(channel)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr().map(unmapped)
    }

    pub(crate) fn tls(&self) -> Option<&rustls::Connection> {
        self.tls.as_ref()
    }

    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Sends all of `outgoing` and receives until `until`, both at once.
    pub(crate) fn transfer(&mut self, mut outgoing: Pattern, until: Until) -> io::Result<Received> {
        let mut out = vec![0; BUFFER];
        let mut unsent = 0..0;
        let mut input = vec![0; BUFFER];
        let mut hasher = Hasher::new();
        let mut bytes = 0;
        let mut receiving = until != Until::Bytes(0);
        loop {
            let mut progress = false;
            if unsent.is_empty() && !outgoing.is_empty() {
                unsent = 0..outgoing.fill(&mut out);
            }
            if !unsent.is_empty() {
                let sent = none_if_blocked(self.try_write(&out[unsent.clone()]))?.unwrap_or(0);
                unsent.start += sent;
                progress |= sent > 0;
            }
            let flushed = none_if_blocked(self.try_flush())?.is_some();
            if receiving {
                let room = match until {
                    Until::Bytes(wanted) => {
                        usize::try_from(wanted - bytes).map_or(BUFFER, |n| n.min(BUFFER))
                    }
                    Until::End => BUFFER,
                };
                if let Some(length) = none_if_blocked(self.try_read(&mut input[..room]))? {
                    if length == 0 && until != Until::End {
                        return Err(early_end(bytes, until));
                    }
                    progress = true;
                    hasher.update(&input[..length]);
                    bytes += length as u64;
                    receiving = length > 0 && until != Until::Bytes(bytes);
                }
            }
            let sending = !(unsent.is_empty() && outgoing.is_empty() && flushed);
            if !sending && !receiving {
                return Ok(Received {
                    bytes,
                    hash: hasher.finish(),
                });
            }
            if !progress {
                self.wait(receiving, sending)?;
            }
        }
    }

    /// Half-closes: everything is flushed, then close_notify and FIN; receiving goes on.
    pub(crate) fn finish_sending(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush()?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// Ends the connection with a RST, whatever is still under way.
    pub(crate) fn reset(self) -> io::Result<()> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))
    }

    /// Segments of this connection that its own side has sent again.
    pub(crate) fn retransmitted(&self) -> io::Result<u32> {
        // SAFETY: tcp_info is a plain structure of integers, for which zero is a value.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length =
            libc::socklen_t::try_from(size_of::<libc::tcp_info>()).expect("a small structure");
        // SAFETY: the kernel writes at most `length` bytes to `info`; a shorter structure leaves the rest zero.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(info.tcpi_total_retrans)
    }

    fn handshake(&mut self) -> io::Result<()> {
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            let flushed = none_if_blocked(self.try_flush())?.is_some();
            // Application data that follows the handshake closely waits in rustls for the first read.
            let read = none_if_blocked(self.try_receive_tls())?;
            if read == Some(0) {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "closed during the TLS handshake",
                ));
            }
            let handshaking = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
            if read.is_none() && handshaking && flushed {
                self.wait(true, false)?;
            } else if !flushed {
                self.wait(true, true)?;
            }
        }
        self.flush()
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            // rustls takes up to its buffer limit and then nothing: flushing makes room.
            Some(tls) => tls.writer().write(bytes),
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else {
                return self.socket.read(buffer);
            };
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.try_receive_tls()?;
        }
    }

    fn try_receive_tls(&mut self) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return Ok(0);
        };
        let length = tls.read_tls(&mut self.socket)?;
        if let Err(error) = tls.process_new_packets() {
            // The alert, if it still can be sent, tells the other side why.
            let sent = tls.write_tls(&mut self.socket);
            let why = match sent {
                Ok(_) => error.to_string(),
                Err(sending) => format!("{error}; the alert could not be sent: {sending}"),
            };
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        Ok(length)
    }

    fn wait(&self, reading: bool, writing: bool) -> io::Result<()> {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::POLLIN, reading);
        interest.set(PollFlags::POLLOUT, writing);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                // Not as an interruption, after which a reader tries again.
                return Err(io::Error::new(ErrorKind::ConnectionAborted, "told to stop"));
            }
            if self.deadline.expired() {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "the connection's deadline has passed",
                ));
            }
            let slice = STOP_INTERVAL.min(self.deadline.remaining());
            let timeout = PollTimeout::try_from(slice).unwrap_or(PollTimeout::ZERO);
            let mut descriptors = [PollFd::new(self.socket.as_fd(), interest)];
            if poll(&mut descriptors, timeout)? > 0 {
                return Ok(());
            }
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match none_if_blocked(self.try_read(buffer))? {
                Some(length) => return Ok(length),
                None => self.wait(true, false)?,
            }
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match none_if_blocked(self.try_write(bytes))? {
                Some(length) if length > 0 || bytes.is_empty() => return Ok(length),
                _ => {
                    self.wait(false, true)?;
                    none_if_blocked(self.try_flush())?;
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while none_if_blocked(self.try_flush())?.is_none() {
            self.wait(false, true)?;
        }
        Ok(())
    }
}

fn none_if_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn early_end(bytes: u64, until: Until) -> io::Error {
    let what = format!("the other side finished after {bytes} bytes of {until:?}");
    io::Error::new(ErrorKind::UnexpectedEof, what)
}

/// The address without what a dual-stack listener puts before IPv4 peers, ::ffff:0:0/96 (RFC 4291 section 2.5.5.2).
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
