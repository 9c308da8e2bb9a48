//! What the proxy has counted, by name.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sni_common::token_bucket::TokenBucket;

/// Lines about one reason in a second, at most: a flood must not become a flood of the log.
const LINES_PER_SECOND: u32 = 10;

/// Counters by name, and what each may still say in the log.
#[derive(Debug, Default)]
pub(super) struct Counters {
    by_name: Mutex<BTreeMap<&'static str, Counter>>,
}

#[derive(Debug, Default)]
struct Counter {
    count: u64,
    budget: TokenBucket,
    unsaid: u64,
}

impl Counters {
    /// Adds to a counter.
    pub(super) fn add(&self, name: &'static str, by: u64) {
        self.lock().entry(name).or_default().count += by;
    }

    /// Counts one, and tells whether it may be said at `now_ns` (any steady clock): if so, how many were left unsaid since the last time.
    pub(super) fn note(&self, name: &'static str, now_ns: u64) -> Option<u64> {
        let mut counters = self.lock();
        let counter = counters.entry(name).or_default();
        counter.count += 1;
        if counter
            .budget
            .take(now_ns, LINES_PER_SECOND * 1000, LINES_PER_SECOND)
        {
            return Some(std::mem::take(&mut counter.unsaid));
        }
        counter.unsaid += 1;
        None
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeMap<String, u64> {
        let counters = self.lock();
        counters
            .iter()
            .map(|(name, counter)| ((*name).to_owned(), counter.count))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Counter>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_hardly_said() {
        const HOUR: u64 = 3_600_000_000_000;
        let counters = Counters::default();
        let said = |at| (0..1000).filter_map(|_| counters.note("flood", at)).count();
        assert_eq!(said(HOUR), 10);
        assert_eq!(counters.note("other", HOUR), Some(0));
        // The first line after the pause tells how many there were in between.
        assert_eq!(counters.note("flood", 2 * HOUR), Some(990));
        counters.add("bytes", 7);
        let all = counters.all();
        assert_eq!((all["flood"], all["bytes"], all["other"]), (1001, 7, 1));
    }
}
