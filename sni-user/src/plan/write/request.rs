//! Certificate requests for `openssl req -new -config`.

use super::Writing;
use crate::plan::Certificate;

/// What of the subject can't be.
#[derive(Debug, thiserror::Error)]
#[error("{text} is no part of a subject: write one of {known} and a value, such as O=Fabrikam, with no control characters", known = KEYS.map(|(key, _)| key).join(", "))]
pub struct InvalidSubject {
    text: String,
}

/// Parts of a subject that may be given, and the longest value (RFC 5280 appendix A.1).
const KEYS: [(&str, usize); 5] = [("C", 2), ("ST", 128), ("L", 128), ("O", 64), ("OU", 64)];

impl Writing<'_> {
    /// The configuration of a request: RSA with 2048 bits and SHA-256, as every peer accepts; exactly the names of the plan.
    ///
    /// `subject` are parts such as `O=Fabrikam`, which precede the common name.
    ///
    /// # Errors
    /// A part of the subject can't be.
    pub fn request(
        &self,
        certificate: &Certificate,
        subject: &[String],
    ) -> Result<String, InvalidSubject> {
        let name = &certificate.name;
        let mut text = format!(
            "# openssl req -new -config {name}.cnf -out {name}.csr\n\
             # makes the key {name}.key as well, not encrypted; `-key FILE` takes one that is there.\n\
             [req]\nprompt = no\nutf8 = yes\nstring_mask = utf8only\ndefault_bits = 2048\ndefault_md = sha256\nencrypt_key = no\n\
             default_keyfile = {name}.key\ndistinguished_name = subject\nreq_extensions = extensions\n\n[subject]\n"
        );
        for part in subject {
            text.push_str(&subject_part(part)?);
        }
        text.push_str(&format!(
            "CN = {}\n\n[extensions]\nkeyUsage = critical, digitalSignature, keyEncipherment\nextendedKeyUsage = serverAuth\n\
             subjectAltName = @names\n\n[names]\n",
            certificate.common_name
        ));
        for (nth, name) in certificate.names().enumerate() {
            text.push_str(&format!("DNS.{} = {name}\n", nth + 1));
        }
        Ok(text)
    }
}

fn subject_part(part: &str) -> Result<String, InvalidSubject> {
    let invalid = || InvalidSubject {
        text: part.to_owned(),
    };
    let (key, value) = part.split_once('=').ok_or_else(invalid)?;
    let (key, value) = (key.trim().to_ascii_uppercase(), value.trim());
    let longest = KEYS.iter().find(|(known, _)| *known == key);
    let (_, longest) = longest.ok_or_else(invalid)?;
    let length = value.chars().count();
    if !(1..=*longest).contains(&length) || value.chars().any(char::is_control) {
        return Err(invalid());
    }
    // config(5) of OpenSSL: these begin a comment, a variable or a quotation, or escape.
    let mut escaped = String::new();
    for character in value.chars() {
        if "\\\"'#$`".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Ok(format!("{key} = {escaped}\n"))
}
