//! Certificates from an authority that speaks ACME (RFC 8555): asked for, proven, kept and renewed.
//!
//! The way of a certificate: `wanted` says which ones the configuration asks for; `schedule` when; `attempt` makes one attempt for one of them, under a
//! lock that gateways with a common state directory share; `order` talks to the authority with the account of `account`, over the client of `client`;
//! `challenge` publishes what proves a name, by a token's file or a `hook`; `store` keeps what outlives the process: the order while it is open,
//! when to try again, and the certificate, which replaces the one before by a rename.
//!
//! The agent runs `worker`, which makes these attempts when they are due, and `responder`, which answers tokens at port 80. `snigate cert issue` makes the
//! same attempt in its own process. Nothing here knows the proxy: whoever has the certificate's file watched, loads the new one.

mod account;
mod attempt;
mod challenge;
mod client;
mod counts;
mod error;
mod hook;
mod order;
mod renewal;
pub(crate) mod responder;
mod schedule;
mod store;
mod wanted;
mod worker;

pub(crate) use self::{
    attempt::{Attempt, Outcome, Trigger},
    counts::{Counts, RESULTS, STATES},
    error::AcmeError,
    renewal::Renewal,
    store::Store,
    wanted::{Wanted, wanted},
    worker::Worker,
};

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
