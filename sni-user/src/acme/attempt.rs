//! One attempt for one domain: whether it is its time, the order, and what is remembered of it.

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{
    AcmeError, Store, Wanted,
    account::Session,
    error::Kind,
    now,
    order::{Obtained, Ordering},
    schedule,
    store::{self, Record},
};
use crate::{config::Acme, tls};

/// Makes attempts; the account is opened once.
pub(crate) struct Attempt {
    pub(crate) acme: Acme,
    pub(crate) store: Store,
    session: Mutex<Option<Arc<Session>>>,
}

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// If there is no certificate, or its renewal is due, and no pause is to be kept.
    WhenDue,
    /// If there is no certificate for all names, and no pause is to be kept.
    WhenMissing,
    /// In any case.
    Always,
}

/// What has come of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// There is a new certificate.
    Issued {
        /// Instead of one that is for all names already.
        renewal: bool,
    },
    /// Nothing is to be done.
    NotDue,
    /// A pause is to be kept for so many seconds, because of an earlier failure.
    Paused {
        /// Until then, in seconds since 1970.
        until: u64,
        /// What has failed.
        error: Option<String>,
    },
    /// Another process, or another gateway, is at it.
    Busy,
    /// It has failed.
    Failed {
        /// Why.
        error: AcmeError,
        /// The next attempt is not before this second since 1970.
        until: u64,
    },
}

impl Record {
    /// Notes a failure, and until when nobody is to try again.
    fn fail(&mut self, error: &AcmeError, advice: Option<Duration>) {
        let kind = error.kind();
        if self.kind.replace(kind) != Some(kind) {
            self.failures = 0;
        }
        self.failures += 1;
        // Of an authority that is down, every domain would come to wait for long: the worker waits for all of them.
        let failures = match kind {
            Kind::Unreachable => 1,
            _ => self.failures,
        };
        self.not_before = now() + schedule::pause(kind, failures, advice).as_secs();
        self.error = Some(error.to_string());
    }
}

impl Attempt {
    pub(crate) fn new(acme: Acme) -> Self {
        Self {
            store: Store::new(&acme),
            acme,
            session: Mutex::new(None),
        }
    }

    /// The second since 1970 from which on an attempt for a domain is worth while.
    pub(super) fn next(&self, wanted: &Wanted) -> u64 {
        let record = self.store.record(&wanted.sip_domain).unwrap_or_default();
        self.due(wanted).max(record.not_before)
    }

    /// The second since 1970 at which its certificate is to be renewed; 0 where it has none.
    fn due(&self, wanted: &Wanted) -> u64 {
        wanted.there().map_or(0, |facts| {
            schedule::due(&facts, self.acme.renew_before, wanted.sip_domain.as_str())
        })
    }

    /// Makes an attempt, if it is its time.
    pub(crate) async fn make(&self, wanted: &Wanted, trigger: Trigger) -> Outcome {
        match self.try_make(wanted, trigger).await {
            Ok(outcome) => outcome,
            // Nothing of it can be remembered.
            Err(error) => Outcome::Failed {
                until: now() + schedule::pause(error.kind(), 1, None).as_secs(),
                error,
            },
        }
    }

    async fn try_make(&self, wanted: &Wanted, trigger: Trigger) -> Result<Outcome, AcmeError> {
        self.store.prepare()?;
        let domain = &wanted.sip_domain;
        let Some(_lock) = self.store.lock(domain)? else {
            return Ok(Outcome::Busy);
        };
        // Only now: who has had the lock before may have seen to it.
        let mut record = self.store.record(domain)?;
        let there = wanted.there().is_some();
        let wait = match trigger {
            Trigger::Always => false,
            Trigger::WhenMissing => there,
            Trigger::WhenDue => self.due(wanted) > now(),
        };
        if wait {
            return Ok(Outcome::NotDue);
        }
        if trigger != Trigger::Always && record.not_before > now() {
            return Ok(Outcome::Paused {
                until: record.not_before,
                error: record.error,
            });
        }
        match self.obtain(wanted, &mut record).await {
            Ok(()) => Ok(Outcome::Issued { renewal: there }),
            Err((error, advice)) => {
                record.fail(&error, advice);
                self.store.keep(domain, &record)?;
                let until = record.not_before;
                Ok(Outcome::Failed { error, until })
            }
        }
    }

    async fn obtain(
        &self,
        wanted: &Wanted,
        record: &mut Record,
    ) -> Result<(), (AcmeError, Option<Duration>)> {
        let session = self.session().await?;
        let mut ordering = Ordering {
            acme: &self.acme,
            store: &self.store,
            session: &session,
            wanted,
            record,
        };
        let issued = match ordering.obtain().await {
            Ok(obtained) => {
                let kept = keep(wanted, &obtained);
                // Only now that the certificate is on disk: until then, the order is the way to it.
                let closed = ordering.close().await;
                kept.and(closed).map(|()| obtained.order)
            }
            Err(error) => Err(error),
        };
        let kept = issued.and_then(|order| self.remember(wanted, record, order));
        if let Err(error) = &kept
            && error.kind() == Kind::Unreachable
        {
            // What it has said about itself may hold no longer.
            *self.session.lock().await = None;
        }
        kept.map_err(|error| (error, session.advice()))
    }

    /// Notes that there is a certificate, by which order.
    fn remember(
        &self,
        wanted: &Wanted,
        record: &mut Record,
        order: String,
    ) -> Result<(), AcmeError> {
        *record = Record {
            issued_by: Some(order),
            ..Record::default()
        };
        if self.due(wanted) <= now() {
            // It would be asked for in a circle.
            let clock =
                "the new certificate is about to end already: see that this host's clock is right";
            record.error = Some(clock.to_owned());
            record.not_before = now() + schedule::pause(Kind::Refused, 1, None).as_secs();
        }
        self.store.keep(&wanted.sip_domain, record)?;
        self.store.forget_order_key(&wanted.sip_domain)
    }

    async fn session(&self) -> Result<Arc<Session>, (AcmeError, Option<Duration>)> {
        // Held while it is opened: several orders that begin at once need one.
        let mut session = self.session.lock().await;
        if let Some(open) = &*session {
            return Ok(Arc::clone(open));
        }
        let opened = Arc::new(Session::open(&self.acme).await?);
        *session = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

/// Puts the certificate in the place of the one before, if it is what was asked for.
fn keep(wanted: &Wanted, obtained: &Obtained) -> Result<(), AcmeError> {
    let Obtained { chain, key, .. } = obtained;
    let text = format!("{chain}\n{key}");
    let facts = tls::fitting(text.as_bytes()).map_err(AcmeError::Unfit)?;
    if let Some(name) = wanted.names.iter().find(|name| !facts.covers(name)) {
        return Err(AcmeError::Unfit(format!("it is not for {name}")));
    }
    store::write(&wanted.file, text.as_bytes(), store::SECRET)
}
