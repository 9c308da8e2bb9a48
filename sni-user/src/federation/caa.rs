//! Whether the authority that has issued a certificate may issue the next one (RFC 8659).

use x509_parser::certificate::X509Certificate;

use super::{
    certificate::Said,
    finding::Kind,
    lookups::{Lookups, NoAnswer, Property},
};

/// Authorities by a word of their certificates' issuer, and the names that stand for them in CAA records, as their practice statements have
/// them. Of any other, the name is asked for.
const AUTHORITIES: &[(&str, &[&str])] = &[
    ("let's encrypt", &["letsencrypt.org"]),
    ("digicert", DIGICERT),
    ("geotrust", DIGICERT),
    ("thawte", DIGICERT),
    ("rapidssl", DIGICERT),
    ("sectigo", SECTIGO),
    ("comodo", SECTIGO),
    ("zerossl", SECTIGO),
    ("globalsign", &["globalsign.com"]),
    ("google trust services", &["pki.goog"]),
    (
        "amazon",
        &[
            "amazon.com",
            "amazontrust.com",
            "awstrust.com",
            "amazonaws.com",
        ],
    ),
    ("entrust", &["entrust.net", "affirmtrust.com"]),
    ("godaddy", GODADDY),
    ("starfield", GODADDY),
    ("ssl corp", &["ssl.com"]),
    ("buypass", &["buypass.com", "buypass.no"]),
    ("actalis", &["actalis.it"]),
    ("harica", &["harica.gr"]),
    ("hellenic academic", &["harica.gr"]),
    ("swisssign", &["swisssign.com", "swisssign.net"]),
    ("d-trust", &["d-trust.net", "dtrust.de"]),
    ("telekom", &["telesec.de"]),
    ("unizeto", CERTUM),
    ("asseco", CERTUM),
    ("identrust", &["identrust.com"]),
];
const DIGICERT: &[&str] = &[
    "digicert.com",
    "geotrust.com",
    "thawte.com",
    "rapidssl.com",
    "symantec.com",
];
const SECTIGO: &[&str] = &[
    "sectigo.com",
    "comodoca.com",
    "comodo.com",
    "usertrust.com",
    "trust-provider.com",
];
const GODADDY: &[&str] = &["godaddy.com", "starfieldtech.com"];
const CERTUM: &[&str] = &["certum.pl", "certum.eu"];

/// Properties that are understood here, critical or not; of the others RFC 8659 section 4.1 asks to issue nothing where they are critical.
const UNDERSTOOD: [&str; 6] = [
    "issue",
    "issuewild",
    "iodef",
    "issuemail",
    "contactemail",
    "contactphone",
];

/// What CAA records say about the next certificate for `target` from the one's authority; `named` are its names, where somebody has said them.
pub(super) async fn judge(
    lookups: &Lookups,
    target: &str,
    certificate: &X509Certificate<'_>,
    named: &[String],
) -> Option<Said> {
    let (owner, properties) = match relevant(lookups, target).await {
        Ok(found) => found?,
        Err(reason) => {
            let sentence = format!("CAA records for {target} can't be looked up ({reason})");
            return Some((Kind::CaaFailed, sentence));
        }
    };
    let issuer = certificate.issuer().to_string();
    let known = if named.is_empty() {
        names_of(&issuer)
    } else {
        named.iter().map(String::as_str).collect()
    };
    decide(&owner, &properties, &issuer, &known)
}

/// The records that count: those of the nearest name above, itself included (RFC 8659 section 3).
async fn relevant(
    lookups: &Lookups,
    target: &str,
) -> Result<Option<(String, Vec<Property>)>, String> {
    let mut name = target;
    loop {
        match lookups.caa(name).await {
            Ok(properties) if properties.is_empty() => {}
            Ok(properties) => return Ok(Some((name.to_owned(), properties))),
            // What is above the zone is not its owner's to mend.
            Err(_) if name != target && !name.contains('.') => return Ok(None),
            Err(NoAnswer::Nothing) => {}
            Err(NoAnswer::Silent(reason) | NoAnswer::Failed(reason)) => {
                return Err(format!("{name}: {reason}"));
            }
        }
        match name.split_once('.') {
            Some((_, parent)) => name = parent,
            None => return Ok(None),
        }
    }
}

