//! How a check of an Edge looks at its certificate.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{
    certificate::{Facts, date},
    edge::EdgeTls,
    handshake, provider,
};

/// One handshake with an Edge, to look at what it shows.
#[derive(Debug)]
pub struct CheckTls {
    /// What the handshake goes by.
    pub config: Arc<ClientConfig>,
    /// The name that the Edge is asked for.
    pub name: ServerName<'static>,
    looking: Arc<Looking>,
}

/// What is made of the certificate.
#[derive(Debug)]
struct Looking {
    /// None where it is not known who may have signed it, for which name: then only its dates are looked at.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    /// When the certificate that was found good ends.
    good_until: Mutex<Option<i64>>,
}

impl CheckTls {
    /// Of an Edge whose name and roots are configured, or of one that has an address only.
    ///
    /// # Errors
    /// TLS can't be set up at all.
    pub fn new(edge: Option<&EdgeTls>, address: IpAddr) -> Result<Self, Error> {
        let own = edge.and_then(|edge| {
            let (config, verifier, name) = edge.own();
            let name = ServerName::try_from(name?.as_str().to_owned()).ok()?;
            Some((config.clone(), Arc::clone(verifier), name))
        });
        let (mut config, verifier, name) = match own {
            Some((config, verifier, name)) => (config, Some(verifier), name),
            // An address is asked for by no server name.
            None => (unnamed()?, None, ServerName::from(address)),
        };
        let looking = Arc::new(Looking {
            verifier,
            good_until: Mutex::default(),
        });
        // A session that goes on shows no certificate.
        config.resumption = Resumption::disabled();
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&looking) as _;
        config.dangerous().set_certificate_verifier(verifier);
        Ok(Self {
            config: Arc::new(config),
            name,
            looking,
        })
    }

    /// The last day of the certificate, if the Edge has shown one and nothing is wrong with it.
    pub fn good_until(&self) -> Option<String> {
        let good = self.looking.good_until.lock();
        good.unwrap_or_else(PoisonError::into_inner).map(date)
    }
}

/// For an Edge that is asked for no name. It shows nothing of the gateway's.
fn unnamed() -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty());
    Ok(builder.with_no_client_auth())
}

impl ServerCertVerifier for Looking {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(verifier) = &self.verifier {
            verifier.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )?;
        }
        let facts = Facts::of(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if !facts.has_begun(now) {
            return Err(CertificateError::NotValidYet.into());
        }
        if facts.time_left(now).is_none() {
            return Err(CertificateError::Expired.into());
        }
        let mut good_until = self
            .good_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *good_until = Some(facts.not_after);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        handshake::tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        handshake::tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        handshake::schemes()
    }
}
