//! rustls on either end.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use super::TlsVersion;
use super::request::{GREETING, Greeting};
use crate::pki::{Identity, Pki};

/// How a Rust Edge speaks TLS: with its certificate, and only to clients with one of the same authority.
#[derive(Clone, Debug)]
pub struct EdgeTls(Arc<ServerConfig>);

/// How a Rust partner speaks TLS: asking for a name, which the certificate must carry, and presenting its own.
#[derive(Clone, Debug)]
pub struct PartnerTls(Way);

#[derive(Clone, Debug)]
enum Way {
    Rustls {
        config: Arc<ClientConfig>,
        server_name: ServerName<'static>,
    },
    Replayed {
        hello: Vec<u8>,
        greeting: Greeting,
    },
}

impl EdgeTls {
    /// TLS 1.2 and 1.3 with this certificate.
    ///
    /// # Errors
    /// The certificate or key does not fit.
    pub fn new(identity: &Identity, pki: &Pki) -> Result<Self> {
        Self::for_clients_of(pki.roots(), identity)
    }

    /// The same, for clients with a certificate of an authority in the file `clients`.
    ///
    /// # Errors
    /// The certificate or key does not fit, or there is no authority in the file.
    pub fn for_clients_of(clients: &Path, identity: &Identity) -> Result<Self> {
        let provider = provider();
        let roots = Arc::new(roots(clients)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .context("the authority that partners are verified with")?;
        let (chain, key) = load(identity)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(None))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .with_context(|| format!("the certificate {}", identity.chain.display()))?;
        Ok(Self(Arc::new(config)))
    }

    /// The same for any client: none is asked for a certificate.
    ///
    /// # Errors
    /// The certificate or key does not fit.
    pub fn for_anybody(identity: &Identity) -> Result<Self> {
        let (chain, key) = load(identity)?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(None))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .with_context(|| format!("the certificate {}", identity.chain.display()))?;
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn accept(&self) -> Result<rustls::Connection> {
        Ok(ServerConnection::new(Arc::clone(&self.0))?.into())
    }
}

impl PartnerTls {
    /// Asks for `server_name` in `version`, or in any.
    ///
    /// # Errors
    /// The certificate or key does not fit, or the name is none.
    pub fn new(
        server_name: &str,
        identity: &Identity,
        pki: &Pki,
        version: Option<TlsVersion>,
    ) -> Result<Self> {
        Self::trusting(server_name, identity, pki.roots(), version)
    }

    /// The same, with other authorities than the partner's own: those in the file `trusted`.
    ///
    /// # Errors
    /// The certificate or key does not fit, there is no authority in the file, or the name is none.
    pub fn trusting(
        server_name: &str,
        identity: &Identity,
        trusted: &Path,
        version: Option<TlsVersion>,
    ) -> Result<Self> {
        let (chain, key) = load(identity)?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(version))?
            .with_root_certificates(roots(trusted)?)
            .with_client_auth_cert(chain, key)
            .with_context(|| format!("the certificate {}", identity.chain.display()))?;
        Ok(Self(Way::Rustls {
            config: Arc::new(config),
            server_name: ServerName::try_from(server_name.to_owned())
                .with_context(|| format!("{server_name} is no server name"))?,
        }))
    }

    /// No TLS at all, but what a gateway takes for it: the hello of another program, as it is, and plain TCP behind it. An
    /// [`Edge`](super::Edge) without TLS skips the hello.
    #[must_use]
    pub fn replayed(hello: Vec<u8>) -> Self {
        Self::replayed_to(hello, GREETING)
    }

    /// Likewise, for an Edge that greets by this word; another Edge is a failure.
    #[must_use]
    pub fn replayed_to(hello: Vec<u8>, greeting: Greeting) -> Self {
        Self(Way::Replayed { hello, greeting })
    }

    /// The same, with a full handshake each time: a resumed session shows the certificate of the one it goes on from.
    #[must_use]
    pub fn without_resumption(self) -> Self {
        match self.0 {
            Way::Rustls {
                config,
                server_name,
            } => {
                let mut config = Arc::unwrap_or_clone(config);
                config.resumption = Resumption::disabled();
                Self(Way::Rustls {
                    config: Arc::new(config),
                    server_name,
                })
            }
            Way::Replayed { .. } => self,
        }
    }

    pub(crate) fn connect(&self) -> Result<Option<rustls::Connection>> {
        match &self.0 {
            Way::Rustls {
                config,
                server_name,
            } => {
                let connection = ClientConnection::new(Arc::clone(config), server_name.clone())?;
                Ok(Some(connection.into()))
            }
            Way::Replayed { .. } => Ok(None),
        }
    }

    /// What stands before the first byte of a connection that is no TLS.
    pub(crate) fn replayed_hello(&self) -> &[u8] {
        match &self.0 {
            Way::Rustls { .. } => &[],
            Way::Replayed { hello, .. } => hello,
        }
    }

    /// What an Edge answers to it.
    pub(crate) fn greeting(&self) -> Greeting {
        match &self.0 {
            Way::Rustls { .. } => GREETING,
            Way::Replayed { greeting, .. } => *greeting,
        }
    }
}

/// The ClientHello that a partner begins with when it asks for `server_name`: one record.
///
/// # Errors
/// The name is none.
pub fn client_hello(server_name: &str) -> Result<Vec<u8>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(None))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(server_name.to_owned())
        .with_context(|| format!("{server_name} is no server name"))?;
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name)?.write_tls(&mut hello)?;
    Ok(hello)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn versions(only: Option<TlsVersion>) -> &'static [&'static SupportedProtocolVersion] {
    static V12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
    static V13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match only {
        None => rustls::ALL_VERSIONS,
        Some(TlsVersion::V12) => &V12,
        Some(TlsVersion::V13) => &V13,
    }
}

fn roots(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn load(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let key = PrivateKeyDer::from_pem_file(&identity.key)
        .with_context(|| format!("reading {}", identity.key.display()))?;
    Ok((certificates(&identity.chain)?, key))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading {}", file.display()))
}
