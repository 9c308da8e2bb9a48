//! How long a connection has been silent.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

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
