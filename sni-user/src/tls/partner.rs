//! The verification of partners' certificates.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    CertRevocationListError, CertificateError, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeId,
    KeyPurposeIdIter, OwnedCertRevocationList, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::{prelude::FromDer as _, revocation_list::CertificateRevocationList};

use super::{certificate::date, files::File, finding::Note, provider};

/// Verifies chain, validity and revocation of partners' certificates.
///
/// rustls's own verifier asks for the purpose clientAuth, which public authorities no longer issue since 2026; this one accepts serverAuth
/// as well.
pub(super) struct PartnerVerifier {
    roots: Arc<RootCertStore>,
    lists: Vec<Arc<RevocationLists>>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PartnerVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        lists: Vec<Arc<RevocationLists>>,
        mandatory: bool,
    ) -> Self {
        Self {
            roots,
            lists,
            mandatory,
            algorithms: provider().signature_verification_algorithms,
        }
    }

    /// Verifies a chain as it was shown, the partner's own certificate first.
    pub(super) fn verify(&self, shown: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let (own, intermediates) = shown.split_first().ok_or(Error::NoCertificatesPresented)?;
        let lists: Vec<_> = self
            .lists
            .iter()
            .flat_map(|lists| lists.lists.iter())
            .collect();
        // An error only where there is no list.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                // Lists are named for some authorities; partners of others are not refused for want of theirs.
                .with_status_policy(UnknownStatusPolicy::Allow)
                // A list that nobody renews would let revoked partners in, unnoticed.
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        EndEntityCert::try_from(own)
            .and_then(|certificate| {
                certificate
                    .verify_for_usage(
                        self.algorithms.all,
                        &self.roots.roots,
                        intermediates,
                        now,
                        ClientOrServer,
                        revocation,
                        None,
                    )
                    .map(drop)
            })
            .map_err(refusal)
    }
}

impl fmt::Debug for PartnerVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PartnerVerifier")
            .field("roots", &self.roots.len())
            .field("mandatory", &self.mandatory)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for PartnerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: the names of a system's roots take 15 kB of every handshake, and partners have one certificate to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut shown = vec![end_entity.clone()];
        shown.extend_from_slice(intermediates);
        self.verify(&shown, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Extended key usages that a partner's certificate may have: for clients or servers, any, or no restriction (RFC 5280 section 4.2.1.12).
#[derive(Clone, Copy)]
struct ClientOrServer;

/// DER contents of id-kp-serverAuth, id-kp-clientAuth and anyExtendedKeyUsage.
const ACCEPTED: [KeyPurposeId<'static>; 3] = [
    KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]),
    KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]),
    KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0]),
];

impl ExtendedKeyUsageValidator for ClientOrServer {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?;
            if ACCEPTED.contains(&purpose) {
                return Ok(());
            }
            present.push(purpose.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(
            webpki::RequiredEkuNotFoundContext {
                required: webpki::KeyUsage::client_auth(),
                present,
            },
        ))
    }
}

/// rustls chooses the alert by its own errors.
fn refusal(error: webpki::Error) -> Error {
    use webpki::Error as Pki;
    let certificate = match error {
        Pki::BadDer | Pki::BadDerTime | Pki::TrailingData(_) => CertificateError::BadEncoding,
        Pki::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        Pki::InvalidCertValidity => CertificateError::Expired,
        Pki::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Pki::UnknownIssuer => CertificateError::UnknownIssuer,
        Pki::CertRevoked => CertificateError::Revoked,
        Pki::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        Pki::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Pki::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        Pki::InvalidCrlSignatureForPublicKey => {
            return CertRevocationListError::BadSignature.into();
        }
        Pki::IssuerNotCrlSigner => return CertRevocationListError::IssuerInvalidForCrl.into(),
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    certificate.into()
}

/// The revocation lists of one file.
#[derive(Debug)]
pub(super) struct RevocationLists {
    lists: Vec<CertRevocationList<'static>>,
    /// The earliest end of a list, seconds since 1970.
    next_update: i64,
}

impl RevocationLists {
    pub(super) fn read(file: &File) -> Result<Self, Note> {
        let mut lists = Vec::new();
        let mut next_update = i64::MAX;
        for (place, der) in (1..).zip(file.revocation_lists()?) {
            let unusable = |reason: String| {
                Note::error(
                    &file.path,
                    format!("revocation list {place} of the file can't be used: {reason}"),
                    "fetch it again from the authority; it must be a complete list of version 2",
                )
            };
            let list = OwnedCertRevocationList::from_der(&der)
                .map_err(|error| unusable(error.to_string()))?;
            let (_, facts) = CertificateRevocationList::from_der(&der)
                .map_err(|_| unusable("it is damaged".to_owned()))?;
            // The first has seen to it that there is one.
            if let Some(update) = facts.next_update() {
                next_update = next_update.min(update.timestamp());
            }
            lists.push(CertRevocationList::from(list));
        }
        Ok(Self { lists, next_update })
    }

    /// What is to be said about it now.
    pub(super) fn note(&self, path: &Path, now: UnixTime) -> Option<Note> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        (self.next_update <= now).then(|| {
            Note::warning(
                path,
                format!(
                    "the revocation list should have been renewed by {}: partners of this authority are refused",
                    date(self.next_update)
                ),
                "fetch it again from the authority, regularly; it is taken up at once",
            )
        })
    }
}
