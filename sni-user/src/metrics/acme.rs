//! Certificates by ACME: what comes of asking for them. Which domain it is about, `snigate cert ls` says.

use super::{Exposition, ExpositionError, Family};
use crate::acme::{Counts, RESULTS, STATES};

pub(super) const FAMILIES: &[&Family] = &[&ATTEMPTS, &CERTIFICATES, &REQUESTS];

const ATTEMPTS: Family = Family::counter(
    "snigate_acme_attempts_total",
    &["result"],
    "Attempts of the agent to get a certificate by ACME: issued, renewed, or failed because the authority has refused it, has set a limit, is unreachable or not done yet, or because of this host (local).",
);
const CERTIFICATES: Family = Family::gauge(
    "snigate_acme_certificates",
    &["state"],
    "Certificates that come by ACME: there (current), not there yet (missing); and those of both whose last attempt has failed (failing).",
);
const REQUESTS: Family = Family::counter(
    "snigate_acme_requests_total",
    &["result"],
    "HTTP requests at port 80 of inspected addresses: for a token that is there (answered), and all others (refused).",
);

/// Adds them.
pub(crate) fn expose(to: &Exposition, counts: &Counts) -> Result<(), ExpositionError> {
    let attempts = to.family(&ATTEMPTS)?;
    for (result, count) in RESULTS.iter().zip(counts.attempts()) {
        attempts.add(&[result], count as f64);
    }
    let certificates = to.family(&CERTIFICATES)?;
    for (state, count) in STATES.iter().zip(counts.certificates()) {
        certificates.add(&[state], count as f64);
    }
    let requests = to.family(&REQUESTS)?;
    for (result, count) in counts.requests() {
        requests.add(&[result], count as f64);
    }
    Ok(())
}
