//! A ClientHello that somebody else has written, sent as it is and in any pieces.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::deadline::Deadline;
use crate::netns::Namespace;

/// TLS's content types (RFC 8446 section 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const RECORD_HEADER: usize = 5;
/// More than any first flight that a test looks at.
const ANSWER_LIMIT: usize = 64 * 1024;

/// How bytes go into TCP segments.
#[derive(Clone, Copy, Debug)]
pub enum Segments {
    /// As few as there can be.
    Few,
    /// Of so many bytes each, with a pause after each.
    Of(usize, Duration),
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A ServerHello: somebody took the hello for one. It is the whole of what had come by then.
    ServerHello(Vec<u8>),
    /// An alert, by its level and description (RFC 8446 section 6), after which the connection ended.
    Alert(u8, u8),
    /// The connection ended without a byte.
    Closed,
    /// The connection was reset without a byte.
    Reset,
    /// Something else than TLS.
    Other(Vec<u8>),
}

impl Answer {
    /// `unrecognized_name` as a fatal alert (RFC 6066 section 3).
    pub const UNRECOGNIZED_NAME: Self = Self::Alert(2, 112);
    /// `protocol_version` as a fatal alert.
    pub const PROTOCOL_VERSION: Self = Self::Alert(2, 70);
}

/// Sends `bytes` from `namespace` to `address`, and returns what comes back.
///
/// # Errors
/// The connection is refused, or nothing comes back in time.
pub fn replay(
    namespace: &Namespace,
    address: SocketAddr,
    bytes: &[u8],
    segments: Segments,
    timeout: Duration,
) -> Result<Answer> {
    let deadline = Deadline::after(timeout);
    let mut socket = namespace
        .run(|| Ok(TcpStream::connect_timeout(&address, timeout)?))
        .with_context(|| format!("connecting from {} to {address}", namespace.name()))?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(timeout))?;
    match send_in_segments(&mut socket, bytes, segments, deadline) {
        Ok(()) => {}
        // It may be answered before it is complete.
        Err(error) => match error.downcast_ref::<std::io::Error>().map(|e| e.kind()) {
            Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            _ => return Err(error.context("sending the hello")),
        },
    }
    receive(&mut socket, deadline)
}

/// Where the hellos that real clients have sent are.
const CAPTURED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sni-user/tests/hellos");

/// A captured hello, by the name of its file without the ending: that of a program. It asks for `sip.fabrikam.example`.
///
/// # Errors
/// There is none of this name.
pub fn captured_hello(program: &str) -> Result<Vec<u8>> {
    let path = Path::new(CAPTURED).join(program).with_extension("bin");
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// All captured hellos, by their files.
///
/// # Errors
/// There are none, or they could not be read.
pub fn captured_hellos() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let directory = Path::new(CAPTURED);
    let reading = || format!("reading {}", directory.display());
    let mut hellos = fs::read_dir(directory)
        .with_context(reading)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| !path.as_ref().is_ok_and(|path| path.is_dir()))
        .map(|path| path.and_then(|path| Ok((path.clone(), fs::read(&path)?))))
        .filter(|hello| {
            !hello
                .as_ref()
                .is_ok_and(|(_, bytes)| bytes.first() != Some(&HANDSHAKE))
        })
        .collect::<Result<Vec<_>>>()
        .with_context(reading)?;
    ensure!(!hellos.is_empty(), "no hellos in {}", directory.display());
    hellos.sort();
    Ok(hellos)
}

