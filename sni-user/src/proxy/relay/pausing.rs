//! Stopping a relay between two bytes, so that the datapath can be asked to go on with the connection.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

/// Whether the relay is to stop when no bytes are on their way, which both directions must agree on.
#[derive(Debug, Default)]
pub(super) struct Pausing {
    asked: AtomicBool,
    /// Whether bytes are on their way, or no more will be: by direction.
    busy: [AtomicBool; 2],
}

impl Pausing {
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn of(&self, direction: usize) -> PausingOneWay<'_> {
        PausingOneWay {
            pausing: self,
            direction,
        }
    }
}

/// The same, as one direction sees it. Both are polled by one task, in which nothing comes between a look and what follows from it.
pub(super) struct PausingOneWay<'a> {
    pausing: &'a Pausing,
    direction: usize,
}

impl PausingOneWay<'_> {
    pub(super) fn is_busy(&self, busy: bool) {
        self.pausing.busy[self.direction].store(busy, Ordering::Relaxed);
    }

    /// Waits until this direction, which has no bytes on their way, should stop. The task is woken by whatever it waits for besides.
    pub(super) async fn due(&self) {
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
