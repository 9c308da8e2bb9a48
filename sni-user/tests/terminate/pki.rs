//! Certificates made for one test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RevokedCertParams, RsaKeySize, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// An authority whose files are in a directory.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a certificate is to be like.
pub(crate) struct Wanted<'a> {
    pub(crate) names: &'a [&'a str],
    /// Days from now; the end is half a day later, so that no test's whole days depend on the second it runs in.
    pub(crate) life: (i64, i64),
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) rsa: bool,
    pub(crate) serial: u64,
}

impl<'a> Wanted<'a> {
    /// What public authorities issue since 2026: for servers only. The key is P-256, because making RSA keys takes long.
    pub(crate) fn new(names: &'a [&'a str]) -> Self {
        Self {
            names,
            life: (-1, 90),
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
            rsa: false,
            serial: 0x1234,
        }
    }
}

impl Authority {
    /// A root called `name`, written to `<name>.pem`.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let key = key(false);
        let params = ca_params(name);
        let pem = params.self_signed(&key).expect("a root").pem();
        write(directory, &format!("{name}.pem"), &pem);
        write(directory, &format!("{name}.key"), &key.serialize_pem());
        Self {
            directory: directory.to_owned(),
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A further authority below this one.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = key(false);
        let mut params = ca_params(name);
        params.use_authority_key_identifier_extension = true;
        let pem = params.signed_by(&key, &self.issuer).expect("one").pem();
        Self {
            directory: self.directory.clone(),
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes `<file>.pem` with the certificate alone and `<file>.key`; returns the certificate.
    pub(crate) fn issue(&self, file: &str, wanted: &Wanted<'_>) -> String {
        let key = key(wanted.rsa);
        let mut params = CertificateParams::new(
            wanted
                .names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )
        .expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, wanted.names[0]);
        params.not_before = OffsetDateTime::now_utc() + Duration::days(wanted.life.0);
        params.not_after =
            OffsetDateTime::now_utc() + Duration::days(wanted.life.1) + Duration::hours(12);
        params.extended_key_usages = wanted.usages.clone();
        params.serial_number = Some(SerialNumber::from(wanted.serial));
        params.use_authority_key_identifier_extension = true;
        let pem = params.signed_by(&key, &self.issuer).expect("a leaf").pem();
        write(&self.directory, &format!("{file}.pem"), &pem);
        write(
            &self.directory,
            &format!("{file}.key"),
            &key.serialize_pem(),
        );
        pem
    }

    /// Writes a list with these serial numbers to `<file>`, which ends so many days from now.
    pub(crate) fn revoke(&self, file: &str, serials: &[u64], days: i64) {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - Duration::days(20),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::days(10),
            next_update: now + Duration::days(days),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        write(&self.directory, file, &list.pem().expect("PEM"));
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn key(rsa: bool) -> KeyPair {
    let key = if rsa {
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
    } else {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
    };
    key.expect("a key")
}

/// Writes a file that only its owner may read.
pub(crate) fn write(directory: &Path, file: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join(file);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
}

/// Runs `openssl` in a directory; it must succeed.
pub(crate) fn openssl(directory: &Path, arguments: &str) -> String {
    let output = Command::new("openssl")
        .current_dir(directory)
        .args(arguments.split_whitespace())
        .output()
        .expect("openssl; `apt-get install openssl`");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {text}");
    text
}
