//! What the check itself has open, counted.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde::Serialize;

/// Things of one kind: how many there are, were at most, and have been altogether.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

/// What a `Gauge` has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Altogether.
    pub all: usize,
    /// At once.
    pub most: usize,
}

impl Gauge {
    /// One more, until the guard is dropped.
    pub(super) fn enter(&self) -> Inside<'_> {
        self.all.fetch_add(1, Relaxed);
        let now = self.now.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
        Inside(self)
    }

    pub(super) fn counted(&self) -> Counted {
        Counted {
            all: self.all.load(Relaxed),
            most: self.most.load(Relaxed),
        }
    }
}

/// One that is counted.
pub(super) struct Inside<'a>(&'a Gauge);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Relaxed);
    }
}
