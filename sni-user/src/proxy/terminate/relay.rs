//! Bytes both ways between two decrypted streams.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{client, server};

use super::TerminateError;
use crate::proxy::Progress;

/// How long a stream may take to say that it ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// A decrypted stream that can be relayed.
pub trait Leg: AsyncBufRead + AsyncWrite + Unpin {
    /// Ends what is written without saying that it is complete: the other side's own stream was cut off.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

macro_rules! leg {
    ($($stream:ty),+) => {$(
        impl<S: AsyncRead + AsyncWrite + Unpin> Leg for $stream {
            fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                ready!(Pin::new(&mut *self).poll_flush(context))?;
                // The connection's end below, without TLS's close_notify.
                Pin::new(self.get_mut().0).poll_shutdown(context)
            }
        }
    )+};
}
leg!(client::TlsStream<S>, server::TlsStream<S>);

/// What was relayed, and how it ended.
#[derive(Debug)]
pub struct Relayed {
    /// Bytes from the partner, decrypted.
    pub to_edge: u64,
    /// Bytes from the Edge, decrypted.
    pub to_partner: u64,
    /// Why it is over.
    pub end: End,
}

/// Why a relayed connection is over.
#[derive(Debug)]
pub enum End {
    /// Both directions have ended.
    Complete,
    /// Nothing came either way for too long.
    Idle,
    /// The partner's connection failed.
    Partner(TerminateError),
    /// The Edge's connection failed; in TLS 1.3 also by its refusal of the gateway's certificate.
    Edge(TerminateError),
}

/// Relays until both directions have ended, one has failed, or nothing has come for `idle`.
///
/// A direction that ends is ended on the other side, while the other direction goes on: with close_notify where the sender said that it was
/// complete, without where it did not, so that a stream that somebody cut off does not pass for a whole one. There is no buffer in between:
/// a record that one side decrypts is encrypted for the other from where it lies, and is read only when the other takes it.
pub async fn relay<P: Leg, E: Leg>(
    partner: &mut P,
    edge: &mut E,
    idle: Duration,
    progress: &Progress,
) -> Relayed {
    let mut to_edge = Direction::default();
    let mut to_partner = Direction::default();
    let mut last = Instant::now();
    let mut alarm = pin!(sleep_until(last + idle));
    let end = poll_fn(|context| {
        let before = to_edge.bytes + to_partner.bytes;
        let there = to_edge.pump(context, partner, edge);
        let back = to_partner.pump(context, edge, partner);
        progress.to_edge.store(to_edge.bytes, Relaxed);
        progress.to_client.store(to_partner.bytes, Relaxed);
        match (there, back) {
            (Poll::Ready(Err(Fault::Read(error))), _)
            | (_, Poll::Ready(Err(Fault::Write(error)))) => {
                return Poll::Ready(End::Partner(TerminateError::partner(error)));
            }
            (Poll::Ready(Err(Fault::Write(error))), _)
            | (_, Poll::Ready(Err(Fault::Read(error)))) => {
                return Poll::Ready(End::Edge(TerminateError::edge(error)));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Complete),
            _ => {}
        }
        if to_edge.bytes + to_partner.bytes > before {
            last = Instant::now();
            progress.activity.note();
        }
        // Set again when it rings, not with every byte.
        while alarm.as_mut().poll(context).is_ready() {
            if last + idle <= Instant::now() {
                return Poll::Ready(End::Idle);
            }
            alarm.as_mut().reset(last + idle);
        }
        Poll::Pending
    })
    .await;
    if let End::Idle = end {
        // Both get the time; what comes of it changes nothing.
        let _ = timeout(GOODBYE, async {
            tokio::join!(partner.shutdown(), edge.shutdown())
        })
        .await;
    }
    Relayed {
        to_edge: to_edge.bytes,
        to_partner: to_partner.bytes,
        end,
    }
}

#[derive(Default)]
struct Direction {
    bytes: u64,
    state: State,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Open,
    Ending,
    /// The sender has not said that it was complete.
    Cut,
    Ended,
}

enum Fault {
    Read(io::Error),
    Write(io::Error),
}

impl Direction {
    fn pump(
        &mut self,
        context: &mut Context<'_>,
        from: &mut impl Leg,
        to: &mut impl Leg,
    ) -> Poll<Result<(), Fault>> {
        loop {
            match self.state {
                State::Open => match Pin::new(&mut *from).poll_fill_buf(context) {
                    Poll::Pending => {
                        if let Poll::Ready(Err(error)) = Pin::new(&mut *to).poll_flush(context) {
                            return Poll::Ready(Err(Fault::Write(error)));
                        }
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok([])) => self.state = State::Ending,
                    Poll::Ready(Ok(bytes)) => {
                        let written = match ready!(Pin::new(&mut *to).poll_write(context, bytes)) {
                            Ok(0) => {
                                return Poll::Ready(Err(Fault::Write(
                                    io::ErrorKind::WriteZero.into(),
                                )));
                            }
                            Ok(written) => written,
                            Err(error) => return Poll::Ready(Err(Fault::Write(error))),
                        };
                        Pin::new(&mut *from).consume(written);
                        self.bytes += written as u64;
                    }
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        self.state = State::Cut;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Read(error))),
                },
                State::Ending => {
                    let ended = ready!(Pin::new(&mut *to).poll_shutdown(context));
                    self.end(ended)?;
                }
                State::Cut => {
                    let ended = ready!(to.poll_cut(context));
                    self.end(ended)?;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// A receiver that has closed already can't be told, and need not be.
    fn end(&mut self, told: io::Result<()>) -> Result<(), Fault> {
        match told {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotConnected
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(Fault::Write(error))
            }
            _ => {
                self.state = State::Ended;
                Ok(())
            }
        }
    }
}
