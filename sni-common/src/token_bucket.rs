//! A token bucket in integers, for budgets per source.

/// A bucket: `tokens` are thousandths, so that slow rates refill smoothly.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBucket {
    /// Clock of the last refill, nanoseconds.
    pub refilled_ns: u64,
    /// Tokens left, in thousandths.
    pub millitokens: u64,
}

crate::contract::wire_struct!(TokenBucket, 16);

const WHOLE: u64 = 1000;
const MAX_ELAPSED_US: u64 = 3_600_000_000;

impl TokenBucket {
    /// A full bucket from which one token has been taken, as a source has after its first packet.
    #[inline(always)]
    pub const fn first_taken(now_ns: u64, burst: u32) -> Self {
        Self {
            refilled_ns: now_ns,
            millitokens: (burst as u64 * WHOLE).saturating_sub(WHOLE),
        }
    }

    /// Refills for the time since the last call, at `millirate` thousandths of a token per second, and takes one token; `false` when
    /// there is none.
    ///
    /// Two CPUs may race and both take the last token: the budget is off by one packet per CPU at most, and no lock is held.
    #[inline(always)]
    pub const fn take(&mut self, now_ns: u64, millirate: u32, burst: u32) -> bool {
        // The coarse clock may differ between CPUs by a tick. An hour at most, so that the product fits.
        let elapsed_us = now_ns.saturating_sub(self.refilled_ns) / 1000;
        let elapsed_us = if elapsed_us > MAX_ELAPSED_US {
            MAX_ELAPSED_US
        } else {
            elapsed_us
        };
        let capacity = burst as u64 * WHOLE;
        let refill = elapsed_us * millirate as u64 / 1_000_000;
        // A refill of less than a thousandth must not move the clock, or a fast sender would starve itself for ever.
        if refill > 0 {
            self.refilled_ns = now_ns;
            let filled = self.millitokens + refill;
            self.millitokens = if filled > capacity { capacity } else { filled };
        }
        if self.millitokens < WHOLE {
            return false;
        }
        self.millitokens -= WHOLE;
        true
    }

    /// Returns a token that was taken, up to a full bucket.
    #[inline(always)]
    pub const fn give_back(&mut self, burst: u32) {
        let capacity = burst as u64 * WHOLE;
        let filled = self.millitokens.saturating_add(WHOLE);
        self.millitokens = if filled > capacity { capacity } else { filled };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = TokenBucket::first_taken(0, 5);
        assert_eq!((0..10).filter(|_| bucket.take(0, 10_000, 5)).count(), 4);
        // 10 per second for one second, asked 1000 times.
        let taken = (1..=1000u64)
            .filter(|ms| bucket.take(ms * 1_000_000, 10_000, 5))
            .count();
        assert_eq!(taken, 10);
    }

    #[test]
    fn slow_rates_refill_too() {
        // 30 per minute.
        let mut bucket = TokenBucket::first_taken(0, 1);
        let taken = (1..=600u64)
            .filter(|tenth| bucket.take(tenth * 100_000_000, 500, 1))
            .count();
        assert_eq!(taken, 30);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(rate in 1u32..10_000, burst in 1u32..10_000, steps in prop::collection::vec(0u64..50_000_000, 1..500)) {
            let mut bucket = TokenBucket::first_taken(0, burst);
            let mut now = 0;
            let mut taken = 1u64;
            for step in steps {
                now += step;
                taken += u64::from(bucket.take(now, rate * 1000, burst));
            }
            prop_assert!(taken <= u64::from(burst) + now * u64::from(rate) / 1_000_000_000 + 1);
        }

        #[test]
        fn a_clock_that_steps_back_is_harmless(a: u64, b: u64, rate: u32, burst: u32) {
            let mut bucket = TokenBucket::first_taken(a, burst);
            bucket.take(b, rate, burst);
            prop_assert!(bucket.millitokens <= u64::from(burst) * 1000);
        }
    }
}
