//! Certificates of every kind.

use std::ops::Range;

use anyhow::{Context as _, Result};
use rcgen::{
    CertificateParams, CrlDistributionPoint, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::{Attribute, Identity, Pki, rsa_key, subject, write};

/// A certificate that is still being described; see [`Pki::certificate`].
#[derive(Debug)]
#[must_use]
pub struct Certificate<'a> {
    pki: &'a Pki,
    file: String,
    names: Vec<String>,
    subject: Option<Vec<u8>>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    /// In seconds from now.
    validity: Range<i64>,
    ecdsa: bool,
    crl_url: Option<String>,
}

const DAY: i64 = 24 * 60 * 60;

impl<'a> Certificate<'a> {
    pub(super) fn new(pki: &'a Pki, file: &str) -> Self {
        Self {
            pki,
            file: file.to_owned(),
            names: Vec::new(),
            subject: None,
            usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            validity: -DAY..365 * DAY,
            ecdsa: false,
            crl_url: None,
        }
    }

    /// The DNS names in it, of which the first is also its common name. Without any it has no names at all.
    pub fn names(self, names: &[&str]) -> Self {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Self { names, ..self }
    }

    /// Its subject, instead of the first name as common name; attributes may come more than once.
    pub fn subject(self, attributes: &[(Attribute, &str)]) -> Self {
        let subject = Some(subject::encode(attributes));
        Self { subject, ..self }
    }

    /// What it is good for, instead of server and client.
    pub fn usages(self, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        let usages = usages.to_vec();
        Self { usages, ..self }
    }

    /// When it is valid, in seconds from now: `-7200..-3600` has expired, `3600..7200` is not valid yet.
    pub fn validity(self, seconds: Range<i64>) -> Self {
        let validity = seconds;
        Self { validity, ..self }
    }

    /// With an ECDSA key on P-256 instead of an RSA one.
    pub fn ecdsa(self) -> Self {
        Self {
            ecdsa: true,
            ..self
        }
    }

    /// Where its CRL is said to be.
    pub fn crl_url(self, url: &str) -> Self {
        let crl_url = Some(url.to_owned());
        Self { crl_url, ..self }
    }

    /// Signs it and writes its files.
    ///
    /// # Errors
    /// A name is none, or a file could not be written.
    pub fn issue(self) -> Result<Identity> {
        let file = &self.file;
        let mut params = CertificateParams::new(self.names.clone())
            .with_context(|| format!("the names of certificate {file}: {:?}", self.names))?;
        params.distinguished_name.remove(DnType::CommonName);
        if let Some(subject) = self.names.first() {
            params.distinguished_name.push(DnType::CommonName, subject);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if !self.ecdsa {
            // Only with RSA does TLS 1.2 know a key exchange that needs it.
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = self.usages;
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::seconds(self.validity.start);
        params.not_after = now + Duration::seconds(self.validity.end);
        // Positive, and never with a leading zero byte.
        params.serial_number = Some(SerialNumber::from(fastrand::u64(1 << 62..1 << 63)));
        let uris = self.crl_url.into_iter().collect::<Vec<_>>();
        if !uris.is_empty() {
            params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        }

        let key = if self.ecdsa {
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making an ECDSA key")?
        } else {
            rsa_key()?
        };
        let signed = params.signed_by(&key, &self.pki.issuer)?;
        let pem = match &self.subject {
            None => signed.pem(),
            Some(subject) => {
                let der = subject::replace(signed.der(), subject, self.pki.issuer.key())?;
                let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
                pem::encode_config(&pem::Pem::new("CERTIFICATE", der), lines)
            }
        };
        let identity = Identity {
            chain: self.pki.directory.join(format!("{file}.pem")),
            key: self.pki.directory.join(format!("{file}.key")),
            names: self.names,
        };
        write(&identity.chain, &(pem + &self.pki.pem))?;
        write(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }
}
