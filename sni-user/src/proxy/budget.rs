//! How many connections one source may leave without a complete ClientHello.
//!
//! A connection takes from its source's budget when its ClientHello is late, and gives back when it is complete after all; one that ends without
//! has lost it. So the budget bounds those that wait as well as those that have given up, and an honest client pays nothing, not even behind an
//! address that many share.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;
use sni_common::{Address, token_bucket::TokenBucket};

use crate::config::{IpNet, Limits};

/// Sources that are remembered. The one forgotten first is the one not seen for longest; it starts again with a full budget.
const SOURCES: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// Budgets by source.
#[derive(Debug)]
pub(super) struct Budgets {
    buckets: Mutex<LruCache<Address, TokenBucket>>,
}

/// What the budgets go by; part of a configuration.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    millirate: u32,
    burst: u32,
    exempt: Vec<IpNet>,
}

/// A connection's part of its source's budget. Dropped, it is lost; see [`Claim::give_back`].
#[derive(Debug)]
pub(super) struct Claim {
    taken: Option<(Arc<Budgets>, Address, u32)>,
}

impl Allowance {
    pub(super) fn new(limits: &Limits) -> Self {
        let rate = limits.hello_per_source;
        Self {
            millirate: rate.millirate(),
            burst: rate.count().get(),
            exempt: limits.allow.clone(),
        }
    }
}

impl Budgets {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            buckets: Mutex::new(LruCache::new(SOURCES)),
        })
    }

    /// Takes from a source's budget at `now_ns` (any steady clock); nothing when it is used up.
    pub(super) fn claim(
        self: &Arc<Self>,
        source: IpAddr,
        allowance: &Allowance,
        now_ns: u64,
    ) -> Option<Claim> {
        if allowance.exempt.iter().any(|net| net.contains(&source)) {
            return Some(Claim { taken: None });
        }
        let group = Address::from(source).source_group();
        let mut buckets = self.lock();
        let admitted = match buckets.get_mut(&group) {
            Some(bucket) => bucket.take(now_ns, allowance.millirate, allowance.burst),
            None => {
                buckets.put(group, TokenBucket::first_taken(now_ns, allowance.burst));
                true
            }
        };
        drop(buckets);
        admitted.then(|| Claim {
            taken: Some((Arc::clone(self), group, allowance.burst)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Address, TokenBucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The ClientHello is complete: the source has its token back.
    pub(super) fn give_back(mut self) {
        if let Some((budgets, group, burst)) = self.taken.take()
            && let Some(bucket) = budgets.lock().get_mut(&group)
        {
            bucket.give_back(burst);
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
            millirate: 3000,
            burst: 3,
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
    fn sources_do_not_share_and_some_are_exempt() {
        let (budgets, allowance) = (Budgets::new(), three_per_second());
        let claim =
            |source: &str| budgets.claim(source.parse().expect("an address"), &allowance, SECOND);
        for _ in 0..3 {
            assert!(claim("198.51.100.1").is_some());
        }
        assert!(claim("198.51.100.1").is_none());
        assert!(claim("198.51.100.2").is_some());
        // One IPv6 host has a whole /64.
        for host in 1..=3 {
            assert!(claim(&format!("2001:db8::{host}")).is_some());
        }
        assert!(claim("2001:db8::4").is_none());
        assert!(claim("2001:db8:0:1::4").is_some());
        for _ in 0..10 {
            assert!(claim("192.0.2.7").is_some());
        }
    }
}
