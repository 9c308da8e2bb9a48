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
use crate::config::Acme;

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
                let pending = error.kind() == Kind::Pending;
                record.failures += u32::from(!pending);
                let pause = schedule::pause(error.kind(), record.failures.max(1), advice);
                record.not_before = now() + pause.as_secs();
                record.error = Some(error.to_string());
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
        let obtained = ordering.obtain().await;
        let kept = obtained.and_then(|obtained| self.keep(wanted, record, obtained));
        if let Err(error) = &kept
            && error.kind() == Kind::Unreachable
        {
            // What it has said about itself may hold no longer.
            *self.session.lock().await = None;
        }
        kept.map_err(|error| (error, session.advice()))
    }

    /// Puts the certificate in the place of the one before. It is whole, or it is not taken.
    fn keep(
        &self,
        wanted: &Wanted,
        record: &mut Record,
        obtained: Obtained,
    ) -> Result<(), AcmeError> {
        let Obtained { chain, key, order } = obtained;
        let text = format!("{chain}\n{key}");
        store::write(&wanted.file, text.as_bytes(), store::SECRET)?;
        if wanted.there().is_none() {
            tracing::warn!(domain = %wanted.sip_domain, "the authority's certificate is not for all names that were asked for");
        }
        *record = Record {
            issued_by: Some(order),
            ..Record::default()
        };
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
