//! Reading a ClientHello without taking it: the Edge, or the TLS library, gets every byte.

use std::{io, time::Duration};

use rustix::net::{RecvFlags, recv};
use tokio::{io::Interest, net::TcpStream, time::sleep};

use super::{
    hello::{self, ClientHello, HelloError, MAX_HELLO, NotTls, Peeked},
    socket,
};

/// What most ClientHellos fit into.
const FIRST_LOOK: usize = 4096;
/// Looks at a ClientHello that comes in pieces before there is a pause between them, and how long that is.
const PATIENT_LOOKS: usize = 64;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Why there is no ClientHello. Who is too slow is cut off by the caller's deadline.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHello {
    /// Another protocol.
    #[error("the client does not speak TLS")]
    NotTls(NotTls),
    /// A ClientHello that must not be routed.
    #[error(transparent)]
    Wrong(#[from] HelloError),
    /// The client has closed before its ClientHello was complete.
    #[error("the client closed the connection before its ClientHello was complete")]
    Closed,
    /// The connection broke.
    #[error("the connection broke before the ClientHello was complete: {0}")]
    Io(#[from] io::Error),
}

/// Waits for a whole ClientHello at the head of what `stream` has received, and leaves it there.
pub(super) async fn client_hello(stream: &TcpStream) -> Result<ClientHello, NoHello> {
    let mut alarm = Alarm {
        stream,
        is_set: false,
    };
    let mut bytes = Vec::with_capacity(FIRST_LOOK);
    let mut looks = 0;
    loop {
        more(stream, &mut bytes).await?;
        match hello::read(&bytes)? {
            Peeked::Found(hello) => return Ok(hello),
            Peeked::NotTls(kind) => return Err(NoHello::NotTls(kind)),
            Peeked::Incomplete { needed } => alarm.set(needed)?,
        }
        // A hello in records of a byte or two can't be waited for as a whole, and each look reads all of it again.
        looks += 1;
        if looks > PATIENT_LOOKS {
            sleep(BETWEEN_LOOKS).await;
        }
    }
}

/// Waits until there is more to see than `bytes`, and sees it. At most [`MAX_HELLO`] bytes.
pub(super) async fn more(stream: &TcpStream, bytes: &mut Vec<u8>) -> Result<(), NoHello> {
    let known = bytes.len();
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let peeked = stream.try_io(Interest::READABLE, || {
            let seen = peek(stream, bytes)?;
            // What was there before still makes the socket readable. To say that there is nothing is what makes the runtime wait for the
            // kernel's next word instead of asking again at once.
            if seen <= known && !ready.is_read_closed() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(seen)
        });
        match peeked {
            Ok(seen) if seen > known => return Ok(()),
            Ok(_) => return Err(NoHello::Closed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Fills `bytes` with all that has been received, up to the bound.
fn peek(stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        bytes.clear();
        let (_, seen) = recv(
            stream,
            rustix::buffer::spare_capacity(bytes),
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        )?;
        if seen < bytes.capacity() || seen >= MAX_HELLO {
            bytes.truncate(MAX_HELLO);
            return Ok(bytes.len());
        }
        // Exactly full: there may be more.
        bytes.reserve(2 * seen);
    }
}

/// When the kernel wakes us.
struct Alarm<'a> {
    stream: &'a TcpStream,
    is_set: bool,
}

impl Alarm<'_> {
    /// When so many bytes are there, or when there will be no more: a ClientHello of single bytes is looked at a few times and not once for each.
    fn set(&mut self, bytes: usize) -> io::Result<()> {
        self.is_set = true;
        socket::set_receive_low_water(self.stream, bytes.min(MAX_HELLO))
    }
}

impl Drop for Alarm<'_> {
    /// Whoever reads on, be it for the end, wants to know of each byte; also when nobody waits for the ClientHello any longer.
    fn drop(&mut self) {
        if self.is_set
            && let Err(error) = socket::set_receive_low_water(self.stream, 1)
        {
            tracing::debug!(%error, "a socket keeps its low-water mark");
        }
    }
}
