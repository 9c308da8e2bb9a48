//! Whether the certificates that a partner is shown lead to a root that it trusts.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_parser::{asn1_rs::Any, certificate::X509Certificate, prelude::FromDer as _};

use super::{
    certificate::{self, Said},
    finding::Kind,
};
use crate::tls::{date, is_self_issued, order_of, provider};

/// The certificates that were sent.
pub(super) struct Chain<'a> {
    sent: &'a [CertificateDer<'static>],
    parsed: Vec<X509Certificate<'a>>,
    /// Places of the own certificate, its issuer's, and so on.
    order: Vec<usize>,
}

impl<'a> Chain<'a> {
    /// Reads them; at least one.
    pub(super) fn read(sent: &'a [CertificateDer<'static>]) -> Result<Self, Said> {
        let mut parsed = Vec::with_capacity(sent.len());
        for (place, der) in (1..).zip(sent) {
            let Ok((_, certificate)) = X509Certificate::from_der(der) else {
                let sentence = format!("certificate {place} of the chain can't be read");
                return Err((Kind::CertificateUnreadable, sentence));
            };
            parsed.push(certificate);
        }
        if parsed.is_empty() {
            let sentence = "an empty chain is shown".to_owned();
            return Err((Kind::CertificateUnreadable, sentence));
        }
        let order = order_of(&parsed, 0);
        Ok(Self {
            sent,
            parsed,
            order,
        })
    }

    /// The target's own certificate.
    pub(super) fn own(&self) -> &X509Certificate<'a> {
        &self.parsed[0]
    }

    /// The certificates that lead to the root, each with its issuer's where that was sent; the root itself is not among them.
    pub(super) fn links(
        &self,
    ) -> impl Iterator<Item = (&X509Certificate<'a>, Option<&X509Certificate<'a>>)> {
        let issuers = self
            .order
            .iter()
            .skip(1)
            .map(|place| Some(&self.parsed[*place]));
        let links = self.order.iter().map(|place| &self.parsed[*place]);
        links
            .zip(issuers.chain([None]))
            .filter(|(certificate, _)| !is_self_issued(certificate))
    }

    /// What is wrong with it; `now` in seconds since 1970.
    pub(super) fn judge(&self, roots: &RootCertStore, now: i64) -> Vec<Said> {
        let mut said = Vec::new();
        for place in &self.order {
            let certificate = &self.parsed[*place];
            let is_root = is_self_issued(certificate);
            said.extend(certificate::algorithms(certificate, is_root));
            let end = certificate.validity().not_after.timestamp();
            if *place != 0 && end < now {
                let sentence = format!(
                    "the certificate of {} has expired on {}",
                    certificate.subject(),
                    date(end)
                );
                said.push((Kind::ChainExpired, sentence));
            }
        }
        if self
            .order
            .iter()
            .enumerate()
            .any(|(at, place)| at != *place)
            || self.order.len() != self.sent.len()
        {
            let sentence = format!(
                "the chain has {} certificates, of which the places {:?} are needed, in this order",
                self.sent.len(),
                self.order.iter().map(|place| place + 1).collect::<Vec<_>>()
            );
            said.push((Kind::ChainOrder, sentence));
        }
        // Already said to be of no use.
        let is_weak = said.iter().any(|(kind, _)| {
            matches!(
                kind,
                Kind::KeySmall | Kind::SignatureWeak | Kind::ChainExpired
            )
        });
        match self.end(roots) {
            Some(end) => said.push(end),
            None if is_weak => {}
            None => said.extend(self.holds(roots, now)),
        }
        said
    }

    /// Why it comes to no trusted root.
    fn end(&self, roots: &RootCertStore) -> Option<Said> {
        let last = &self.parsed[*self.order.last()?];
        let issuer = content(last.issuer().as_raw());
        if roots
            .roots
            .iter()
            .any(|root| Some(root.subject.as_ref()) == issuer)
        {
            return None;
        }
        let issuer = last.issuer();
        Some(if is_self_issued(last) {
            let sentence = format!("the root {issuer} is not trusted");
            (Kind::ChainUntrusted, sentence)
        } else {
            let sentence = format!(
                "the chain ends with the certificate of {}; that of its issuer, {issuer}, is not sent, and is no trusted root",
                last.subject()
            );
            (Kind::ChainIncomplete, sentence)
        })
    }

    /// Verifies it as peers do, at a time at which the own certificate is valid, and for whatever it is meant for: those are findings of
    /// their own.
    fn holds(&self, roots: &RootCertStore, now: i64) -> Option<Said> {
        let validity = self.own().validity();
        let (begin, end) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        // Written by whoever has issued it, and may be the wrong way round.
        let then = now.min(end).max(begin).unsigned_abs();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(then));
        let (own, others) = self.sent.split_first()?;
        let verified = EndEntityCert::try_from(own).and_then(|certificate| {
            certificate
                .verify_for_usage(
                    provider().signature_verification_algorithms.all,
                    &roots.roots,
                    others,
                    time,
                    Anything,
                    None,
                    None,
                )
                .map(drop)
        });
        let error = verified.err()?;
        let sentence = format!("the chain does not hold: {error}");
        Some((Kind::ChainInvalid, sentence))
    }
}

/// Takes a certificate for any use.
struct Anything;

impl ExtendedKeyUsageValidator for Anything {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// What is inside of a DER value: a trust anchor's subject is kept without what is around it.
fn content(der: &[u8]) -> Option<&[u8]> {
    Any::from_der(der).ok().map(|(_, any)| any.data)
}
