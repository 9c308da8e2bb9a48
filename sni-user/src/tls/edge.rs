//! The side that Edges see.

use std::sync::Arc;

use rustls::{
    ClientConfig, Error, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{
    mirror::{Mirror, MirrorError},
    provider,
};
use crate::config::HostName;

/// What an Edge is shown.
#[derive(Clone, Debug)]
pub enum Identity {
    /// No client certificate.
    Anonymous,
    /// The gateway's own client certificate.
    Gateway,
    /// A certificate with the partner's subject and names.
    Mirror(Arc<Mirror>),
}

impl Identity {
    pub(super) fn is_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anonymous, Self::Anonymous) | (Self::Gateway, Self::Gateway) => true,
            (Self::Mirror(one), Self::Mirror(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// How an Edge is verified, and what it is shown.
#[derive(Debug)]
pub struct EdgeTls {
    /// The name its certificate must have; `None`, the one that the partner asked for.
    name: Option<HostName>,
    anonymous: Arc<ClientConfig>,
    gateway: Option<Arc<ClientConfig>>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl EdgeTls {
    pub(super) fn new(
        name: Option<HostName>,
        roots: Arc<RootCertStore>,
        gateway: Option<&rustls::sign::CertifiedKey>,
    ) -> Result<Self, Error> {
        let provider = provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let builder = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map(|builder| builder.with_webpki_verifier(verifier.clone()))
        };
        // Sessions are kept by name, and an Edge has one.
        let resumption = || Resumption::in_memory_sessions(64);
        let mut anonymous = builder()?.with_no_client_auth();
        anonymous.resumption = resumption();
        let gateway = match gateway {
            None => None,
            Some(key) => {
                let resolver = rustls::sign::SingleCertAndKey::from(key.clone());
                let mut config = builder()?.with_client_cert_resolver(Arc::new(resolver));
                config.resumption = resumption();
                Some(Arc::new(config))
            }
        };
        Ok(Self {
            name,
            anonymous: Arc::new(anonymous),
            gateway,
            verifier,
        })
    }

    /// What the gateway shows by itself, the verifier, and the name, where it is the Edge's own.
    pub(super) fn own(&self) -> (&ClientConfig, &Arc<WebPkiServerVerifier>, Option<&HostName>) {
        let config = self.gateway.as_ref().unwrap_or(&self.anonymous);
        (config, &self.verifier, self.name.as_ref())
    }

    /// The name that the Edge's certificate must have, and that it is asked for: its own, else the partner's, else the domain's.
    pub fn server_name(&self, asked_for: Option<&str>, domain: &HostName) -> ServerName<'static> {
        let by_name = |name: &str| ServerName::try_from(name.to_owned()).ok();
        self.name
            .as_ref()
            .and_then(|name| by_name(name.as_str()))
            .or_else(|| asked_for.and_then(by_name))
            .or_else(|| by_name(domain.as_str()))
            // A configuration's host names are DNS names; an address is what no certificate is accepted for here.
            .unwrap_or_else(|| std::net::IpAddr::from([0, 0, 0, 0]).into())
    }

    /// What a handshake with the Edge goes by, for a partner that has shown these certificates, its own first.
    ///
    /// A partner that showed none (its domain does not require it) is mirrored by none.
    ///
    /// # Errors
    /// The partner could not be mirrored.
    pub fn client_config(
        &self,
        identity: &Identity,
        partner: &[CertificateDer<'_>],
        alpn: Option<&[u8]>,
        now: UnixTime,
    ) -> Result<Arc<ClientConfig>, MirrorError> {
        let config = match (identity, partner.first()) {
            (Identity::Mirror(mirror), Some(partner)) => {
                let mirrored = mirror.identity(partner, now)?;
                let mut config = ClientConfig::clone(&self.anonymous);
                config.resumption = mirrored.resumption();
                config.client_auth_cert_resolver = mirrored;
                Arc::new(config)
            }
            (Identity::Gateway, _) => self.gateway.as_ref().unwrap_or(&self.anonymous).clone(),
            (Identity::Anonymous | Identity::Mirror(_), _) => self.anonymous.clone(),
        };
        let Some(alpn) = alpn else { return Ok(config) };
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config.into())
    }
}
