//! Passing bytes on, in both directions, without looking at them.
//!
//! Bulk goes by splice(2), which moves pages from socket to pipe to socket and copies nothing to this process. A pipe is borrowed only while
//! bytes are in it. A message goes by a read and a write through a buffer of the thread: copying a kilobyte costs less than the pipe, and
//! less than the third splice, which finds nothing, that would have to follow: a read that does not fill its buffer has emptied the socket,
//! and a splice tells no such thing. Either way a silent connection owns two sockets and nothing else.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::future::{Either, select};
use rustix::{
    io::Errno,
    net::{SendFlags, send},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep, sleep_until},
};

use super::{carried::Progress, socket};

/// What a pipe holds: enough for a window of a fast connection, within what an unprivileged process may have.
const PIPE: usize = 256 * 1024;
/// What a message fits into; a TLS record does, with its header.
const MESSAGE: usize = 17 * 1024;
/// Who sends as much without a pause is expected to go on.
const BULK: usize = 4 * MESSAGE;
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
    /// It goes on, but not here: no bytes are on their way, and both streams are as they were.
    Paused,
}

/// What was passed on by one relay; what a connection has carried in all is its progress.
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
///
/// When `pause` is over, it ends as soon as no bytes are on their way, unless one side has closed its direction.
pub(crate) async fn relay(
    client: &TcpStream,
    edge: &TcpStream,
    idle: Duration,
    pause: impl Future<Output = ()>,
    progress: &Progress,
) -> Relayed {
    let Progress {
        to_edge,
        to_client,
        activity,
    } = progress;
    let before = [to_edge, to_client].map(|bytes| bytes.load(Ordering::Relaxed));
    activity.note();
    let pausing = Pausing::default();
    let both = async {
        let up = pin!(one_way(client, edge, to_edge, activity, pausing.of(0)));
        let down = pin!(one_way(edge, client, to_client, activity, pausing.of(1)));
        // Who has closed one direction is not read from any more, but may still break the other one.
        match select(up, down).await {
            Either::Left((Ok(OneWay::Paused), down)) => down.await,
            Either::Right((Ok(OneWay::Paused), up)) => up.await,
            Either::Left((up, down)) => {
                up?;
                select(down, pin!(broken(client))).await.factor_first().0
            }
            Either::Right((down, up)) => {
                down?;
                select(up, pin!(broken(edge))).await.factor_first().0
            }
        }
    };
    let end = {
        let (mut both, mut pause) = (pin!(both), pin!(pause));
        let mut silence = pin!(activity.silence(idle));
        loop {
            tokio::select! {
                done = &mut both => break match done {
                    Ok(OneWay::Ended) => End::Closed,
                    Ok(OneWay::Paused) => End::Paused,
                    Err(_) => End::Reset,
                },
                () = &mut silence => break End::Idle,
                // The next turn of the loop looks at both directions again.
                () = &mut pause, if !pausing.is_asked() => pausing.ask(),
            }
        }
    };
    if matches!(end, End::Reset | End::Idle) {
        // Who is still there learns at once that the other one is not.
        socket::reset_on_close(client);
        socket::reset_on_close(edge);
    }
    Relayed {
        to_edge: to_edge.load(Ordering::Relaxed) - before[0],
        to_client: to_client.load(Ordering::Relaxed) - before[1],
        end,
    }
}

/// Waits until a connection is broken.
async fn broken(stream: &TcpStream) -> io::Result<OneWay> {
    stream.ready(Interest::ERROR).await?;
    Err(io::ErrorKind::ConnectionReset.into())
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OneWay {
    /// Its sender has closed it.
    Ended,
    /// It was asked to.
    Paused,
}

/// Whether the relay is to stop when no bytes are on their way, which both directions must agree on.
#[derive(Debug, Default)]
struct Pausing {
    asked: AtomicBool,
    /// Whether bytes are on their way, or no more will be: by direction.
    busy: [AtomicBool; 2],
}

impl Pausing {
    fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn of(&self, direction: usize) -> PausingOneWay<'_> {
        PausingOneWay {
            pausing: self,
            direction,
        }
    }
}

/// The same, as one direction sees it. Both are polled by one task, in which nothing comes between a look and what follows from it.
struct PausingOneWay<'a> {
    pausing: &'a Pausing,
    direction: usize,
}

