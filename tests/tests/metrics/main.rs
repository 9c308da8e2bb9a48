//! What the agent tells Prometheus, and the log of connections: that it is true, complete, described and bounded, and that nothing waits for it.

mod alerts;
mod bounded;
mod described;
mod load;
mod log;
mod promtool;
mod scene;
mod scrape;
mod ways;

use std::{path::PathBuf, time::Duration};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}
