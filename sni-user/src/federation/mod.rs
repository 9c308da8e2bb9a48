//! `snigate check --dns`: what a partner would see of each domain, from the SRV record to the certificate and its revocation list.
//!
//! A domain is looked at in the order in which a partner goes (`domain`); what is wrong on the way is a [`Finding`] of a [`Kind`] with a
//! stable name. The DNS is asked by `lookups`, servers are looked at by `connection`, and what they show is judged by pure functions
//! (`certificate`, `chain`). `expected` knows from the configuration where partners are meant to come to.
//!
//! Domains are checked concurrently, so many at once and no more: each has one query, connection or transfer open at a time. Every step
//! has a timeout, every domain an end, and the whole check too.

mod caa;
mod certificate;
mod chain;
mod connection;
mod domain;
mod expected;
mod fetch;
mod finding;
mod gauge;
mod lookups;
mod plain;
mod report;
mod revocation;

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use rustls::pki_types::UnixTime;
use tokio::time::{Instant, timeout_at};

use self::{
    connection::Connections, domain::View, expected::Expected, gauge::Gauge, lookups::Lookups,
    revocation::Revocation,
};
pub use self::{
    finding::{Finding, Kind, Severity},
    gauge::Counted,
    report::{Examined, Report, Shown, Summary, Work},
};
use crate::{
    config::{Config, HostName, Roots},
    tls::trusted,
};

/// How to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// The DNS server; the system's without.
    pub resolver: Option<SocketAddr>,
    /// Domains at once.
    pub concurrency: usize,
    /// Connections in a second, to all addresses together.
    pub rate: u32,
    /// What one question, one connection or one answer may take.
    pub timeout: Duration,
    /// What the whole check may take.
    pub deadline: Duration,
    /// How early the end of a certificate is worth a warning.
    pub soon: Duration,
    /// Whom partners trust.
    pub roots: Roots,
    /// Names of the authority in use in CAA records, lower case; empty where it is to be found out.
    pub caa: Vec<String>,
    /// Kinds of findings that are not reported.
    pub ignored: Vec<Kind>,
}

/// Why nothing can be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No DNS server.
    #[error("the DNS can't be asked: {0}; name a server with --resolver")]
    Resolver(String),
    /// Nobody to trust.
    #[error("{0}; name a file with --roots")]
    Roots(String),
}

/// Checks these domains against a configuration. `done` is called with each as it is finished.
///
/// # Errors
/// There is no DNS server to ask, or no root to trust.
pub async fn check(
    config: &Config,
    domains: Vec<HostName>,
    options: &Options,
    done: impl Fn(&Examined),
) -> Result<Report, CheckError> {
    let end = Instant::now() + options.deadline;
    let view = View {
        expected: Expected::new(config),
        roots: trusted(&options.roots).map_err(CheckError::Roots)?,
        lookups: Lookups::new(options.resolver, options.timeout).map_err(CheckError::Resolver)?,
        connections: Connections::new(options.timeout, options.rate),
        revocation: Revocation::new(options.timeout),
        now: i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX),
        options,
    };
    let open = Gauge::default();
    // Whoever is slow holds nobody up; the order is restored afterwards.
    let mut examined = stream::iter(domains.into_iter().enumerate())
        .map(|(place, domain)| {
            let (view, open, done) = (&view, &open, &done);
            async move {
                let _counted = open.enter();
                let examined = one(view, domain, end).await;
                done(&examined);
                (place, examined)
            }
        })
        .buffer_unordered(options.concurrency)
        .collect::<Vec<_>>()
        .await;
    examined.sort_by_key(|(place, _)| *place);
    let examined: Vec<_> = examined.into_iter().map(|(_, examined)| examined).collect();
    Ok(Report {
        resolver: view.lookups.asked.clone(),
        summary: Summary::of(&examined),
        domains: examined,
        work: Work {
            domains: open.counted(),
            queries: view.lookups.queries.counted(),
            connections: view.connections.open.counted(),
            revocation_lists: view.revocation.fetches.counted(),
        },
    })
}

async fn one(view: &View<'_>, domain: HostName, end: Instant) -> Examined {
    let begin = Instant::now();
    let patience = view.options.patience();
    let mut seen = Examined::new(domain.clone());
    let looked = timeout_at(end.min(begin + patience), view.examine(&domain, &mut seen)).await;
    if looked.is_err() {
        let sentence = if end < begin + patience {
            "the time for the whole check was over".to_owned()
        } else {
            format!("{domain} was given up after {} s", patience.as_secs_f32())
        };
        seen.add(Kind::NotChecked, sentence);
    }
    seen.settle(&view.options.ignored);
    seen
}

impl Options {
    /// The longest that one domain may take, whatever is slow: the steps of a partner in earnest, and its turn among all that connect.
    fn patience(&self) -> Duration {
        const STEPS: u32 = 24;
        let before = u32::try_from(self.concurrency).unwrap_or(u32::MAX);
        let turn = Duration::from_secs(1) / self.rate.max(1);
        (self.timeout + turn.saturating_mul(before)).saturating_mul(STEPS)
    }
}
