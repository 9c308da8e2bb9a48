//! Certificates: how many, and when the first of them ends. Which one that is, `snigate cert ls` says: a label for each would be one for each customer.

use super::{Exposition, ExpositionError, Family};
use crate::tls::{Lifetime, Purpose};

pub(super) const FAMILIES: &[&Family] = &[&COUNT, &EXPIRY];

const COUNT: Family = Family::gauge(
    "snigate_certificates",
    &["purpose", "state"],
    "Certificates in use, by what they are for (domain, gateway, mirror-ca) and whether they are valid, expired, or not yet valid.",
);
const EXPIRY: Family = Family::gauge(
    "snigate_certificate_earliest_expiry_timestamp_seconds",
    &["purpose"],
    "When the first of the certificates for a purpose expires, or has expired.",
);

/// Adds them, at this second since 1970.
pub(crate) fn expose(
    to: &Exposition,
    certificates: &[Lifetime],
    now: i64,
) -> Result<(), ExpositionError> {
    let (count, expiry) = (to.family(&COUNT)?, to.family(&EXPIRY)?);
    for purpose in [Purpose::Domain, Purpose::Gateway, Purpose::MirrorCa] {
        let mine: Vec<_> = certificates
            .iter()
            .filter(|it| it.purpose == purpose)
            .collect();
        let Some(earliest) = mine.iter().map(|it| it.not_after).min() else {
            continue;
        };
        expiry.add(&[purpose.name()], earliest as f64);
        for state in ["valid", "expired", "not-yet-valid"] {
            let is = mine.iter().filter(|it| state_of(it, now) == state);
            count.add(&[purpose.name(), state], is.count() as f64);
        }
    }
    Ok(())
}

fn state_of(certificate: &Lifetime, now: i64) -> &'static str {
    if certificate.not_before > now {
        "not-yet-valid"
    } else if certificate.not_after < now {
        "expired"
    } else {
        "valid"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_expire_stands_for_all() {
        let certificate = |purpose, not_before, not_after| Lifetime {
            purpose,
            not_before,
            not_after,
        };
        let certificates = [
            certificate(Purpose::Domain, 0, 900),
            certificate(Purpose::Domain, 0, 2000),
            certificate(Purpose::Domain, 1500, 3000),
            certificate(Purpose::MirrorCa, 0, 5000),
        ];
        let exposition = Exposition::new();
        expose(&exposition, &certificates, 1000).unwrap();
        let text = exposition.text().unwrap();
        let expected = [
            "snigate_certificate_earliest_expiry_timestamp_seconds{purpose=\"domain\"} 900",
            "snigate_certificate_earliest_expiry_timestamp_seconds{purpose=\"mirror-ca\"} 5000",
            "snigate_certificates{purpose=\"domain\",state=\"expired\"} 1",
            "snigate_certificates{purpose=\"domain\",state=\"not-yet-valid\"} 1",
            "snigate_certificates{purpose=\"domain\",state=\"valid\"} 1",
            "snigate_certificates{purpose=\"mirror-ca\",state=\"expired\"} 0",
            "snigate_certificates{purpose=\"mirror-ca\",state=\"not-yet-valid\"} 0",
            "snigate_certificates{purpose=\"mirror-ca\",state=\"valid\"} 1",
        ];
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples, expected);
    }
}
