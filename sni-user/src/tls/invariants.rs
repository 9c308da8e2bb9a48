//! What holds for a certificate that is mirrored, whatever a partner has shown. The fuzz target `mirror` runs this very file.

use std::sync::{Arc, LazyLock};

use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    pki_types::CertificateDer,
    sign::{Signer, SigningKey},
};
use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;

use super::{
    certificate::{Facts, parse},
    mirroring::{Names, life},
    x509::{Issuer, Leaf},
};

/// Panics if a certificate is mirrored that has other names than the partner's, lives longer, or can't be read.
pub(crate) fn check(bytes: &[u8]) {
    let shown = CertificateDer::from(bytes);
    let (facts, partner) = match (Facts::of(&shown), parse(&shown)) {
        (Ok(facts), Ok(partner)) => (facts, partner),
        (Err(why), Err(again)) => return assert!(!why.is_empty() && why == again),
        (facts, _) => panic!("{facts:?} of what can't be parsed, or the other way round"),
    };
    let Some(validity) = life(CA_VALIDITY, partner.validity().not_after.timestamp(), NOW) else {
        panic!("the CA is valid");
    };
    let names = match Names::of(&partner) {
        Ok(names) => names,
        Err(why) => return assert!(!why.is_empty()),
    };
    let mirrored = ISSUER.certificate(&Leaf {
        subject: names.subject,
        names: names.alternative,
        public_key: &PUBLIC_KEY,
        validity,
        serial: [0x5a; 16],
        crl_url: Some("http://192.0.2.1/mirror.crl"),
    });
    let mirrored = mirrored.expect("the key signs");
    check_mirrored(&mirrored, &partner, &facts);
    check_verified(&shown, &mirrored);
}

fn check_mirrored(mirrored: &CertificateDer<'_>, partner: &X509Certificate<'_>, facts: &Facts) {
    let parsed = parse(mirrored).expect("a certificate");
    assert_eq!(Names::of(&parsed), Names::of(partner));
    let ours = Facts::of(mirrored).expect("a certificate");
    assert_eq!((&ours.subject, &ours.names), (&facts.subject, &facts.names));
    // One that ends before it begins is of a partner whose own has ended, who has not been verified.
    assert!(ours.not_after <= facts.not_after.max(0) && ours.not_after <= CA_VALIDITY.1);
    assert!(ours.not_before >= CA_VALIDITY.0 && ours.not_before <= NOW);
    assert!(!parsed.is_ca() && parsed.version().0 == 2);
}

/// Verifying and mirroring have a parser each, and must not see different names.
fn check_verified(shown: &CertificateDer<'_>, mirrored: &CertificateDer<'_>) {
    let Ok(theirs) = EndEntityCert::try_from(shown) else {
        return;
    };
    let ours = EndEntityCert::try_from(mirrored).expect("what is verified can be verified again");
    assert!(theirs.valid_dns_names().eq(ours.valid_dns_names()));
    let uris = |certificate: &EndEntityCert<'_>| {
        let uris = certificate.valid_uri_names();
        uris.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(uris(&theirs), uris(&ours));
}

/// In the life of [`CA`].
const NOW: i64 = 1_800_000_000;
const CA_VALIDITY: (i64, i64) = (NOW - 86_400, NOW + 10 * 86_400);

/// An authority's certificate; its key is not needed, because nobody looks at the signatures.
const CA: &[u8] = include_bytes!("../../../fuzz/corpus/mirror/authority.der");

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let der = CertificateDer::from(CA);
    let certificate = parse(&der).expect("a certificate");
    Issuer::new(&certificate, Arc::new(Key)).expect("the key can sign")
});

static PUBLIC_KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let der = CertificateDer::from(CA);
    let certificate = parse(&der).expect("a certificate");
    certificate.public_key().raw.to_vec()
});

/// Signs at once, and the same.
#[derive(Debug)]
struct Key;

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = offered.contains(&self.scheme());
        ours.then(|| Box::new(Self) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![message.len() as u8; 70])
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus() {
        crate::corpus::each("mirror", check);
    }

    #[test]
    fn a_subject_that_is_no_name_is_not_mirrored() {
        const BYTES: &[u8] =
            include_bytes!("../../../fuzz/corpus/mirror/subject-that-is-no-name.der");
        let shown = CertificateDer::from(BYTES);
        // Whoever verifies it has nothing against it.
        assert!(EndEntityCert::try_from(&shown).is_ok());
        let partner = parse(&shown).expect("a certificate");
        assert_eq!(Names::of(&partner), Err("its subject is not a name"));
    }
}
