//! Mirrored identities: certificates with a partner's subject and names, signed by the gateway's private CA.
//!
//! The Edge takes them for the partner's own, and checks the partner's domain against them as it would without a gateway. All of them have
//! the same key, made when the CA is first loaded and never written down: a key for each would cost a hundred times more than signing, and
//! protect nothing, as all would lie in the same process.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rand,
    rsa::{KeyPair, KeySize},
};
use hyper::body::Bytes;
use lru::LruCache;
use rustls::{
    SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime},
    sign::{CertifiedKey, SigningKey},
};
use url::Url;
use x509_parser::certificate::X509Certificate;

use super::{
    certificate::parse,
    chain::Served,
    files::{Fingerprint, fingerprint},
    mirroring::{LIFE, Names, SLACK, life},
    x509::{Issuer, Leaf, seconds},
};

/// Why an identity could not be mirrored.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The CA's time is over or has not come: what it signs would be refused.
    #[error("the mirror CA is not valid now: `snigate ca init` makes another")]
    CaNotValid,
    /// The partner's certificate can't be taken apart, although it was verified.
    #[error("the partner's certificate can't be mirrored: {0}")]
    Partner(&'static str),
    /// Signing failed.
    #[error("the mirror CA could not sign: {0}")]
    Sign(#[from] rustls::Error),
}

/// The private CA, and what it has signed lately.
pub struct Mirror {
    issuer: Issuer,
    chain: Vec<CertificateDer<'static>>,
    validity: (i64, i64),
    crl_url: Option<String>,
    leaf_key: Arc<dyn SigningKey>,
    /// DER of the SubjectPublicKeyInfo.
    public_key: Vec<u8>,
    minted: Mutex<LruCache<Fingerprint, Arc<Mirrored>>>,
    list: Mutex<Option<(i64, Bytes)>>,
}

/// A mirrored identity, ready to be shown to Edges.
#[derive(Debug)]
pub struct Mirrored {
    key: Arc<CertifiedKey>,
    not_before: i64,
    not_after: i64,
    resumption: Resumption,
}

impl Mirrored {
    /// The certificate, then the CA's.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// Sessions of this identity; no other may resume them.
    pub(super) fn resumption(&self) -> Resumption {
        self.resumption.clone()
    }
}

/// Partners whose mirrored certificates are kept: more than a hoster federates with at a time.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// A revocation list's life, and after which it is replaced: an Edge that fetches one has it for six days.
const LIST_LIFE: Duration = Duration::from_hours(7 * 24);
const LIST_RENEWED: Duration = Duration::from_hours(24);

impl Mirror {
    pub(super) fn new(ca: &Served, crl_url: Option<&str>) -> Result<Self, &'static str> {
        let own = ca.key.cert.first().ok_or("there is no certificate")?;
        let certificate = parse(own)?;
        if !certificate.is_ca() {
            return Err("the certificate is not one of an authority");
        }
        if let Ok(Some(usage)) = certificate.key_usage()
            && !(usage.value.key_cert_sign() && usage.value.crl_sign())
        {
            return Err(
                "the certificate does not allow signing both certificates and revocation lists",
            );
        }
        let issuer = Issuer::new(&certificate, ca.key.key.clone())
            .ok_or("its key can't sign with RSA PKCS#1 or ECDSA and SHA-2")?;
        let leaf_key = leaf_key().ok_or("no key for mirrored certificates could be made")?;
        let public_key = leaf_key
            .public_key()
            .ok_or("no key for mirrored certificates could be made")?
            .to_vec();
        Ok(Self {
            issuer,
            chain: ca.key.cert.clone(),
            validity: (ca.facts.not_before, ca.facts.not_after),
            crl_url: crl_url.and_then(ascii_url),
            leaf_key,
            public_key,
            minted: Mutex::new(LruCache::new(KEPT)),
            list: Mutex::new(None),
        })
    }

    /// Where Edges look for the revocation list.
    pub fn crl_url(&self) -> Option<&str> {
        self.crl_url.as_deref()
    }

    /// The identity that mirrors a verified certificate, from the cache or newly signed.
    ///
    /// It has the certificate's subject and all its subject alternative names byte for byte, ends no later, and a day from now at the
    /// latest; it is replaced when another would be valid for 12 hours more.
    ///
    /// # Errors
    /// The CA is not valid now, or can't sign.
    pub fn identity(
        &self,
        partner: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<Arc<Mirrored>, MirrorError> {
        let key = fingerprint([partner.as_ref()]);
        let parsed = parse(partner).map_err(MirrorError::Partner)?;
        let life = self.life(parsed.validity().not_after.timestamp(), now)?;
        let worth_replacing = LIFE.as_secs() as i64 / 2;
        if let Some(kept) = self.minted().get(&key)
            // Not so where the clock has been set back.
            && (kept.not_before..kept.not_after).contains(&seconds(now))
            && kept.not_after + worth_replacing > life.1
        {
            return Ok(kept.clone());
        }
        // Not under the lock: signing takes a thousand times longer than looking. Two that come at once sign twice, once.
        let fresh = Arc::new(self.mint(&parsed, life)?);
        self.minted().put(key, fresh.clone());
        Ok(fresh)
    }

    /// Signs an identity for a certificate, past the cache. Returns the chain that an Edge is shown.
    ///
    /// # Errors
    /// As for [`Self::identity`].
    pub fn sign(
        &self,
        partner: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<Mirrored, MirrorError> {
        let parsed = parse(partner).map_err(MirrorError::Partner)?;
        let life = self.life(parsed.validity().not_after.timestamp(), now)?;
        self.mint(&parsed, life)
    }

    fn mint(
        &self,
        partner: &X509Certificate<'_>,
        life: (i64, i64),
    ) -> Result<Mirrored, MirrorError> {
        let names = Names::of(partner).map_err(MirrorError::Partner)?;
        let certificate = self.issuer.certificate(&Leaf {
            subject: names.subject,
            names: names.alternative,
            public_key: &self.public_key,
            validity: life,
            serial: serial()?,
            crl_url: self.crl_url.as_deref(),
        })?;
        let mut chain = vec![certificate];
        chain.extend(self.chain.iter().cloned());
        Ok(Mirrored {
            key: Arc::new(CertifiedKey::new(chain, self.leaf_key.clone())),
            not_before: life.0,
            not_after: life.1,
            // An identity meets few Edges.
            resumption: Resumption::in_memory_sessions(4),
        })
    }

    /// First and last second of a certificate that is signed now.
    fn life(&self, partner_end: i64, now: UnixTime) -> Result<(i64, i64), MirrorError> {
        life(self.validity, partner_end, seconds(now)).ok_or(MirrorError::CaNotValid)
    }

    /// From when until when the CA's certificate is valid, in seconds since 1970.
    pub(super) fn validity(&self) -> (i64, i64) {
        self.validity
    }

    /// The CA's revocation list as DER; it is empty, because mirrored certificates end within a day.
    ///
    /// # Errors
    /// The CA can't sign.
    pub fn revocation_list(&self, now: UnixTime) -> Result<Bytes, MirrorError> {
        let now = seconds(now);
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, der)) = &*list
            && (0..LIST_RENEWED.as_secs() as i64).contains(&(now - made))
        {
            return Ok(der.clone());
        }
        let this_update = now - SLACK.as_secs() as i64;
        let der = self
            .issuer
            .empty_list(this_update, now + LIST_LIFE.as_secs() as i64)?;
        let der = Bytes::from(der);
        *list = Some((now, der.clone()));
        Ok(der)
    }

    fn minted(&self) -> MutexGuard<'_, LruCache<Fingerprint, Arc<Mirrored>>> {
        self.minted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Mirror")
            .field("crl_url", &self.crl_url)
            .field("kept", &self.minted().len())
            .finish_non_exhaustive()
    }
}

impl ResolvesClientCert for Mirrored {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.key.key.choose_scheme(schemes)?;
        Some(self.key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A URL as certificates have it: an IA5String, in which an international name or path is encoded. `None` where it is no URL, which a
/// configuration's has been checked to be.
pub(super) fn ascii_url(url: &str) -> Option<String> {
    Url::parse(url).ok().map(String::from)
}

/// 16 random bytes: unique without a register, and not to be guessed.
fn serial() -> Result<[u8; 16], rustls::Error> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
    Ok(serial)
}

/// RSA-2048, what every Edge accepts.
fn leaf_key() -> Option<Arc<dyn SigningKey>> {
    let pair = KeyPair::generate(KeySize::Rsa2048).ok()?;
    let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
    any_supported_type(&PrivatePkcs8KeyDer::from(der.as_ref().to_vec()).into()).ok()
}
