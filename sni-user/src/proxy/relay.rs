//! Passing bytes on, in both directions, without looking at them.
//!
//! splice(2) moves pages from socket to pipe to socket and copies nothing to this process. A pipe is borrowed only while bytes are in it,
//! so that a silent connection owns two sockets and nothing else.

use std::{
    io,
    os::fd::OwnedFd,
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{Either, select};
use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep, sleep_until},
};

use super::socket;

/// What a pipe holds: enough for a window of a fast connection, within what an unprivileged process may have.
const PIPE: usize = 256 * 1024;
/// How long to wait for a pipe when there are no more file descriptors.
const NO_PIPE: Duration = Duration::from_millis(50);
/// Pipes that are kept for the next bytes.
const SPARE_PIPES: usize = 64;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides have closed.
    Closed,
    /// One side has reset it, or vanished; the other one was reset.
    Reset,
    /// Neither has said anything for `idle_timeout`.
    Idle,
}

/// What was passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relayed {
    /// Bytes from the client to the Edge.
    pub(crate) to_edge: u64,
    /// Bytes from the Edge to the client.
    pub(crate) to_client: u64,
    /// How it ended.
    pub(crate) end: End,
}

/// Passes bytes on until both sides have closed. One side's close is passed on at once, and the other side may go on for as long as it likes.
pub(crate) async fn relay(client: TcpStream, edge: TcpStream, idle: Duration) -> Relayed {
    let activity = Activity::new();
    let (to_edge, to_client) = (AtomicU64::new(0), AtomicU64::new(0));
    let both = async {
        let up = pin!(one_way(&client, &edge, &to_edge, &activity));
        let down = pin!(one_way(&edge, &client, &to_client, &activity));
        // Who has closed one direction is not read from any more, but may still break the other one.
        match select(up, down).await {
            Either::Left((up, down)) => {
                up?;
                select(down, pin!(broken(&client))).await.factor_first().0
            }
            Either::Right((down, up)) => {
                down?;
                select(up, pin!(broken(&edge))).await.factor_first().0
            }
        }
    };
    let end = tokio::select! {
        done = both => match done {
            Ok(()) => End::Closed,
            Err(_) => End::Reset,
        },
        () = activity.silence(idle) => End::Idle,
    };
    if end != End::Closed {
        // Who is still there learns at once that the other one is not.
        socket::reset_on_close(&client);
        socket::reset_on_close(&edge);
    }
    Relayed {
        to_edge: to_edge.into_inner(),
        to_client: to_client.into_inner(),
        end,
    }
}

/// Waits until a connection is broken.
async fn broken(stream: &TcpStream) -> io::Result<()> {
    stream.ready(Interest::ERROR).await?;
    Err(io::ErrorKind::ConnectionReset.into())
}

