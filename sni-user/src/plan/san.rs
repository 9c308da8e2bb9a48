//! How large the subjectAltName extension of a certificate is.
//!
//! Counted is the whole extension as it stands in a certificate, DER-encoded (RFC 5280 sections 4.1 and 4.2.1.6), not critical:
//!
//! ```text
//! SEQUENCE                                   tag, length
//!   OBJECT IDENTIFIER 2.5.29.17              5 bytes
//!   OCTET STRING                             tag, length
//!     SEQUENCE                               tag, length
//!       [2] sip.fabrikam.example             tag, length, the name; once for each name
//! ```

use crate::config::HostName;

/// The object identifier, with tag and length.
const OID: usize = 5;

/// What one name takes among the names: its tag, its length and itself.
pub(super) fn name_bytes(name: &HostName) -> usize {
    element(name.as_str().len())
}

/// The bytes of the extension whose names together take `names` bytes.
pub(super) fn extension_bytes(names: usize) -> usize {
    element(OID + element(element(names)))
}

/// The most that names may take so that the extension keeps to `limit`; `None` where not even one without names does.
pub(super) fn room(limit: usize) -> Option<usize> {
    // What is around the names takes at most four bytes each for three lengths, three tags and the identifier.
    (limit.saturating_sub(OID + 15)..=limit)
        .rev()
        .find(|names| extension_bytes(*names) <= limit)
}

/// An element of DER with so many bytes of content (X.690 section 8.1.3).
fn element(content: usize) -> usize {
    let length = match content {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xff_ffff => 4,
        _ => 5,
    };
    1 + length + content
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    /// The extension in a real certificate.
    fn encoded(names: &[HostName], key: &KeyPair) -> usize {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names)
            .expect("names")
            .self_signed(key)
            .expect("a certificate");
        let (_, certificate) = X509Certificate::from_der(certificate.der()).expect("DER");
        let found = certificate
            .extensions()
            .iter()
            .find(|extension| {
                extension.oid == x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME
            })
            .expect("alternative names");
        // The parser keeps the value only: what is in the OCTET STRING.
        element(OID + element(found.value.len()))
    }

    fn name() -> impl Strategy<Value = HostName> {
        prop::collection::vec("[a-z0-9]{1,63}", 2..4)
            .prop_map(|labels| format!("sip.{}.example", labels.join(".")))
            .prop_map(|name| name.parse().expect("a host name"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn the_size_is_that_of_a_real_certificate(names in prop::collection::vec(name(), 1..80)) {
            let key = KeyPair::generate().expect("a key");
            let taken = names.iter().map(name_bytes).sum();
            prop_assert_eq!(extension_bytes(taken), encoded(&names, &key));
        }

        #[test]
        fn room_is_all_that_fits(limit in 0usize..70_000) {
            match room(limit) {
                Some(names) => {
                    prop_assert!(extension_bytes(names) <= limit);
                    prop_assert!(extension_bytes(names + 1) > limit);
                }
                None => prop_assert!(extension_bytes(0) > limit),
            }
        }
    }

    #[test]
    fn lengths_grow_where_der_says() {
        assert_eq!(
            [127, 128, 255, 256, 65_535, 65_536].map(element),
            [129, 131, 258, 260, 65_539, 65_541]
        );
        assert_eq!(extension_bytes(0), 11);
        assert_eq!(room(10), None);
    }
}
