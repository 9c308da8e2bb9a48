//! Many of a test's peers at the same time.

use std::{
    panic::resume_unwind,
    thread::{self, ScopedJoinHandle},
};

use anyhow::Result;

/// A thread for each item, and the first error of any.
///
/// # Errors
/// The body's.
pub fn at_once<T: Sync>(items: &[T], body: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let body = &body;
        let start = |item| scope.spawn(move || body(item));
        let threads: Vec<_> = items.iter().map(start).collect();
        let result = |thread: ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().try_for_each(result)
    })
}