/// Passes on what `from` sends, and its end.
async fn one_way(
    from: &TcpStream,
    to: &TcpStream,
    passed: &AtomicU64,
    activity: &Activity,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        let pipe = Pipe::borrow().await?;
        let filled = from.try_io(Interest::READABLE, || {
            Ok(splice(from, None, &pipe.write, None, PIPE, flags())?)
        });
        match filled {
            Ok(0) => {
                pipe.give_back();
                break;
            }
            Ok(filled) => {
                activity.note();
                pipe.empty(to, filled, passed, activity).await?;
                pipe.give_back();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => pipe.give_back(),
            Err(error) => return Err(error),
        }
    }
    match rustix::net::shutdown(to, rustix::net::Shutdown::Write) {
        // The other side has closed completely in the meantime.
        Err(Errno::NOTCONN) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::NONBLOCK | SpliceFlags::MOVE
}

/// A pipe on its way between two sockets. One that is dropped with bytes in it is closed.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Empty pipes, for whichever connection has something to pass on.
static SPARE: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

impl Pipe {
    /// An empty pipe. When there are no more file descriptors, the bytes wait until another connection has returned one.
    async fn borrow() -> io::Result<Self> {
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
    fn give_back(self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_PIPES {
            spare.push(self);
        }
    }

    /// Sends the `filled` bytes that are in it.
    async fn empty(
        &self,
        to: &TcpStream,
        filled: usize,
        passed: &AtomicU64,
        activity: &Activity,
    ) -> io::Result<()> {
        let mut left = filled;
        while left > 0 {
            to.writable().await?;
            let sent = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.read, None, to, None, left, flags())?)
            });
            match sent {
                Ok(sent) => {
                    left -= sent;
                    passed.fetch_add(sent as u64, Ordering::Relaxed);
                    activity.note();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// When a connection last carried something.
pub(crate) struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// It carries something now.
    pub(crate) fn note(&self) {
        let now = self.start.elapsed().as_millis();
        self.last.store(now as u64, Ordering::Relaxed);
    }

    /// Waits until it has been silent for so long.
    pub(crate) async fn silence(&self, idle: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let due = self.start + last + idle;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream},
        thread,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// A connection: its far end blocks, its near end is the relay's.
    fn connection() -> (StdStream, TcpStream) {
        let listener = StdListener::bind("127.0.0.1:0").expect("a listener");
        let far = StdStream::connect(listener.local_addr().expect("its address")).expect("far");
        let (near, _) = listener.accept().expect("near");
        near.set_nonblocking(true).expect("a socket");
        (far, TcpStream::from_std(near).expect("a runtime"))
    }

    fn bytes(count: usize, seed: u8) -> Vec<u8> {
        (0..count).map(|n| (n / 7) as u8 ^ n as u8 ^ seed).collect()
    }

    #[tokio::test]
    async fn both_directions_at_once_and_a_late_answer() {
        let (client, near_client) = connection();
        let (edge, near_edge) = connection();
        let relay = tokio::spawn(relay(near_client, near_edge, LONG));
        let (up, down) = (bytes(3_000_000, 1), bytes(2_000_000, 2));
        let (up_too, down_too) = (up.clone(), down.clone());
        let server = thread::spawn(move || {
            let mut edge = edge;
            let mut received = Vec::new();
            // To the end: the client has closed its direction, and the answer comes after that.
            edge.read_to_end(&mut received).expect("all that was sent");
            assert!(received == up_too);
            edge.write_all(&down_too).expect("a late answer");
        });
        let far = thread::spawn(move || {
            let mut client = client;
            client.write_all(&up).expect("the request");
            client.shutdown(Shutdown::Write).expect("half a close");
            let mut received = Vec::new();
            client.read_to_end(&mut received).expect("the answer");
            assert!(received == down);
        });
        let relayed = relay.await.expect("no panic");
        server.join().expect("the server");
        far.join().expect("the client");
        assert_eq!(
            (relayed.to_edge, relayed.to_client, relayed.end),
            (3_000_000, 2_000_000, End::Closed)
        );
    }

    #[tokio::test]
    async fn a_reset_is_passed_on() {
        let (client, near_client) = connection();
        let (mut edge, near_edge) = connection();
        let relay = tokio::spawn(relay(near_client, near_edge, LONG));
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .expect("a socket");
        drop(client);
        assert_eq!(relay.await.expect("no panic").end, End::Reset);
        let error = edge.read(&mut [0; 1]).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_reset_after_half_a_close_is_passed_on() {
        let (client, near_client) = connection();
        let (mut edge, near_edge) = connection();
        let relay = tokio::spawn(relay(near_client, near_edge, LONG));
        client.shutdown(Shutdown::Write).expect("half a close");
        let edge = tokio::task::spawn_blocking(move || {
            assert_eq!(edge.read(&mut [0; 1]).expect("the end"), 0);
            edge
        });
        let mut edge = edge.await.expect("the Edge");
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .expect("a socket");
        drop(client);
        assert_eq!(relay.await.expect("no panic").end, End::Reset);
        // It has read the end already; that nobody listens any more shows when it speaks.
        let error = edge.write_all(b"late").expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn silence_ends_it_and_words_do_not() {
        let (mut client, near_client) = connection();
        let (mut edge, near_edge) = connection();
        let idle = Duration::from_secs(2);
        let relay = tokio::spawn(relay(near_client, near_edge, idle));
        let talk = thread::spawn(move || {
            for _ in 0..8 {
                client.write_all(b"x").expect("a word");
                edge.read_exact(&mut [0]).expect("a word");
                thread::sleep(Duration::from_millis(100));
            }
            (client, edge)
        });
        let relayed = relay.await.expect("no panic");
        let (mut client, _edge) = talk.join().expect("they talk");
        assert_eq!((relayed.end, relayed.to_edge), (End::Idle, 8));
        assert!(client.read(&mut [0; 1]).is_err(), "a reset");
    }
}
