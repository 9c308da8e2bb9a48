//! What is wrong with the certificate that a partner is shown, by itself.

use std::time::Duration;

use x509_parser::{
    certificate::X509Certificate,
    extensions::{DistributionPointName, GeneralName, ParsedExtension},
    public_key::PublicKey,
};

use super::finding::Kind;
use crate::tls::date;

/// A kind of finding, and the sentence.
pub(super) type Said = (Kind, String);

/// X.520, ub-common-name.
const LONGEST_COMMON_NAME: usize = 64;
const SMALLEST_RSA: usize = 2048;

/// Signatures that nobody accepts any more: with MD5 and SHA-1.
const WEAK: [(&str, &str); 4] = [
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.3.14.3.2.29", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
];
const PSS: &str = "1.2.840.113549.1.1.10";

/// Judges the target's own certificate; `now` in seconds since 1970.
pub(super) fn judge(
    certificate: &X509Certificate<'_>,
    target: &str,
    now: i64,
    soon: Duration,
) -> Vec<Said> {
    let mut said = Vec::new();
    said.extend(names_it(certificate, target));
    said.extend(common_name_fits(certificate));
    said.extend(is_in_time(certificate, now, soon));
    said.extend(is_for_servers(certificate));
    said
}

/// Judges keys and signatures of any certificate of a chain. The signature of a root is looked at by nobody.
pub(super) fn algorithms(certificate: &X509Certificate<'_>, is_root: bool) -> Vec<Said> {
    let mut said = Vec::new();
    let subject = certificate.subject();
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < SMALLEST_RSA => {
            let sentence = format!("the RSA key of {subject} has {} bits", key.key_size());
            said.push((Kind::KeySmall, sentence));
        }
        Ok(PublicKey::RSA(_)) => {}
        _ => said.push((Kind::KeyNotRsa, format!("the key of {subject} is not RSA"))),
    }
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    if is_root {
        return said;
    }
    if signature == PSS {
        let sentence = format!("the certificate of {subject} is signed with RSASSA-PSS");
        said.push((Kind::SignaturePss, sentence));
    }
    if let Some((_, hash)) = WEAK.iter().find(|(oid, _)| *oid == signature) {
        let sentence = format!("the certificate of {subject} is signed with {hash}");
        said.push((Kind::SignatureWeak, sentence));
    }
    said
}

fn names_it(certificate: &X509Certificate<'_>, target: &str) -> Option<Said> {
    let names = alternative_names(certificate);
    let common = common_name(certificate);
    if names.iter().any(|name| name == target) {
        return None;
    }
    let wildcard = target
        .split_once('.')
        .map(|(_, parent)| format!("*.{parent}"));
    if let Some(wildcard) = wildcard.filter(|it| names.contains(it) || common.as_ref() == Some(it))
    {
        let sentence = format!("the certificate names {target} as {wildcard} only");
        return Some((Kind::CertificateWildcard, sentence));
    }
    if common.as_deref() == Some(target) {
        let sentence = format!("the certificate names {target} as common name only");
        return Some((Kind::CertificateCommonName, sentence));
    }
    let named = match &names[..] {
        [] => common.unwrap_or_else(|| "nothing".to_owned()),
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        few => few.join(", "),
    };
    let sentence = format!("the certificate does not name {target}; it names {named}");
    Some((Kind::CertificateName, sentence))
}

fn common_name_fits(certificate: &X509Certificate<'_>) -> Option<Said> {
    let Some(name) = common_name(certificate) else {
        let sentence = "the certificate has no common name".to_owned();
        return Some((Kind::CommonNameMissing, sentence));
    };
    let length = name.chars().count();
    (length > LONGEST_COMMON_NAME).then(|| {
        let sentence = format!("the common name {name} has {length} characters");
        (Kind::CommonNameLong, sentence)
    })
}

fn is_in_time(certificate: &X509Certificate<'_>, now: i64, soon: Duration) -> Option<Said> {
    let validity = certificate.validity();
    let (begin, end) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    if now < begin {
        let sentence = format!("the certificate is not valid before {}", date(begin));
        return Some((Kind::CertificateNotYet, sentence));
    }
    if end < now {
        let sentence = format!("the certificate has expired on {}", date(end));
        return Some((Kind::CertificateExpired, sentence));
    }
    let left = end.abs_diff(now);
    (left < soon.as_secs()).then(|| {
        let sentence = format!(
            "the certificate expires on {}, in {} days",
            date(end),
            left / 86_400
        );
        (Kind::CertificateExpiring, sentence)
    })
}

/// RFC 5280 section 4.2.1.12: without the extension it is for everything.
fn is_for_servers(certificate: &X509Certificate<'_>) -> Vec<Said> {
    let Ok(Some(usages)) = certificate.extended_key_usage() else {
        return Vec::new();
    };
    let usages = usages.value;
    let mut said = Vec::new();
    if !(usages.any || usages.server_auth) {
        let sentence = "the certificate is not for servers (extended key usage serverAuth)";
        said.push((Kind::UsageServer, sentence.to_owned()));
    }
    if !(usages.any || usages.client_auth) {
        let sentence = "the certificate is not for clients (extended key usage clientAuth)";
        said.push((Kind::UsageClient, sentence.to_owned()));
    }
    said
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = certificate.subject().iter_common_name();
    let name = names.find_map(|attribute| attribute.as_str().ok())?;
    Some(name.to_ascii_lowercase())
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

/// Where a certificate's revocation lists are said to be.
pub(super) fn distribution_points(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut urls = Vec::new();
    for extension in certificate.extensions() {
        let ParsedExtension::CRLDistributionPoints(points) = extension.parsed_extension() else {
            continue;
        };
        for point in points.iter() {
            let Some(DistributionPointName::FullName(names)) = &point.distribution_point else {
                continue;
            };
            urls.extend(names.iter().filter_map(|name| match name {
                GeneralName::URI(url) => Some((*url).to_owned()),
                _ => None,
            }));
        }
    }
    urls
}
