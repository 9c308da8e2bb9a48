//! Subjects that rcgen cannot say: with an attribute more than once, as directories and mirrored identities have them.

use anyhow::{Context as _, Result};
use rcgen::{KeyPair, SigningKey as _};
use x509_parser::asn1_rs::{Any, FromDer as _};
use x509_parser::prelude::X509Certificate;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// What a relative distinguished name says (RFC 4519 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `DC`, an IA5String.
    DomainComponent,
    /// `C`; two letters.
    Country,
    /// `O`.
    Organization,
    /// `OU`.
    OrganizationalUnit,
    /// `CN`.
    CommonName,
}

impl Attribute {
    /// The content of its object identifier.
    fn identifier(self) -> &'static [u8] {
        match self {
            // 0.9.2342.19200300.100.1.25
            Self::DomainComponent => &[9, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
            Self::Country => &[0x55, 4, 6],
            Self::Organization => &[0x55, 4, 10],
            Self::OrganizationalUnit => &[0x55, 4, 11],
            Self::CommonName => &[0x55, 4, 3],
        }
    }

    fn value(self, text: &str) -> Vec<u8> {
        let tag = match self {
            Self::DomainComponent => IA5_STRING,
            Self::Country => PRINTABLE_STRING,
            _ => UTF8_STRING,
        };
        element(tag, text.as_bytes())
    }
}

/// The `Name` with these attributes in this order, in DER.
pub(super) fn encode(attributes: &[(Attribute, &str)]) -> Vec<u8> {
    let name: Vec<u8> = attributes
        .iter()
        .flat_map(|&(attribute, text)| {
            let mut pair = element(OBJECT_IDENTIFIER, attribute.identifier());
            pair.extend(attribute.value(text));
            element(SET, &element(SEQUENCE, &pair))
        })
        .collect();
    element(SEQUENCE, &name)
}

/// The certificate `der` with another subject, signed anew by `key`, its issuer's.
pub(super) fn replace(der: &[u8], subject: &[u8], key: &KeyPair) -> Result<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(der)?;
    let tbs = certificate.tbs_certificate.as_ref();
    let old = certificate.tbs_certificate.subject.as_raw();
    let start = old.as_ptr().addr() - tbs.as_ptr().addr();

    let (_, fields) = Any::from_der(tbs)?;
    let header = tbs.len() - fields.data.len();
    let fields = [&tbs[header..start], subject, &tbs[start + old.len()..]].concat();
    let tbs_end = tbs.as_ptr().addr() - der.as_ptr().addr() + tbs.len();
    let after = &der[tbs_end..];
    let (signature, _) = Any::from_der(after)?;
    let algorithm = &after[..after.len() - signature.len()];

    let tbs = element(SEQUENCE, &fields);
    let signature = key.sign(&tbs).context("signing a certificate")?;
    // A whole number of octets: no unused bits.
    let signature = element(BIT_STRING, &[&[0], signature.as_slice()].concat());
    Ok(element(
        SEQUENCE,
        &[tbs.as_slice(), algorithm, &signature].concat(),
    ))
}

/// Tag, length and content (X.690 section 8.1).
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|&&byte| byte == 0).count()..];
    let mut bytes = vec![tag];
    match significant {
        [] => bytes.push(0),
        [short @ ..0x80] => bytes.push(*short),
        long => {
            bytes.push(0x80 | u8::try_from(long.len()).expect("at most eight bytes"));
            bytes.extend(long);
        }
    }
    bytes.extend(content);
    bytes
}
