//! A look at a server with the eyes of somebody who refuses nothing: what it shows is recorded, and judged elsewhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{handshake, provider};

/// One handshake with a server, whatever it shows.
#[derive(Debug)]
pub struct Recorder {
    /// What the handshake goes by. No client certificate is shown.
    pub config: Arc<ClientConfig>,
    shown: Arc<Shown>,
}

/// What a server has shown before the handshake ended, in one way or another.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its own certificate first, then the rest as it was sent; empty where the handshake did not come so far.
    pub chain: Vec<CertificateDer<'static>>,
    /// The version that was agreed on.
    pub version: Option<ProtocolVersion>,
    /// Why the handshake is not signed with the certificate's key.
    pub signature: Option<Error>,
}

#[derive(Debug, Default)]
struct Shown(Mutex<Record>);

impl Recorder {
    /// One that offers these versions of TLS.
    ///
    /// # Errors
    /// TLS can't be set up at all.
    pub fn new(versions: &[&'static SupportedProtocolVersion]) -> Result<Self, Error> {
        let shown = Arc::new(Shown::default());
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&shown) as _;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        // A session that goes on shows no certificate.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            shown,
        })
    }

    /// What was shown so far.
    pub fn record(&self) -> Record {
        self.shown.lock().clone()
    }
}

impl Shown {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(
        &self,
        version: ProtocolVersion,
        verified: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        let mut record = self.lock();
        record.version = Some(version);
        record.signature = verified.err();
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let sent = std::iter::once(end_entity).chain(intermediates);
        self.lock().chain = sent.map(|it| it.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = handshake::tls12(message, certificate, signature);
        self.note(ProtocolVersion::TLSv1_2, verified)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = handshake::tls13(message, certificate, signature);
        self.note(ProtocolVersion::TLSv1_3, verified)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        handshake::schemes()
    }
}
