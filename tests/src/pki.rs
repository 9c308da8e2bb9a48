//! Certificates made on the fly.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};

/// A certificate authority and the directory that its certificates are written to.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    roots: PathBuf,
    pem: String,
}

/// A certificate with its key, as PEM files.
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
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{name} root"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = rsa_key()?;
        let pem = params.self_signed(&key)?.pem();
        let roots = directory.join(format!("{name}.ca.pem"));
        fs::write(&roots, &pem).with_context(|| format!("writing {}", roots.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            issuer: Issuer::new(params, key),
            roots,
            pem,
        })
    }

    /// The file with the authority's own certificate.
    #[must_use]
    pub fn roots(&self) -> &Path {
        &self.roots
    }

    /// A certificate for both roles of a federating server, as an Edge has one: the first name is also its subject.
    ///
    /// # Errors
    /// A name is none, or a file could not be written.
    pub fn server(&self, file: &str, names: &[&str]) -> Result<Identity> {
        self.issue(
            file,
            names,
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        )
    }

    /// A certificate of the kind that public authorities issue since 2026: for servers only, although partners go on
    /// presenting it as clients.
    ///
    /// # Errors
    /// A name is none, or a file could not be written.
    pub fn server_only(&self, file: &str, names: &[&str]) -> Result<Identity> {
        self.issue(file, names, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    fn issue(
        &self,
        file: &str,
        names: &[&str],
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())
            .with_context(|| format!("the names of certificate {file}: {names:?}"))?;
        if let Some(subject) = names.first() {
            params.distinguished_name.push(DnType::CommonName, subject);
        }
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let key = rsa_key()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            chain: self.directory.join(format!("{file}.pem")),
            key: self.directory.join(format!("{file}.key")),
            names,
        };
        fs::write(&identity.chain, certificate.pem() + &self.pem)
            .with_context(|| format!("writing {}", identity.chain.display()))?;
        fs::write(&identity.key, key.serialize_pem())
            .with_context(|| format!("writing {}", identity.key.display()))?;
        Ok(identity)
    }
}

/// RSA-2048 with PKCS#1 v1.5 signatures: what every federation partner accepts.
fn rsa_key() -> Result<KeyPair> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).context("making an RSA key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::pem::Pem;

    #[test]
    fn a_certificate_carries_its_names_and_its_issuer() -> Result<()> {
        let directory = std::env::temp_dir().join(format!("snigate-pki-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let pki = Pki::new("test", &directory)?;
        let names: Vec<String> = (0..100)
            .map(|n| format!("sip.customer{n}.example"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let identity = pki.server("edge", &names)?;
        let chain = fs::read(&identity.chain)?;
        fs::remove_dir_all(&directory)?;

        let pems: Vec<Pem> = Pem::iter_from_buffer(&chain).collect::<Result<_, _>>()?;
        assert_eq!(pems.len(), 2);
        let certificate = pems[0].parse_x509()?;
        let found = certificate
            .subject_alternative_name()?
            .context("no names")?;
        assert_eq!(found.value.general_names.len(), 100);
        assert_eq!(certificate.issuer(), pems[1].parse_x509()?.subject());
        Ok(())
    }
}
