//! Certificates and revocation lists written around values that must stay byte for byte as they were: names that come from other
//! certificates. Libraries that build certificates take names apart and put them together again, in other string types and other orders.

use std::sync::Arc;

use rustls::{
    Error, SignatureScheme,
    pki_types::{AlgorithmIdentifier, CertificateDer, UnixTime, alg_id},
    sign::SigningKey,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension};
use yasna::{
    DERWriter, DERWriterSeq, Tag, construct_der,
    models::{GeneralizedTime, ObjectIdentifier, UTCTime},
};

const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const CRL_NUMBER: &[u64] = &[2, 5, 29, 20];
const CRL_DISTRIBUTION_POINTS: &[u64] = &[2, 5, 29, 31];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// Who signs.
#[derive(Debug)]
pub(super) struct Issuer {
    /// DER of its Name.
    name: Vec<u8>,
    key_id: Vec<u8>,
    key: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    algorithm: AlgorithmIdentifier,
}

/// What a mirrored certificate has of its own and of the partner's.
pub(super) struct Leaf<'a> {
    /// DER of the subject's Name.
    pub(super) subject: &'a [u8],
    /// DER of the GeneralNames, and whether the extension is critical.
    pub(super) names: Option<(&'a [u8], bool)>,
    /// DER of the SubjectPublicKeyInfo.
    pub(super) public_key: &'a [u8],
    /// First and last second of its life, since 1970.
    pub(super) validity: (i64, i64),
    /// Unique among the issuer's.
    pub(super) serial: [u8; 16],
    /// Where its issuer's revocation list is.
    pub(super) crl_url: Option<&'a str>,
}

impl Issuer {
    /// `None` where the key can sign nothing that peers understand.
    pub(super) fn new(certificate: &X509Certificate<'_>, key: Arc<dyn SigningKey>) -> Option<Self> {
        // PKCS#1 v1.5 for RSA: Lync Server 2013 does not understand PSS in certificates.
        const CHOICES: [(SignatureScheme, AlgorithmIdentifier); 3] = [
            (SignatureScheme::RSA_PKCS1_SHA256, alg_id::RSA_PKCS1_SHA256),
            (SignatureScheme::ECDSA_NISTP256_SHA256, alg_id::ECDSA_SHA256),
            (SignatureScheme::ECDSA_NISTP384_SHA384, alg_id::ECDSA_SHA384),
        ];
        let (scheme, algorithm) = CHOICES
            .into_iter()
            .find(|(scheme, _)| key.choose_scheme(&[*scheme]).is_some())?;
        Some(Self {
            name: certificate.subject().as_raw().to_vec(),
            key_id: subject_key_id(certificate),
            key,
            scheme,
            algorithm,
        })
    }

