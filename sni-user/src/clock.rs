//! The clock that the datapath goes by.

use rustix::time::{ClockId, clock_gettime};

/// The clock of the datapath: CLOCK_MONOTONIC, of which it reads the coarse variant.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