/// The same handshake bytes in records of `size` bytes each (RFC 8446 section 5.1 allows any size but none).
///
/// # Errors
/// The bytes are not whole handshake records.
pub fn in_records(hello: &[u8], size: usize) -> Result<Vec<u8>> {
    let mut version = [3, 1];
    let mut handshake = Vec::new();
    let mut rest = hello;
    while !rest.is_empty() {
        let &[HANDSHAKE, major, minor, high, low, ..] = rest else {
            bail!(
                "no handshake record: {:02x?}",
                &rest[..rest.len().min(RECORD_HEADER)]
            );
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = rest[RECORD_HEADER..].get(..length);
        handshake.extend_from_slice(body.context("a record that is not complete")?);
        version = [major, minor];
        rest = &rest[RECORD_HEADER + length..];
    }
    let mut records = Vec::new();
    for piece in handshake.chunks(size) {
        let length = u16::try_from(piece.len()).context("a record's length")?;
        records.push(HANDSHAKE);
        records.extend(version);
        records.extend(length.to_be_bytes());
        records.extend(piece);
    }
    Ok(records)
}

/// The length of the handshake record that begins with `start`, or `None` if no such record does: with so many bytes more,
/// there are as many as `start` has behind it.
pub(crate) fn rest_of_hello(start: &[u8]) -> Result<Option<usize>> {
    let &[HANDSHAKE, 3, _, high, low, ..] = start else {
        return Ok(None);
    };
    let record = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
    ensure!(
        record >= start.len(),
        "a record of {record} bytes is no part of a hello"
    );
    Ok(Some(record))
}

/// Sends `bytes` in such pieces; the socket must not delay them (TCP_NODELAY).
///
/// # Errors
/// The connection breaks, or does not take them in time.
pub fn send_in_segments(
    socket: &mut TcpStream,
    bytes: &[u8],
    segments: Segments,
    deadline: Deadline,
) -> Result<()> {
    let Segments::Of(size, pause) = segments else {
        return Ok(socket.write_all(bytes)?);
    };
    for piece in bytes.chunks(size) {
        socket.write_all(piece)?;
        // What the kernel has not sent yet, for want of window, it would send together with the next piece.
        deadline.poll("a segment to leave", || {
            let unsent = unsent(socket)?;
            Ok((unsent == 0).then_some(()))
        })?;
        thread::sleep(pause);
    }
    Ok(())
}

fn unsent(socket: &TcpStream) -> Result<libc::c_int> {
    // include/uapi/linux/sockios.h
    const SIOCOUTQNSD: libc::c_ulong = 0x894b;
    let mut count: libc::c_int = 0;
    // SAFETY: this request writes one int, which `count` is.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD as _, &raw mut count) };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("asking for a socket's unsent bytes");
    }
    Ok(count)
}

fn receive(socket: &mut TcpStream, deadline: Deadline) -> Result<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match bytes.as_slice() {
            &[HANDSHAKE, _, _, _, _, SERVER_HELLO, ..] => return Ok(Answer::ServerHello(bytes)),
            // Whether it is an alert is certain only at the end.
            [HANDSHAKE | ALERT, ..] | [] => {}
            _ => return Ok(Answer::Other(bytes)),
        }
        ensure!(bytes.len() < ANSWER_LIMIT, "an answer without an end");
        // Zero would mean for ever.
        socket.set_read_timeout(Some(deadline.remaining().max(Duration::from_millis(1))))?;
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(ended(bytes, Answer::Closed)),
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Ok(ended(bytes, Answer::Reset));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("no answer in time, but {bytes:02x?}"));
            }
        }
    }
}

fn ended(bytes: Vec<u8>, without_a_byte: Answer) -> Answer {
    match bytes.as_slice() {
        [] => without_a_byte,
        &[ALERT, _, _, 0, 2, level, description, ..] => Answer::Alert(level, description),
        _ => Answer::Other(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_and_joined() -> Result<()> {
        let hello = [22, 3, 1, 0, 5, 1, 0, 0, 1, 9];
        let small = in_records(&hello, 2)?;
        assert_eq!(
            small,
            [
                22, 3, 1, 0, 2, 1, 0, 22, 3, 1, 0, 2, 0, 1, 22, 3, 1, 0, 1, 9
            ]
        );
        assert_eq!(in_records(&small, 5)?, hello);
        assert!(in_records(&hello[..9], 2).is_err());
        assert!(in_records(b"GET / HTTP/1.1\r\n", 2).is_err());
        Ok(())
    }
}
