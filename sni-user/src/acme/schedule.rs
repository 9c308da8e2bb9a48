//! When: the next attempt after a failure, and the renewal.

use std::{
    hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _, RandomState},
    time::Duration,
};

use super::error::Kind;
use crate::tls::Facts;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The first pause after a failure, and the longest.
fn bounds(kind: Kind) -> (u64, u64) {
    match kind {
        // Let's Encrypt allows five failed validations of a name in an hour.
        Kind::Refused => (15 * MINUTE, DAY),
        Kind::RateLimited => (HOUR, DAY),
        Kind::Unreachable => (10, HOUR),
        Kind::Pending => (30, HOUR),
        Kind::Local => (MINUTE, HOUR),
    }
}

/// No authority means more than this, and a mistake of its must not stop renewals for good.
const LONGEST_ADVICE: u64 = 7 * DAY;

/// How long to wait after so many failures in a row: twice as long each time, a quarter more or less so that gateways and domains that failed together
/// don't come together, and never less than what the authority has asked for.
pub(super) fn pause(kind: Kind, failures: u32, advice: Option<Duration>) -> Duration {
    let (first, longest) = bounds(kind);
    let doublings = failures.saturating_sub(1).min(20);
    let plain = first.saturating_mul(1 << doublings).min(longest);
    let jittered = plain * 3 / 4 + random() % (plain / 2).max(1);
    let advised = advice.map_or(0, |advice| advice.as_secs().min(LONGEST_ADVICE));
    // Everybody was told the same second.
    let advised = advised
        + if advised > 0 {
            random() % (advised / 10).max(5)
        } else {
            0
        };
    Duration::from_secs(jittered.max(advised))
}

/// The second since 1970 at which a certificate is to be renewed: `before` its end, or for the last third of its life; up to a tenth of that earlier,
/// always the same for a domain, so that certificates that were issued together are not renewed together.
pub(super) fn due(facts: &Facts, before: Option<Duration>, domain: &str) -> u64 {
    let begin = u64::try_from(facts.not_before).unwrap_or(0);
    let end = u64::try_from(facts.not_after).unwrap_or(0);
    let life = end.saturating_sub(begin);
    // Certificates may have become shorter than whoever wrote `renew_before` thought: they are not renewed again and again.
    let lead = before.map_or(life / 3, |before| before.as_secs().min(life * 2 / 3));
    let mut hasher = DefaultHasher::new();
    domain.hash(&mut hasher);
    let spread = hasher.finish() % (lead / 10).max(1);
    end.saturating_sub(lead + spread)
}

fn random() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(kind: Kind, failures: u32, advice: Option<u64>) -> u64 {
        pause(kind, failures, advice.map(Duration::from_secs)).as_secs()
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        for (failures, plain) in [(1, 900), (2, 1800), (3, 3600), (7, 57_600), (8, 86_400)] {
            for _ in 0..100 {
                let pause = seconds(Kind::Refused, failures, None);
                assert!((plain * 3 / 4..plain * 5 / 4).contains(&pause), "{pause}");
            }
        }
        assert!(seconds(Kind::Unreachable, u32::MAX, None) < 3600 * 5 / 4);
        assert!(seconds(Kind::Unreachable, 1, None) <= 12);
    }

    #[test]
    fn pauses_differ() {
        let all: std::collections::HashSet<_> =
            (0..50).map(|_| seconds(Kind::Refused, 4, None)).collect();
        assert!(all.len() > 10);
    }

    #[test]
    fn the_authority_is_believed_within_reason() {
        for _ in 0..100 {
            assert!(seconds(Kind::RateLimited, 1, Some(7200)) >= 7200);
            assert!(seconds(Kind::RateLimited, 1, Some(7200)) < 7920);
            assert!(seconds(Kind::RateLimited, 1, Some(u64::MAX)) <= 7 * DAY * 11 / 10);
            assert!(seconds(Kind::RateLimited, 1, Some(1)) >= 45 * MINUTE);
        }
    }

    fn facts(days: i64) -> Facts {
        let day = i64::try_from(DAY).unwrap();
        Facts {
            subject: String::new(),
            issuer: String::new(),
            names: Vec::new(),
            not_before: 1000 * day,
            not_after: (1000 + days) * day,
            key: String::new(),
            self_issued: false,
            pss: false,
            fingerprint: String::new(),
        }
    }

    fn due_day(days: i64, before: Option<u64>, domain: &str) -> u64 {
        let before = before.map(|days| Duration::from_secs(days * DAY));
        due(&facts(days), before, domain) / DAY - 1000
    }

    #[test]
    fn certificates_are_renewed_in_time() {
        for domain in ["fabrikam.example", "contoso.example", "litware.example"] {
            assert!((57..=60).contains(&due_day(90, None, domain)));
            assert!((3..=4).contains(&due_day(6, None, domain)));
            assert!((68..=70).contains(&due_day(90, Some(20), domain)));
            // Not at once and for ever.
            assert!((1..=2).contains(&due_day(6, Some(30), domain)));
        }
        let all = ["a", "b", "c", "d", "e"].map(|domain| due(&facts(90), None, domain));
        assert!(all.iter().any(|due| *due != all[0]));
    }
}
