//! Every wait in the lab ends: either with what it waited for or with a sentence saying what did not happen.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition without a notification of its own is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A point in time by which something must have happened.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    end: Instant,
}

impl Deadline {
    /// The deadline `timeout` from now.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            end: start + timeout,
        }
    }

    /// Time left, zero once it has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Asks `probe` until it answers, or fails naming `what` was waited for.
    ///
    /// # Errors
    /// The probe's own error at once, or a timeout.
    pub fn poll<T>(&self, what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        loop {
            if let Some(answer) = probe()? {
                return Ok(answer);
            }
            if self.expired() {
                bail!("waited {:?} in vain for {what}", self.end - self.start);
            }
            std::thread::sleep(POLL_INTERVAL.min(self.remaining()));
        }
    }
}
