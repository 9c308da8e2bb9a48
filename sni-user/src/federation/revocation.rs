//! Revocation lists, as peers look at them. Domains share authorities: a list is fetched once, however many certificates it is about.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio::sync::OnceCell;
use webpki::RawPublicKeyEntity;
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer as _, revocation_list::CertificateRevocationList,
};

use super::{
    certificate::{Said, distribution_points},
    chain::Chain,
    fetch::fetch,
    finding::Kind,
    gauge::Gauge,
    lookups::Lookups,
};
use crate::tls::{date, provider};

/// Lists that are kept: there are far fewer authorities than domains, and one list may have some megabytes.
const KEPT: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// The lists that were fetched.
pub(super) struct Revocation {
    within: Duration,
    pub(super) fetches: Gauge,
    lists: Mutex<LruCache<Key, Arc<OnceCell<Fetched>>>>,
}

/// Where a list is, and the key that has to have signed it; empty where that was not sent.
type Key = (String, Vec<u8>);
type Fetched = Result<List, Said>;

/// What is needed of a list.
struct List {
    /// In DER.
    issuer: Vec<u8>,
    /// Seconds since 1970.
    next_update: Option<i64>,
    /// The serial numbers, big-endian, as certificates have them.
    revoked: HashSet<Box<[u8]>>,
    /// Whether its signature fits the issuer of the certificate that it was fetched for.
    is_signed: bool,
}

impl Revocation {
    pub(super) fn new(within: Duration) -> Self {
        Self {
            within,
            fetches: Gauge::default(),
            lists: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// What is wrong with the lists of a chain's certificates, or by them.
    pub(super) async fn judge(&self, lookups: &Lookups, chain: &Chain<'_>, now: i64) -> Vec<Said> {
        let mut said = Vec::new();
        for (place, (certificate, issuer)) in chain.links().enumerate() {
            let urls = distribution_points(certificate);
            let subject = certificate.subject();
            let Some(url) = urls.iter().find(|url| url.starts_with("http://")) else {
                // What authorities ask of their own is theirs.
                if place == 0 {
                    said.push(match urls.first() {
                        None => (
                            Kind::CrlMissing,
                            "the certificate has no CRL distribution point".to_owned(),
                        ),
                        Some(other) => (
                            Kind::CrlUnreachable,
                            format!("the certificate has no CRL distribution point of plain HTTP, but {other}"),
                        ),
                    });
                }
                continue;
            };
            let cell = self.cell(url, issuer);
            let list = cell.get_or_init(|| self.list(lookups, url, issuer)).await;
            said.extend(match list {
                Ok(list) => list.judge(certificate, url, now),
                Err((kind, sentence)) => {
                    Some((*kind, format!("{sentence} (certificate of {subject})")))
                }
            });
        }
        said
    }

    fn cell(&self, url: &str, issuer: Option<&X509Certificate<'_>>) -> Arc<OnceCell<Fetched>> {
        let key = issuer.map_or(&[][..], |issuer| issuer.public_key().raw);
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lists.get_or_insert((url.to_owned(), key.to_vec()), Arc::default))
    }

    async fn list(
        &self,
        lookups: &Lookups,
        url: &str,
        issuer: Option<&X509Certificate<'_>>,
    ) -> Fetched {
        let counted = self.fetches.enter();
        let bytes = fetch(lookups, url, self.within).await;
        drop(counted);
        let bytes = bytes.map_err(|reason| {
            (
                Kind::CrlUnreachable,
                format!("the revocation list {url} {reason}"),
            )
        })?;
        let Ok((_, list)) = CertificateRevocationList::from_der(&bytes) else {
            let sentence = format!("what {url} has is no revocation list in DER");
            return Err((Kind::CrlInvalid, sentence));
        };
        Ok(List {
            issuer: list.issuer().as_raw().to_vec(),
            next_update: list.next_update().map(|time| time.timestamp()),
            revoked: list
                .iter_revoked_certificates()
                .map(|it| it.raw_serial().into())
                .collect(),
            is_signed: issuer.is_none_or(|issuer| is_signed(&list, issuer)),
        })
    }
}

impl List {
    fn judge(&self, certificate: &X509Certificate<'_>, url: &str, now: i64) -> Option<Said> {
        let subject = certificate.subject();
        if self.issuer != certificate.issuer().as_raw() || !self.is_signed {
            let sentence = format!(
                "the revocation list {url} is not of {}, who has issued the certificate of {subject}",
                certificate.issuer()
            );
            return Some((Kind::CrlInvalid, sentence));
        }
        if self.revoked.contains(certificate.raw_serial()) {
            let sentence = format!("the certificate of {subject} is on the revocation list {url}");
            return Some((Kind::Revoked, sentence));
        }
        let until = self.next_update.filter(|until| *until < now)?;
        let sentence = format!(
            "the revocation list {url} should have been renewed by {}",
            date(until)
        );
        Some((Kind::CrlStale, sentence))
    }
}

/// Whether the issuer's key has signed a list, by any algorithm that fits the key: the list says which, and would be believed.
fn is_signed(list: &CertificateRevocationList<'_>, issuer: &X509Certificate<'_>) -> bool {
    let key = SubjectPublicKeyInfoDer::from(issuer.public_key().raw);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
        return false;
    };
    let signed = list.tbs_cert_list.as_ref();
    let signature = &list.signature_value.data;
    let algorithms = provider().signature_verification_algorithms.all;
    algorithms
        .iter()
        .any(|algorithm| key.verify_signature(*algorithm, signed, signature).is_ok())
}
