//! What there is to say about a certificate that comes by ACME, for people.

use serde::Serialize;

use super::{Store, Wanted, now, schedule};
use crate::config::{Acme, Challenge};

/// How a certificate is renewed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Renewal {
    /// How the names are proven.
    pub(crate) challenge: Challenge,
    /// When it is to be renewed, in seconds since 1970; `None` where there is none for all names, so that an attempt is due.
    pub(crate) due: Option<u64>,
    /// No attempt before this second since 1970.
    pub(crate) not_before: Option<u64>,
    /// Failed attempts in a row, for one kind of reason.
    pub(crate) failures: u32,
    /// Why the last one has failed.
    pub(crate) error: Option<String>,
    /// The URL of the order that is open.
    pub(crate) order: Option<String>,
    /// The URL of the order that the certificate came by.
    pub(crate) issued_by: Option<String>,
}

impl Renewal {
    /// Of a domain.
    pub(crate) fn of(acme: &Acme, wanted: &Wanted) -> Self {
        let due = wanted
            .there()
            .map(|facts| schedule::due(&facts, acme.renew_before, wanted.sip_domain.as_str()));
        let record = Store::new(acme).record(&wanted.sip_domain);
        let (record, unreadable) = match record {
            Ok(record) => (record, None),
            Err(error) => (Default::default(), Some(error.to_string())),
        };
        Self {
            challenge: wanted.challenge,
            due,
            not_before: Some(record.not_before).filter(|until| *until > now()),
            failures: record.failures,
            error: unreadable.or(record.error),
            order: record.order.map(|open| open.url),
            issued_by: record.issued_by,
        }
    }
}
