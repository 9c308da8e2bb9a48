//! Certificates, read and mirrored.

#[path = "../../sni-user/src/tls/certificate.rs"]
#[allow(dead_code, reason = "what people are told of a certificate")]
mod certificate;
#[path = "../../sni-user/src/tls/invariants.rs"]
pub mod invariants;
#[path = "../../sni-user/src/tls/mirroring.rs"]
mod mirroring;
#[path = "../../sni-user/src/tls/x509.rs"]
#[allow(dead_code, reason = "revocation lists")]
mod x509;
