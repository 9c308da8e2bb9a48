//! The `server_name` extension (RFC 6066 section 3).

use std::net::IpAddr;

use tls_parser::{SNIType, parse_tls_extension_sni_hostname};

use super::{
    HelloError,
    message::{vector16, whole},
};

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The one host name in the extension's content, normalised.
///
/// Names of another type are legal in the list's format, and read differently: rustls stops at them, OpenSSL refuses the hello. No
/// client sends any, so they are refused, as is a second name.
pub(super) fn read(content: &[u8]) -> Result<String, HelloError> {
    let what = "server_name";
    // An empty extension is the server's form. rustls and OpenSSL refuse it, too.
    if content.is_empty() {
        return Err(HelloError::NameEmpty);
    }
    let list = whole(content, vector16, what)?;
    match list.first() {
        None => return Err(HelloError::NameEmpty),
        Some(kind) if *kind != SNIType::HostName.0 => return Err(HelloError::NameType(*kind)),
        Some(_) => {}
    }
    match parse_tls_extension_sni_hostname(list) {
        Ok(([], (_, name))) => host_name(name),
        Ok(_) => Err(HelloError::NameSeveral),
        Err(_) => Err(HelloError::LengthsOverrun(what)),
    }
}

/// The name in lower case and without a trailing dot, if it is a host name (RFC 1123 section 2.1).
///
/// Underscores pass, although no host name has them: DNS names in use do, clients send them, and rustls takes them. Such a name
/// equals none that is configured, since a configured name has none; it may fall under a wildcard, whose owner also owns this name.
fn host_name(name: &[u8]) -> Result<String, HelloError> {
    if name.is_empty() {
        return Err(HelloError::NameEmpty);
    }
    if name.contains(&0) {
        return Err(HelloError::NameNul);
    }
    // A trailing dot counts: RFC 6066 has no place for it, and rustls draws the line here.
    if name.len() > MAX_NAME {
        return Err(HelloError::NameTooLong(name.len()));
    }
    let text = str::from_utf8(name).map_err(|_| HelloError::NameNotHost)?;
    if text.parse::<IpAddr>().is_ok() {
        return Err(HelloError::NameAddress);
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    if !text.split('.').all(is_label) {
        return Err(HelloError::NameNotHost);
    }
    if text.rsplit('.').next().is_some_and(is_number) {
        return Err(HelloError::NameAddress);
    }
    Ok(text.to_ascii_lowercase())
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether a top label makes resolvers take the name for an IPv4 address such as `127.1` or `0x7f000001`.
fn is_number(label: &str) -> bool {
    let is_hex = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let hex = label.strip_prefix("0x").or(label.strip_prefix("0X"));
    label.bytes().all(|digit| digit.is_ascii_digit()) || hex.is_some_and(is_hex)
}
