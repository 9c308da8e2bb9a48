//! The connection log: one line for each connection when it is over, with the same fields whoever has carried it. docs/operations.md says what they mean.

mod flows;

use std::{
    fmt::Display,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sni_common::token_bucket::TokenBucket;

pub(crate) use self::flows::RemovedFlows;

/// Of its lines, for filters: `RUST_LOG=info,snigate::connection=off`.
pub(crate) const TARGET: &str = "snigate::connection";

/// Lines in a second in the long run, and at once. Federation partners keep their connections for days: whoever ends more of them is an attack, or a
/// network that is gone, of which a part tells as much.
const LINES_PER_SECOND: u32 = 100;
const LINES_AT_ONCE: u32 = 1000;

/// Stands for what a connection does not have, so that every line has every field.
const NOTHING: &str = "-";

/// How many lines may still be written.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLog(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    budget: TokenBucket,
    unsaid: u64,
}

impl ConnectionLog {
    /// Whether one more line may be written at `now_ns` (any steady clock): if so, how many were not since the last one.
    pub(crate) fn may_say(&self, now_ns: u64) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines
            .budget
            .take(now_ns, LINES_PER_SECOND * 1000, LINES_AT_ONCE)
        {
            Some(std::mem::take(&mut lines.unsaid))
        } else {
            lines.unsaid += 1;
            None
        }
    }
}

/// What there is to say of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// Its source, or whom a trusted load balancer names.
    pub(crate) client: SocketAddr,
    /// The public address that it came to.
    pub(crate) address: SocketAddr,
    /// As the client sent it; of a flow of the datapath, the configured name that decided.
    pub(crate) server_name: Option<&'a str>,
    pub(crate) ip_set: Option<&'a str>,
    pub(crate) edge: Option<&'a str>,
    /// Who carried it: `steered`, `bound`, `handed-off`, `relayed`, `terminated`; or nobody, `refused`.
    pub(crate) way: &'a str,
    /// Why it is over, or was refused.
    pub(crate) result: &'a str,
    /// Bytes; see [`sni_common::contract::Flow::bytes`] for what counts.
    pub(crate) to_edge: u64,
    pub(crate) to_client: u64,
    pub(crate) lasted: Duration,
    /// Lines that were not written before this one.
    pub(crate) unsaid: u64,
}

/// A line at one of tracing's levels, which are part of the code that it makes.
macro_rules! say {
    ($level:ident, $line:expr, $($message:tt)+) => {{
        let line: Line<'_> = $line;
        tracing::$level!(
            target: TARGET,
            client = %line.client,
            address = %line.address,
            server_name = line.server_name.unwrap_or(NOTHING),
            ip_set = line.ip_set.unwrap_or(NOTHING),
            edge = line.edge.unwrap_or(NOTHING),
            way = line.way,
            result = line.result,
            to_edge = line.to_edge,
            to_client = line.to_client,
            milliseconds = u64::try_from(line.lasted.as_millis()).unwrap_or(u64::MAX),
            unsaid = line.unsaid,
            $($message)+
        );
    }};
}

impl Line<'_> {
    /// It has been carried, and is over.
    pub(crate) fn ended(self) {
        say!(info, self, "connection ended");
    }

    /// It was refused for this reason, by a client's fault or by one of the gateway's side.
    pub(crate) fn refused(self, why: &dyn Display, is_ours: bool) {
        if is_ours {
            say!(warn, self, "refused: {why}");
        } else {
            say!(info, self, "refused: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mass_end_is_said_in_part() {
        const HOUR: u64 = 3_600_000_000_000;
        let log = ConnectionLog::default();
        let said = |at| (0..5000).filter_map(|_| log.may_say(at)).count();
        assert_eq!(said(HOUR), 1000);
        assert_eq!(said(HOUR + 1_000_000_000), 100);
        // The 4000 before that were told by its first line.
        assert_eq!(log.may_say(2 * HOUR), Some(4900));
        assert_eq!(log.may_say(2 * HOUR), Some(0));
    }
}