    /// A certificate for a server and client (RFC 5280 section 4).
    pub(super) fn certificate(&self, leaf: &Leaf<'_>) -> Result<CertificateDer<'static>, Error> {
        let tbs = construct_der(|writer| {
            writer.write_sequence(|fields| {
                // Version 3.
                fields
                    .next()
                    .write_tagged(Tag::context(0), |writer| writer.write_u8(2));
                fields.next().write_bigint_bytes(&leaf.serial, true);
                self.write_algorithm(fields.next());
                fields.next().write_der(&self.name);
                fields.next().write_sequence(|validity| {
                    write_time(validity.next(), leaf.validity.0);
                    write_time(validity.next(), leaf.validity.1);
                });
                fields.next().write_der(leaf.subject);
                fields.next().write_der(leaf.public_key);
                fields.next().write_tagged(Tag::context(3), |writer| {
                    writer.write_sequence(|extensions| self.write_extensions(extensions, leaf));
                });
            });
        });
        Ok(self.signed(&tbs)?.into())
    }

    fn write_extensions(&self, extensions: &mut DERWriterSeq<'_>, leaf: &Leaf<'_>) {
        write_extension(extensions, BASIC_CONSTRAINTS, true, |writer| {
            writer.write_sequence(|_| {});
        });
        // digitalSignature and keyEncipherment, of nine bits.
        write_extension(extensions, KEY_USAGE, true, |writer| {
            writer.write_bitvec_bytes(&[0b1010_0000], 3);
        });
        write_extension(extensions, EXTENDED_KEY_USAGE, false, |writer| {
            writer.write_sequence(|purposes| {
                for purpose in [SERVER_AUTH, CLIENT_AUTH] {
                    purposes.next().write_oid(&oid(purpose));
                }
            });
        });
        if let Some((names, critical)) = leaf.names {
            write_extension(extensions, SUBJECT_ALT_NAME, critical, |writer| {
                writer.write_der(names);
            });
        }
        write_extension(extensions, SUBJECT_KEY_ID, false, |writer| {
            writer.write_bytes(&key_id(leaf.public_key));
        });
        self.write_authority_key_id(extensions);
        if let Some(url) = leaf.crl_url {
            write_extension(extensions, CRL_DISTRIBUTION_POINTS, false, |writer| {
                // CRLDistributionPoints of one DistributionPoint, its distributionPoint [0] a fullName [0] of one URI [6].
                writer.write_sequence(|points| {
                    points.next().write_sequence(|point| {
                        point.next().write_tagged(Tag::context(0), |writer| {
                            writer.write_tagged_implicit(Tag::context(0), |writer| {
                                writer.write_sequence(|names| {
                                    names
                                        .next()
                                        .write_tagged_implicit(Tag::context(6), |writer| {
                                            writer.write_ia5_string(url);
                                        });
                                });
                            });
                        });
                    });
                });
            });
        }
    }

    /// An empty revocation list (RFC 5280 section 5) with a number that later ones exceed.
    pub(super) fn empty_list(&self, this_update: i64, next_update: i64) -> Result<Vec<u8>, Error> {
        let tbs = construct_der(|writer| {
            writer.write_sequence(|fields| {
                // Version 2.
                fields.next().write_u8(1);
                self.write_algorithm(fields.next());
                fields.next().write_der(&self.name);
                write_time(fields.next(), this_update);
                write_time(fields.next(), next_update);
                fields.next().write_tagged(Tag::context(0), |writer| {
                    writer.write_sequence(|extensions| {
                        self.write_authority_key_id(extensions);
                        write_extension(extensions, CRL_NUMBER, false, |writer| {
                            writer.write_u64(this_update.unsigned_abs());
                        });
                    });
                });
            });
        });
        self.signed(&tbs)
    }

    fn write_authority_key_id(&self, extensions: &mut DERWriterSeq<'_>) {
        write_extension(extensions, AUTHORITY_KEY_ID, false, |writer| {
            writer.write_sequence(|fields| {
                fields
                    .next()
                    .write_tagged_implicit(Tag::context(0), |writer| {
                        writer.write_bytes(&self.key_id);
                    });
            });
        });
    }

    fn write_algorithm(&self, writer: DERWriter<'_>) {
        // The constant has the fields without the SEQUENCE around them.
        writer.write_sequence(|fields| fields.next().write_der(self.algorithm.as_ref()));
    }

    fn signed(&self, tbs: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self
            .key
            .choose_scheme(&[self.scheme])
            .ok_or_else(|| Error::General("the key no longer signs".into()))?
            .sign(tbs)?;
        Ok(construct_der(|writer| {
            writer.write_sequence(|fields| {
                fields.next().write_der(tbs);
                self.write_algorithm(fields.next());
                fields
                    .next()
                    .write_bitvec_bytes(&signature, signature.len() * 8);
            });
        }))
    }
}

/// Now, in seconds since 1970.
pub(super) fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn oid(components: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(components)
}

fn write_extension(
    extensions: &mut DERWriterSeq<'_>,
    id: &[u64],
    critical: bool,
    value: impl FnOnce(DERWriter<'_>),
) {
    extensions.next().write_sequence(|fields| {
        fields.next().write_oid(&oid(id));
        // DER leaves defaults out.
        if critical {
            fields.next().write_bool(true);
        }
        fields.next().write_bytes(&construct_der(value));
    });
}

/// UTCTime until 2049, GeneralizedTime after (RFC 5280 section 4.1.2.5).
fn write_time(writer: DERWriter<'_>, seconds: i64) {
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    match UTCTime::from_datetime_opt(time) {
        Some(time) => writer.write_utctime(&time),
        None => writer.write_generalized_time(&GeneralizedTime::from_datetime(time)),
    }
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Vec<u8> {
    let written =
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
    written.unwrap_or_else(|| key_id(certificate.public_key().raw).to_vec())
}

/// RFC 7093 section 2, the fourth method: the leftmost 160 bits of the SHA-256 of the SubjectPublicKeyInfo.
fn key_id(public_key: &[u8]) -> [u8; 20] {
    let mut id = [0; 20];
    id.copy_from_slice(&Sha256::digest(public_key)[..20]);
    id
}
