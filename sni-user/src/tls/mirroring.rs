//! What a mirrored certificate has of the partner's, and how long it lives.

use std::time::Duration;

use x509_parser::{
    asn1_rs::{Any, FromDer as _},
    certificate::X509Certificate,
    oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME,
};

/// A mirrored certificate's life; the Edge's and the gateway's clocks may differ by the slack.
pub(super) const LIFE: Duration = Duration::from_hours(24);
pub(super) const SLACK: Duration = Duration::from_mins(10);

/// The partner's names, byte for byte.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names<'a> {
    /// DER of the subject's Name.
    pub(super) subject: &'a [u8],
    /// DER of the GeneralNames, and whether the extension is critical.
    pub(super) alternative: Option<(&'a [u8], bool)>,
}

impl<'a> Names<'a> {
    /// # Errors
    /// The subject is no Name: verification does not look into it.
    pub(super) fn of(partner: &'a X509Certificate<'_>) -> Result<Self, &'static str> {
        // The parser ends where a part of it is none, and has what is before that. Its header would then promise bytes that don't follow.
        let subject = partner.subject().as_raw();
        if !matches!(Any::from_der(subject), Ok(([], _))) {
            return Err("its subject is not a name");
        }
        let names = partner
            .extensions()
            .iter()
            .find(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME);
        Ok(Self {
            subject,
            alternative: names.map(|names| (names.value, names.critical)),
        })
    }
}

/// First and last second of a certificate that is signed now, all in seconds since 1970; `None` while the CA's own is not valid.
pub(super) fn life(ca: (i64, i64), partner_end: i64, now: i64) -> Option<(i64, i64)> {
    let (ca_begin, ca_end) = ca;
    if !(ca_begin..ca_end).contains(&now) {
        return None;
    }
    let begin = now.saturating_sub(SLACK.as_secs() as i64).max(ca_begin);
    let end = now.saturating_add(LIFE.as_secs() as i64);
    Some((begin, end.min(partner_end).min(ca_end)))
}