impl PausingOneWay<'_> {
    fn is_busy(&self, busy: bool) {
        self.pausing.busy[self.direction].store(busy, Ordering::Relaxed);
    }

    /// Waits until this direction, which has no bytes on their way, should stop. The task is woken by whatever it waits for besides.
    async fn due(&self) {
        poll_fn(|_| {
            let other = &self.pausing.busy[1 - self.direction];
            if self.pausing.is_asked() && !other.load(Ordering::Relaxed) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// Passes on what `from` sends, and its end.
async fn one_way(
    from: &TcpStream,
    to: &TcpStream,
    passed: &AtomicU64,
    activity: &Activity,
    pausing: PausingOneWay<'_>,
) -> io::Result<OneWay> {
    let onward = Onward {
        to,
        passed,
        activity,
    };
    let mut bulk = false;
    // Bytes since `from` was last found to be empty.
    let mut burst = 0;
    loop {
        pausing.is_busy(false);
        tokio::select! {
            biased;
            () = pausing.due() => return Ok(OneWay::Paused),
            ready = from.readable() => ready?,
        }
        pausing.is_busy(true);
        let taken = if bulk {
            onward.splice(from).await?
        } else {
            onward.copy(from).await?
        };
        match taken {
            Taken::End => break,
            Taken::Some(bytes) => {
                burst += bytes;
                bulk |= burst >= MESSAGE;
            }
            Taken::All(bytes) => {
                bulk = burst + bytes >= BULK;
                burst = 0;
            }
        }
    }
    match rustix::net::shutdown(to, rustix::net::Shutdown::Write) {
        // The other side has closed completely in the meantime.
        Err(Errno::NOTCONN) | Ok(()) => Ok(OneWay::Ended),
        Err(error) => Err(error.into()),
    }
}

/// What there was to pass on.
enum Taken {
    /// So many bytes, and perhaps more.
    Some(usize),
    /// So many bytes, or none, and no more for now.
    All(usize),
    /// The end.
    End,
}

/// One direction's far end.
struct Onward<'a> {
    to: &'a TcpStream,
    passed: &'a AtomicU64,
    activity: &'a Activity,
}

thread_local! {
    /// Holds nothing from one call to the next.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; MESSAGE].into_boxed_slice());
}

impl Onward<'_> {
    /// By a pipe.
    async fn splice(&self, from: &TcpStream) -> io::Result<Taken> {
        let pipe = Pipe::borrow().await?;
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
    async fn copy(&self, from: &TcpStream) -> io::Result<Taken> {
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
}

/// When a connection last carried something.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Activity {
    /// Milliseconds for which it has carried nothing.
    pub(crate) fn silent_ms(&self) -> u64 {
        let now = self.start.elapsed().as_millis() as u64;
        now.saturating_sub(self.last.load(Ordering::Relaxed))
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

    async fn to_the_end(client: TcpStream, edge: TcpStream, idle: Duration) -> Relayed {
        relay(
            &client,
            &edge,
            idle,
            std::future::pending(),
            &Progress::default(),
        )
        .await
    }

    fn bytes(count: usize, seed: u8) -> Vec<u8> {
        (0..count).map(|n| (n / 7) as u8 ^ n as u8 ^ seed).collect()
    }

    #[tokio::test]
    async fn both_directions_at_once_and_a_late_answer() {
        let (client, near_client) = connection();
        let (edge, near_edge) = connection();
        let relay = tokio::spawn(to_the_end(near_client, near_edge, LONG));
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
    async fn messages_of_all_sizes_for_a_slow_reader() {
        let (mut client, near_client) = connection();
        let (mut edge, near_edge) = connection();
        let relay = tokio::spawn(to_the_end(near_client, near_edge, LONG));
        // Around what fits into the buffer, and what counts as bulk; more in all than the sockets hold.
        let sizes = [1, 900, MESSAGE - 1, MESSAGE, MESSAGE + 1, BULK, 2 * PIPE, 5];
        let sent = bytes(sizes.iter().sum::<usize>() * 20, 3);
        let expected = sent.clone();
        let far = thread::spawn(move || {
            let mut left = &sent[..];
            for size in sizes.iter().cycle().take(sizes.len() * 20) {
                let (message, rest) = left.split_at(*size);
                client.write_all(message).expect("a message");
                left = rest;
                // Some arrive alone, some together.
                if size % 2 == 1 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            let mut piece = vec![0; 200_000];
            loop {
                thread::sleep(Duration::from_millis(2));
                match edge.read(&mut piece).expect("bytes") {
                    0 => break,
                    length => received.extend_from_slice(&piece[..length]),
                }
            }
            assert!(received == expected);
        });
        let relayed = relay.await.expect("no panic");
        far.join().expect("the client");
        reader.join().expect("every byte in its order");
        assert_eq!(relayed.end, End::Closed);
    }

    #[tokio::test]
    async fn a_reset_is_passed_on() {
        let (client, near_client) = connection();
        let (mut edge, near_edge) = connection();
        let relay = tokio::spawn(to_the_end(near_client, near_edge, LONG));
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
        let relay = tokio::spawn(to_the_end(near_client, near_edge, LONG));
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
        let relay = tokio::spawn(to_the_end(near_client, near_edge, idle));
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
