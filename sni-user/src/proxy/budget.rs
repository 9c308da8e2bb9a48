//! How many connections one source, and one prefix, may leave without a complete ClientHello.
//!
//! A connection takes from its source's and its prefix's budget when its ClientHello is late, and gives back when it is complete after all; one that ends without
//! has lost it. So the budget bounds those that wait as well as those that have given up, and an honest client pays nothing, not even behind an
//! address that many share.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;
use sni_common::{
    Address,
    contract::{BudgetKey, BudgetKind},
    token_bucket::TokenBucket,
};

use crate::config::{IpNet, Limits, Rate};

/// Sources and prefixes that are remembered. The one forgotten first is the one not seen for longest; it starts again with a full budget.
const BUCKETS: NonZeroUsize = NonZeroUsize::new(131_072).unwrap();

/// Budgets of sources and of prefixes.
#[derive(Debug)]
pub(super) struct Budgets {
    buckets: Mutex<LruCache<BudgetKey, TokenBucket>>,
}

/// What the budgets go by; part of a configuration.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    source: Refill,
    prefix: Refill,
    exempt: Vec<IpNet>,
}

/// How a bucket fills.
#[derive(Clone, Copy, Debug)]
struct Refill {
    millirate: u32,
    burst: u32,
}

/// A connection's part of its source's and its prefix's budget. Dropped, it is lost; see [`Claim::give_back`].
#[derive(Debug)]
pub(super) struct Claim {
    taken: Option<(Arc<Budgets>, Taken)>,
}

/// The buckets of a source and of its prefix.
type Taken = [(BudgetKey, Refill); 2];

impl Allowance {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            source: limits.hello_per_source.into(),
            prefix: limits.hello_per_prefix.into(),
            exempt: limits.allow.clone(),
        }
    }

    /// The buckets that a connection from here takes from.
    fn buckets(&self, source: Address) -> Taken {
        let bucket = |source, kind: BudgetKind, refill| {
            let kind = kind as u32;
            (BudgetKey { source, kind }, refill)
        };
        [
            bucket(source.source_group(), BudgetKind::Hello, self.source),
            bucket(source.source_prefix(), BudgetKind::HelloPrefix, self.prefix),
        ]
    }
}

impl From<Rate> for Refill {
    fn from(rate: Rate) -> Self {
        Self {
            millirate: rate.millirate(),
            burst: rate.count().get(),
        }
    }
}

impl Budgets {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            buckets: Mutex::new(LruCache::new(BUCKETS)),
        })
    }

    /// Takes from the budgets of a source and its prefix at `now_ns` (any steady clock); nothing when one of them is used up.
    pub(super) fn claim(
        self: &Arc<Self>,
        source: IpAddr,
        allowance: &Allowance,
        now_ns: u64,
    ) -> Option<Claim> {
        if allowance.exempt.iter().any(|net| net.contains(&source)) {
            return Some(Claim { taken: None });
        }
        let wanted = allowance.buckets(source.into());
        let mut buckets = self.lock();
        for (index, (key, refill)) in wanted.iter().enumerate() {
            let admitted = match buckets.get_mut(key) {
                Some(bucket) => bucket.take(now_ns, refill.millirate, refill.burst),
                None => {
                    buckets.put(*key, TokenBucket::first_taken(now_ns, refill.burst));
                    true
                }
            };
            if !admitted {
                give_back(&mut buckets, &wanted[..index]);
                return None;
            }
        }
        drop(buckets);
        Some(Claim {
            taken: Some((Arc::clone(self), wanted)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<BudgetKey, TokenBucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The ClientHello is complete: source and prefix have their tokens back.
    pub(super) fn give_back(mut self) {
        if let Some((budgets, taken)) = self.taken.take() {
            give_back(&mut budgets.lock(), &taken);
        }
    }
}

fn give_back(buckets: &mut LruCache<BudgetKey, TokenBucket>, taken: &[(BudgetKey, Refill)]) {
    for (key, refill) in taken {
        if let Some(bucket) = buckets.get_mut(key) {
            bucket.give_back(refill.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    fn three_per_second() -> Allowance {
        Allowance {
            source: Refill {
                millirate: 3000,
                burst: 3,
            },
            prefix: Refill {
                millirate: 5000,
                burst: 5,
            },
            exempt: vec!["192.0.2.0/24".parse().expect("a prefix")],
        }
    }

    #[test]
    fn who_completes_nothing_is_stopped_and_who_does_never() {
        let (budgets, allowance) = (Budgets::new(), three_per_second());
        let claim = |at| budgets.claim(SOURCE, &allowance, at);
        for _ in 0..1000 {
            claim(SECOND).expect("given back each time").give_back();
        }
        let waiting: Vec<_> = (0..3).map(|_| claim(SECOND).expect("a token")).collect();
        assert!(claim(SECOND).is_none());
        for claim in waiting {
            claim.give_back();
        }
        assert!(claim(SECOND).is_some() && claim(SECOND).is_some() && claim(SECOND).is_some());
        assert!(claim(SECOND).is_none());
        // A third of a second is one token.
        assert!(claim(SECOND + SECOND / 3 + 1_000_000).is_some());
        assert!(claim(SECOND + SECOND / 3 + 1_000_000).is_none());
    }

    #[test]
    fn who_is_refused_for_the_prefix_has_paid_nothing() {
        let (budgets, allowance) = (Budgets::new(), three_per_second());
        let claim = |host: u8, at| budgets.claim([198, 51, 100, host].into(), &allowance, at);
        let waiting: Vec<_> = (1..=5).map(|host| claim(host, SECOND)).collect();
        for _ in 0..10 {
            assert!(claim(9, SECOND).is_none());
        }
        for claim in waiting.into_iter().flatten() {
            claim.give_back();
        }
        for _ in 0..3 {
            assert!(claim(9, SECOND).is_some());
        }
        assert!(claim(9, SECOND).is_none(), "its own budget");
    }

    #[test]
    fn sources_do_not_share_and_some_are_exempt() {
        let (budgets, allowance) = (Budgets::new(), three_per_second());
        let claim =
            |source: &str| budgets.claim(source.parse().expect("an address"), &allowance, SECOND);
        for _ in 0..3 {
            assert!(claim("198.51.100.1").is_some());
        }
        assert!(claim("198.51.100.1").is_none());
        // A prefix has more than a source, and less than all of its sources.
        assert!(claim("198.51.100.2").is_some() && claim("198.51.100.3").is_some());
        assert!(claim("198.51.100.4").is_none());
        assert!(claim("198.51.101.1").is_some());
        // One IPv6 host has a whole /64.
        for host in 1..=3 {
            assert!(claim(&format!("2001:db8::{host}")).is_some());
        }
        assert!(claim("2001:db8::4").is_none());
        assert!(claim("2001:db8:0:1::4").is_some() && claim("2001:db8:0:2::4").is_some());
        assert!(claim("2001:db8:0:3::4").is_none());
        assert!(claim("2001:db8:1::4").is_some());
        for _ in 0..10 {
            assert!(claim("192.0.2.7").is_some());
        }
    }
}
