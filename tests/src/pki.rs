//! Certificates made on the fly: good ones with [`Pki::server`], every other kind with [`Pki::certificate`].

mod certificate;
mod subject;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RevokedCertParams, RsaKeySize, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

pub use certificate::Certificate;
pub use subject::Attribute;

/// A certificate authority and the directory that its certificates are written to.
#[derive(Debug)]
pub struct Pki {
    name: String,
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    roots: PathBuf,
    /// What follows a certificate in its chain file: this authority's own.
    pem: String,
}

/// A certificate with its key, as PEM files.
///
/// A certificate with a key that is not its own is `Identity { key: other.key.clone(), ..identity }`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate followed by its issuer's.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The names in it.
    pub names: Vec<String>,
}

impl Pki {
    /// Makes an authority called `name` that writes to `directory`.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn new(name: &str, directory: &Path) -> Result<Self> {
        let params = authority(&format!("{name} root"));
        let key = rsa_key()?;
        let pem = params.self_signed(&key)?.pem();
        let roots = directory.join(format!("{name}.ca.pem"));
        write(&roots, &pem)?;
        Ok(Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            issuer: Issuer::new(params, key),
            roots,
            pem,
        })
    }

    /// An authority called `name` below this one. Chain files of its certificates hold the certificate and its own, as
    /// public authorities hand them out: the root, which is still what [`Self::roots`] names, is not in them.
    ///
    /// # Errors
    /// No key could be made.
    pub fn intermediate(&self, name: &str) -> Result<Self> {
        let mut params = authority(&format!("{name} intermediate"));
        params.use_authority_key_identifier_extension = true;
        let key = rsa_key()?;
        let pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Self {
            name: name.to_owned(),
            directory: self.directory.clone(),
            issuer: Issuer::new(params, key),
            roots: self.roots.clone(),
            pem,
        })
    }

    /// The file with the authority's own certificate, or that of the root above it.
    #[must_use]
    pub fn roots(&self) -> &Path {
        &self.roots
    }

    /// A certificate for both roles of a federating server, as an Edge has one: the first name is also its subject.
    ///
    /// # Errors
    /// A name is none, or a file could not be written.
    pub fn server(&self, file: &str, names: &[&str]) -> Result<Identity> {
        self.certificate(file).names(names).issue()
    }

    /// A certificate of the kind that public authorities issue since 2026: for servers only, although partners go on
    /// presenting it as clients.
    ///
    /// # Errors
    /// A name is none, or a file could not be written.
    pub fn server_only(&self, file: &str, names: &[&str]) -> Result<Identity> {
        self.certificate(file)
            .names(names)
            .usages(&[ExtendedKeyUsagePurpose::ServerAuth])
            .issue()
    }

    /// A certificate of any kind, to be written to `<file>.pem` and `<file>.key`. It is valid, for both roles, and has an
    /// RSA key, unless told otherwise.
    pub fn certificate(&self, file: &str) -> Certificate<'_> {
        Certificate::new(self, file)
    }

    /// Writes a CRL of this authority that lists these certificates, and returns its file, `<authority>.crl.pem`. It
    /// replaces the last one.
    ///
    /// # Errors
    /// A certificate could not be read, or the file not be written.
    pub fn revocation_list(&self, revoked: &[&Identity]) -> Result<PathBuf> {
        let now = OffsetDateTime::now_utc();
        let entry = |identity: &&Identity| {
            Ok(RevokedCertParams {
                serial_number: identity.serial()?.into(),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::days(1),
            next_update: now + Duration::days(7),
            // Grows with the time, as a number of a CRL has to (RFC 5280 section 5.2.3).
            crl_number: SerialNumber::from(now.unix_timestamp().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.directory.join(format!("{}.crl.pem", self.name));
        write(&path, &list.signed_by(&self.issuer)?.pem()?)?;
        Ok(path)
    }
}

impl Identity {
    /// The serial number of the certificate, big-endian.
    ///
    /// # Errors
    /// The certificate could not be read.
    pub fn serial(&self) -> Result<Vec<u8>> {
        let bytes =
            fs::read(&self.chain).with_context(|| format!("reading {}", self.chain.display()))?;
        let pem = Pem::iter_from_buffer(&bytes).next();
        let pem = pem.with_context(|| format!("{} is empty", self.chain.display()))??;
        let certificate = pem.parse_x509().context("parsing a certificate")?;
        Ok(certificate.raw_serial().to_vec())
    }

    /// The SHA-256 of the certificate in DER, its fingerprint.
    ///
    /// # Errors
    /// The certificate could not be read.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        let digest = digest(&SHA256, &self.certificate()?.contents);
        Ok(digest.as_ref().try_into()?)
    }

    /// The same certificate with the chain in the order `order`, counted from 0, as `<file>.pem`: `[1, 0]` is the wrong
    /// way round, `[0]` leaves the issuer out.
    ///
    /// # Errors
    /// There is no such certificate in the chain, or a file could not be read or written.
    pub fn with_chain(&self, file: &str, order: &[usize]) -> Result<Self> {
        let text = fs::read_to_string(&self.chain)
            .with_context(|| format!("reading {}", self.chain.display()))?;
        let blocks: Vec<&str> = text
            .split_inclusive("-----END CERTIFICATE-----\n")
            .collect();
        let ordered: Option<String> = order.iter().map(|&n| blocks.get(n).copied()).collect();
        let text = ordered.with_context(|| {
            let count = blocks.len();
            format!(
                "{} has {count} certificates, not {order:?}",
                self.chain.display()
            )
        })?;
        let chain = self.chain.with_file_name(format!("{file}.pem"));
        write(&chain, &text)?;
        Ok(Self {
            chain,
            ..self.clone()
        })
    }

    fn certificate(&self) -> Result<Pem> {
        let file = self.chain.display();
        let bytes = fs::read(&self.chain).with_context(|| format!("reading {file}"))?;
        let first = Pem::iter_from_buffer(&bytes).next();
        Ok(first.with_context(|| format!("{file} is empty"))??)
    }
}

/// What a CA certificate is made from.
fn authority(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// RSA-2048 with PKCS#1 v1.5 signatures: what every federation partner accepts.
fn rsa_key() -> Result<KeyPair> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).context("making an RSA key")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests;
