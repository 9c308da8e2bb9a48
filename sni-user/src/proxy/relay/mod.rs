//! Passing bytes on, in both directions, without looking at them.
//!
//! Bulk goes by splice(2), which moves pages from socket to pipe to socket and copies nothing to this process. A pipe is borrowed only while
//! bytes are in it. A message goes by a read and a write through a buffer of the thread: copying a kilobyte costs less than the pipe, and
//! less than the third splice, which finds nothing, that would have to follow: a read that does not fill its buffer has emptied the socket,
//! and a splice tells no such thing. Either way a silent connection owns two sockets and nothing else.

mod activity;
mod onward;
mod pausing;
mod pipe;
#[cfg(test)]
mod tests;

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::future::{Either, select};
use rustix::io::Errno;
use tokio::{io::Interest, net::TcpStream};

pub(super) use self::activity::Activity;
use self::{
    onward::{MESSAGE, Onward, Taken},
    pausing::{Pausing, PausingOneWay},
};
use super::{carried::Progress, socket};

/// Who sends as much without a pause is expected to go on.
const BULK: usize = 4 * MESSAGE;

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
