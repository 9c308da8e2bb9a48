//! What is read from a certificate.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_PKCS1_RSASSAPSS, OID_X509_EXT_SUBJECT_ALT_NAME},
    prelude::FromDer as _,
    public_key::PublicKey,
    x509::X509Name,
};

use crate::config::ServerName;

/// What people want to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The subject's common name, or the whole subject where it has none.
    pub subject: String,
    /// The issuer's common name, or the whole issuer where it has none.
    pub issuer: String,
    /// DNS names, lower case; the common name where it has no subject alternative names at all.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Such as `RSA 2048` or `P-256`.
    pub key: String,
    /// Whether its issuer has its own name.
    pub self_issued: bool,
    /// Whether it is signed with RSASSA-PSS.
    pub pss: bool,
    /// SHA-256 of the whole, in hexadecimal with colons, as OpenSSL prints it.
    pub fingerprint: String,
}

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// It is none.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, &'static str> {
        let certificate = parse(der)?;
        let names = dns_names(&certificate);
        Ok(Self {
            subject: name(certificate.subject()),
            issuer: name(certificate.issuer()),
            names,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            key: key_type(&certificate),
            self_issued: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            fingerprint: colons(&Sha256::digest(der)),
            pss: certificate.signature_algorithm.algorithm == OID_PKCS1_RSASSAPSS,
        })
    }

    /// How long it is still valid; `None` when it has expired.
    pub fn time_left(&self, now: UnixTime) -> Option<Duration> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let left = u64::try_from(self.not_after.checked_sub(now)?).ok()?;
        Some(Duration::from_secs(left))
    }

    /// Whether its time has come.
    pub(super) fn has_begun(&self, now: UnixTime) -> bool {
        i64::try_from(now.as_secs()).is_ok_and(|now| self.not_before <= now)
    }

    /// Whether it is good for a server name of the configuration.
    pub(crate) fn covers(&self, wanted: &ServerName) -> bool {
        let written = wanted.to_string();
        // RFC 6125 section 6.4.3: a wildcard stands for one label, and not for another wildcard.
        let by_wildcard = (!wanted.is_wildcard())
            .then(|| written.split_once('.'))
            .flatten()
            .map(|(_, parent)| format!("*.{parent}"));
        self.names
            .iter()
            .any(|name| *name == written || Some(name) == by_wildcard.as_ref())
    }
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, &'static str> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("there is something behind the certificate"),
        Err(_) => Err("it is not an X.509 certificate"),
    }
}

/// The date of a second since 1970, in UTC, as `2026-11-24`.
pub fn date(seconds: i64) -> String {
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(date) => date.date().to_string(),
        Err(_) => "a date out of range".to_owned(),
    }
}

fn colons(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

fn name(name: &X509Name<'_>) -> String {
    let common = name
        .iter_common_name()
        .find_map(|attribute| attribute.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate
        .extensions()
        .iter()
        .find(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME);
    let Some(extension) = extension else {
        return certificate
            .subject()
            .iter_common_name()
            .filter_map(|attribute| attribute.as_str().ok())
            .map(str::to_ascii_lowercase)
            .collect();
    };
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Vec::new();
    };
    names
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn key_type(certificate: &X509Certificate<'_>) -> String {
    let key = certificate.public_key();
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => format!("RSA {}", rsa.key_size()),
        Ok(PublicKey::EC(point)) => match point.key_size() {
            // The size of the points, which is not rounded to bytes for this curve.
            521 | 528 => "P-521".to_owned(),
            bits => format!("P-{bits}"),
        },
        _ => match key.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".to_owned(),
            "1.3.101.113" => "Ed448".to_owned(),
            other => other.to_owned(),
        },
    }
}
