//! Certificates by ACME: pebble as the authority, knot as the name server, and the gateway in between.

mod authority;
mod dns;
mod issue;
mod names;
mod refusals;
mod restart;
mod scene;
mod shared;

use std::time::Duration;

/// Pauses after failures are among what is waited for.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);
