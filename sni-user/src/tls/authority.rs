//! The private CA that `snigate ca init` makes, and the gateway's certificate that it signs.

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use time::{Duration, OffsetDateTime};

use super::mirror::ascii_url;

/// Why it could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the certificate could not be made: {0}")]
pub struct AuthorityError(#[from] rcgen::Error);

/// A certificate and its key, as PEM.
pub struct PemPair {
    /// The certificate, and behind it its issuer's where it has another.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// A new private CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    not_after: OffsetDateTime,
}

impl Authority {
    /// Makes a CA that may sign no further CAs. Its key is RSA-2048 and its signatures are PKCS#1 v1.5, what every Edge accepts; a longer key
    /// would more than double what each mirrored partner costs.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(common_name: &str, days: u32) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let mut params = params(common_name, days);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            not_after: params.not_after,
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// The CA's own certificate and key.
    pub fn pem(&self) -> PemPair {
        PemPair {
            certificate: self.certificate.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// A certificate for the gateway as a client of Edges, with as long a life as the CA and a CRL distribution point if there is a URL.
    ///
    /// # Errors
    /// The name is none, or no randomness.
    pub fn gateway(&self, name: &str, crl_url: Option<&str>) -> Result<PemPair, AuthorityError> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let mut params = params(name, 0);
        params.not_after = self.not_after;
        params.subject_alt_names = CertificateParams::new([name.to_owned()])?.subject_alt_names;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.crl_distribution_points = crl_url
            .and_then(ascii_url)
            .map(|url| CrlDistributionPoint { uris: vec![url] })
            .into_iter()
            .collect();
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(PemPair {
            certificate: certificate.pem() + &self.certificate,
            key: key.serialize_pem(),
        })
    }
}

fn params(common_name: &str, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // An Edge's clock may be behind.
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(days.into());
    params
}
