//! The side that partners see.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rustls::{
    Error, ServerConfig,
    crypto::aws_lc_rs::Ticketer,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
        WebPkiClientVerifier,
    },
    sign::CertifiedKey,
};

use super::{chain::Served, edge::Identity, ocsp::Staple, partner::PartnerVerifier, provider};
use crate::config::{AlpnProtocol, HostName};

/// A domain whose TLS ends here.
#[derive(Debug)]
pub struct Terminating {
    sip_domain: HostName,
    /// The name that an Edge is asked for when it has none of its own and the partner asked for none.
    name: HostName,
    parts: Parts,
    server: Arc<ServerConfig>,
}

/// What makes a domain's sessions what they are.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) served: Arc<Served>,
    pub(super) staple: Option<Staple>,
    /// `None`: partners are not asked for a certificate.
    pub(super) partners: Option<Arc<PartnerVerifier>>,
    pub(super) identity: Identity,
    pub(super) alpn: Vec<AlpnProtocol>,
}

impl Parts {
    /// Whether sessions of one can be resumed with the other.
    pub(super) fn are_the_same(&self, other: &Self) -> bool {
        let same_partners = match (&self.partners, &other.partners) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same_partners
            && Arc::ptr_eq(&self.served, &other.served)
            && self.staple == other.staple
            && self.identity.is_the_same(&other.identity)
            && self.alpn == other.alpn
    }
}

impl Terminating {
    pub(super) fn new(
        sip_domain: &HostName,
        name: &HostName,
        parts: Parts,
        sessions: &Arc<ServerSessionMemoryCache>,
    ) -> Result<Self, Error> {
        let builder = ServerConfig::builder_with_provider(provider().clone())
            .with_safe_default_protocol_versions()?;
        let builder = match &parts.partners {
            Some(partners) => builder.with_client_cert_verifier(partners.clone()),
            None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
        };
        let certificate = Certificate::new(&parts);
        let mut server = builder.with_cert_resolver(Arc::new(certificate));
        server.ticketer = Ticketer::new()?;
        server.session_storage = Arc::new(Sessions::new(sessions.clone()));
        server.alpn_protocols = parts
            .alpn
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        // For `fatal_alert`.
        server.enable_secret_extraction = true;
        Ok(Self {
            sip_domain: sip_domain.clone(),
            name: name.clone(),
            parts,
            server: Arc::new(server),
        })
    }

    /// The SIP domain.
    pub fn sip_domain(&self) -> &HostName {
        &self.sip_domain
    }

    /// The first of its server names, a wildcard without its `*.`.
    pub fn name(&self) -> &HostName {
        &self.name
    }

    /// What the Edge is shown.
    pub fn identity(&self) -> &Identity {
        &self.parts.identity
    }

    /// What handshakes with its partners go by.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// Verifies what a resumed session has brought along from its first handshake, empty where the partner showed no certificate.
    ///
    /// # Errors
    /// What a full handshake would have refused it for.
    pub fn check_again(&self, shown: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        match &self.parts.partners {
            // Optional, or the first handshake would have failed: sessions don't outlive a change of the demands.
            _ if shown.is_empty() => Ok(()),
            Some(partners) => partners.verify(shown, now),
            None => Ok(()),
        }
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }
}

/// The certificate of a domain, whatever is asked for: the domain was chosen by the name already.
#[derive(Debug)]
struct Certificate {
    plain: Arc<CertifiedKey>,
    stapled: Option<(Staple, Arc<CertifiedKey>)>,
}

impl Certificate {
    fn new(parts: &Parts) -> Self {
        let plain = &parts.served.key;
        let stapled = parts.staple.clone().map(|staple| {
            let mut key = CertifiedKey::clone(plain);
            key.ocsp = Some(staple.der.clone());
            (staple, Arc::new(key))
        });
        Self {
            plain: plain.clone(),
            stapled,
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &self.stapled {
            // Looked at each time: a response ends while the agent runs, and peers refuse a stale one.
            Some((staple, key)) if staple.is_current(UnixTime::now()) => Some(key.clone()),
            _ => Some(self.plain.clone()),
        }
    }
}

/// A domain's part of the one cache of sessions. Ten thousand caches would take 300 MB, empty.
#[derive(Debug)]
struct Sessions {
    cache: Arc<ServerSessionMemoryCache>,
    prefix: [u8; 8],
}

impl Sessions {
    fn new(cache: Arc<ServerSessionMemoryCache>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            cache,
            prefix: NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes(),
        }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.cache.put(self.key(&key), value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.get(&self.key(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.take(&self.key(key))
    }

    fn can_cache(&self) -> bool {
        self.cache.can_cache()
    }
}
