//! An Edge for benches: any number of connections on one thread, and after the ClientHello bytes as they are.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::edge::{listen, refuse};
use super::request::{Action, REQUEST_LENGTH, Request};
use crate::netns::Namespace;

/// What a partner waits for after its hello: the header of the hello's own record, sent back.
pub(super) const GREETING: usize = 5;

/// How long the thread may go on without a look at the stop flag, in milliseconds.
const STOP_INTERVAL: u8 = 50;
const BUFFER: usize = 256 * 1024;

/// A server in a namespace; dropping it closes all its connections.
///
/// Of every connection it wants one record with a ClientHello, which it answers with five bytes, and then its end, or a [`Request`] to echo or to
/// count. There is no TLS: what is measured is what carries the bytes, and encrypting them would cost more than that does. One thread with
/// epoll(7) and not a thread for each connection as [`Edge`](super::Edge) has: thousands may be idle, and none may cost much.
#[derive(Debug)]
pub struct StreamEdge {
    stop: Arc<AtomicBool>,
    hellos: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl StreamEdge {
    /// Listens on `port` of every address of `namespace`.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let listener = namespace.run(|| listen(port)).with_context(|| {
            format!("listening on port {port} in namespace {}", namespace.name())
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let hellos = Arc::new(AtomicU64::new(0));
        let answered = Arc::clone(&hellos);
        let thread =
            namespace.thread("stream-edge", move || serve(&listener, &stopped, &answered))?;
        Ok(Self {
            stop,
            hellos,
            thread: Some(thread),
        })
    }

    /// How many hellos it has answered, or is about to: none is answered before it is counted. Whoever connects without one, to see whether the Edge is
    /// there, does not count.
    #[must_use]
    pub fn hellos(&self) -> u64 {
        self.hellos.load(Ordering::SeqCst)
    }
}

impl Drop for StreamEdge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => eprintln!("an Edge failed: {error:#}"),
            Some(Err(_)) => eprintln!("an Edge panicked"),
        }
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool, hellos: &AtomicU64) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let add = |source: &dyn std::os::fd::AsFd, key: u64| {
        epoll.add(source.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, key))
    };
    let key = |fd: i32| u64::try_from(fd).context("a descriptor below zero");
    let listening = key(listener.as_raw_fd())?;
    add(listener, listening)?;
    let mut conversations = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut buffer = vec![0; BUFFER];
    while !stop.load(Ordering::Relaxed) {
        let ready = match epoll.wait(&mut events, EpollTimeout::from(STOP_INTERVAL)) {
            Err(Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            if event.data() == listening {
                while let Some(conversation) = accept(listener)? {
                    let key = key(conversation.socket.as_raw_fd())?;
                    add(&conversation.socket, key)?;
                    conversations.insert(key, conversation);
                }
                continue;
            }
            let goes_on = conversations
                .get_mut(&event.data())
                .map(|conversation: &mut Conversation| conversation.receive(&mut buffer, hellos));
            match goes_on {
                Some(Ok(true)) => {}
                // Closing takes it out of the epoll set. A partner that ends its connection, in whatever way, will know why.
                Some(Ok(false)) => {
                    conversations.remove(&event.data());
                }
                Some(Err(error)) => {
                    conversations.remove(&event.data());
                    let io = error.downcast_ref::<io::Error>().map(io::Error::kind);
                    if !matches!(io, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)) {
                        eprintln!("a connection to an Edge failed: {error:#}");
                    }
                }
                // Closed, but for a process that is being started and has a copy of its descriptor until it runs.
                None => {}
            }
        }
    }
    refuse(listener)
}

fn accept(listener: &TcpListener) -> Result<Option<Conversation>> {
    let socket = match listener.accept() {
        Ok((socket, _)) => socket,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::ConnectionAborted
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error).context("accepting a connection"),
    };
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let stage = Stage::Hello(Vec::new());
    Ok(Some(Conversation { socket, stage }))
}

struct Conversation {
    socket: TcpStream,
    stage: Stage,
}

enum Stage {
    /// What has come of the hello so far.
    Hello(Vec<u8>),
    /// The hello has been answered.
    Request(Vec<u8>),
    Echo,
    /// Up to the first byte that is not zero; so many until now.
    Count(u64),
    Counted,
}

impl Conversation {
    /// Takes what has come; `false` at the end.
    fn receive(&mut self, buffer: &mut [u8], hellos: &AtomicU64) -> Result<bool> {
        let length = match self.socket.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let bytes = &buffer[..length];
        match &mut self.stage {
            Stage::Echo => send(&mut self.socket, bytes)?,
            Stage::Count(count) => {
                *count += length as u64;
                if bytes.last() != Some(&0) {
                    send(&mut self.socket, &count.to_be_bytes())?;
                    self.stage = Stage::Counted;
                }
            }
            Stage::Counted => bail!("{length} bytes more than the last"),
            Stage::Hello(hello) => {
                hello.extend_from_slice(bytes);
                if let Some(greeting) = complete(hello)? {
                    hellos.fetch_add(1, Ordering::SeqCst);
                    send(&mut self.socket, &greeting)?;
                    self.stage = Stage::Request(Vec::new());
                }
            }
            Stage::Request(request) => {
                request.extend_from_slice(bytes);
                if let Some(bytes) = request.first_chunk::<REQUEST_LENGTH>() {
                    let rest = request[REQUEST_LENGTH..].to_vec();
                    self.stage = match Request::decode(bytes)?.action {
                        Action::Echo => Stage::Echo,
                        Action::Count => Stage::Count(rest.len() as u64),
                        other => bail!("a stream's Edge does not do {other:?}"),
                    };
                    if matches!(self.stage, Stage::Echo) {
                        send(&mut self.socket, &rest)?;
                    }
                }
            }
        }
        Ok(true)
    }
}

/// The header of the hello's record, once all of it is there. Its partner sends nothing more before it is answered.
fn complete(hello: &[u8]) -> Result<Option<[u8; GREETING]>> {
    let Some(&header @ [_, _, _, high, low]) = hello.first_chunk() else {
        return Ok(None);
    };
    let whole = GREETING + usize::from(u16::from_be_bytes([high, low]));
    if hello.len() > whole {
        bail!("{} bytes where {whole} of a hello should be", hello.len());
    }
    Ok((hello.len() == whole).then_some(header))
}

/// Waits while the socket has no room, and everybody else with it: a partner has one message under way, so that there always is.
fn send(socket: &mut TcpStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut descriptors = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                poll(&mut descriptors, PollTimeout::from(STOP_INTERVAL))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_complete_at_the_end_of_its_record() -> Result<()> {
        let hello = [22, 3, 1, 0, 2, 9, 9];
        for length in 0..hello.len() {
            assert_eq!(complete(&hello[..length])?, None);
        }
        assert_eq!(complete(&hello)?, Some([22, 3, 1, 0, 2]));
        assert!(complete(&[22, 3, 1, 0, 1, 9, 9]).is_err());
        Ok(())
    }
}