fn names_of(issuer: &str) -> Vec<&'static str> {
    let issuer = issuer.to_ascii_lowercase();
    let found = AUTHORITIES.iter().find(|(word, _)| issuer.contains(word));
    found.map(|(_, names)| names.to_vec()).unwrap_or_default()
}

fn decide(owner: &str, properties: &[Property], issuer: &str, known: &[&str]) -> Option<Said> {
    let unknown = properties
        .iter()
        .find(|it| it.critical && !UNDERSTOOD.contains(&it.tag.as_str()));
    if let Some(property) = unknown {
        let sentence = format!(
            "the CAA record {} of {owner} is critical and of a kind that authorities need not know: they issue nothing",
            property.tag
        );
        return Some((Kind::CaaForbids, sentence));
    }
    let allowed: Vec<_> = properties
        .iter()
        .filter(|property| property.tag == "issue")
        .map(|property| domain_of(&property.value))
        .collect();
    // Without any, everybody may.
    if allowed.is_empty() || allowed.iter().any(|it| known.contains(&it.as_str())) {
        return None;
    }
    let allowed: Vec<_> = allowed.into_iter().filter(|it| !it.is_empty()).collect();
    if allowed.is_empty() {
        let sentence = format!("the CAA records of {owner} allow no authority at all");
        return Some((Kind::CaaForbids, sentence));
    }
    let allowed = allowed.join(", ");
    Some(if known.is_empty() {
        let sentence = format!(
            "the CAA records of {owner} allow {allowed}, and which name stands for the certificate's issuer, {issuer}, is not known"
        );
        (Kind::CaaUnknown, sentence)
    } else {
        let sentence = format!(
            "the CAA records of {owner} allow {allowed}, and not {}, the certificate's issuer",
            known[0]
        );
        (Kind::CaaForbids, sentence)
    })
}

/// What stands before the parameters (RFC 8659 section 4.2).
fn domain_of(value: &str) -> String {
    let domain = value.split(';').next().unwrap_or_default();
    domain.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(tag: &str, value: &str) -> Property {
        Property {
            critical: false,
            tag: tag.to_owned(),
            value: value.to_owned(),
        }
    }

    fn kind(properties: &[Property], known: &[&str]) -> Option<Kind> {
        decide(
            "fabrikam.example",
            properties,
            "CN=R3, O=Let's Encrypt",
            known,
        )
        .map(|(kind, _)| kind)
    }

    #[test]
    fn issuers_are_known_by_their_names() {
        assert_eq!(
            names_of("C=US, O=Let's Encrypt, CN=R3"),
            ["letsencrypt.org"]
        );
        assert_eq!(names_of("C=GB, O=Sectigo Limited, CN=X"), SECTIGO);
        assert!(names_of("O=Fabrikam, CN=Private CA").is_empty());
    }

    #[test]
    fn what_caa_records_mean() {
        let ours = ["letsencrypt.org"];
        let issue = |value| property("issue", value);
        assert_eq!(
            kind(&[issue("letsencrypt.org; validationmethods=dns-01")], &ours),
            None
        );
        assert_eq!(kind(&[issue("LetsEncrypt.org")], &ours), None);
        assert_eq!(
            kind(&[issue("other.example"), issue("letsencrypt.org")], &ours),
            None
        );
        assert_eq!(
            kind(&[issue("other.example")], &ours),
            Some(Kind::CaaForbids)
        );
        assert_eq!(kind(&[issue("other.example")], &[]), Some(Kind::CaaUnknown));
        assert_eq!(kind(&[issue(";")], &[]), Some(Kind::CaaForbids));
        // No word about who may issue.
        assert_eq!(
            kind(&[property("iodef", "mailto:x@fabrikam.example")], &ours),
            None
        );
        assert_eq!(kind(&[property("issuewild", "other.example")], &ours), None);
        let mut odd = property("tbs", "unknown");
        assert_eq!(kind(&[odd.clone()], &ours), None);
        odd.critical = true;
        assert_eq!(kind(&[odd], &ours), Some(Kind::CaaForbids));
    }
}
