//! JA4, the fingerprint of a TLS client, after FoxIO's public description of it.

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

use super::is_grease;

const SERVER_NAME: u16 = 0x0000;
const ALPN: u16 = 0x0010;

/// What the fingerprint is made from. Displaying it sorts and hashes, some two microseconds of work, which a connection that nobody
/// watches need not pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ja4 {
    pub(super) version: u16,
    pub(super) named: bool,
    /// The first protocol.
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) ciphers: Vec<u16>,
    pub(super) extensions: Vec<u16>,
    pub(super) signature_algorithms: Vec<u16>,
}

impl Ja4 {
    /// The fingerprint before hashing (`JA4_r`), to see what two of them differ in.
    pub fn raw(&self) -> String {
        let [head, ciphers, extensions] = self.parts();
        format!("{head}_{ciphers}_{extensions}")
    }

    /// The three parts, the last two unhashed.
    fn parts(&self) -> [String; 3] {
        let mut ciphers = without_grease(&self.ciphers);
        ciphers.sort_unstable();
        let mut extensions = without_grease(&self.extensions);
        extensions.sort_unstable();
        let head = format!(
            "t{}{}{:02}{:02}{}",
            version(self.version),
            if self.named { 'd' } else { 'i' },
            ciphers.len().min(99),
            extensions.len().min(99),
            ends(self.alpn.as_deref().unwrap_or_default()),
        );
        extensions.retain(|kind| ![SERVER_NAME, ALPN].contains(kind));
        let mut tail = list(&extensions);
        let algorithms = without_grease(&self.signature_algorithms);
        if !algorithms.is_empty() {
            tail.push('_');
            tail.push_str(&list(&algorithms));
        }
        [head, list(&ciphers), tail]
    }
}

/// The fingerprint, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
impl fmt::Display for Ja4 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [head, ciphers, extensions] = self.parts();
        write!(formatter, "{head}_{}_{}", hash(&ciphers), hash(&extensions))
    }
}

fn without_grease(values: &[u16]) -> Vec<u16> {
    values
        .iter()
        .copied()
        .filter(|value| !is_grease(*value))
        .collect()
}

fn version(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// First and last character of the first protocol, of its hexadecimal form if one of them is no letter or digit.
fn ends(protocol: &[u8]) -> String {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else {
        return "00".into();
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        [*first, *last].map(char::from).iter().collect()
    } else {
        format!("{:x}{:x}", first >> 4, last & 0x0f)
    }
}

fn list(values: &[u16]) -> String {
    let mut text = String::with_capacity(values.len() * 5);
    for value in values {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String can't fail.
        let _ = write!(text, "{comma}{value:04x}");
    }
    text
}

/// The first 12 hexadecimal digits of the list's SHA-256.
fn hash(list: &str) -> String {
    if list.is_empty() {
        return "000000000000".into();
    }
    let digest = Sha256::digest(list);
    digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in FoxIO's description, in its original order and with GREASE sprinkled in.
    fn example() -> Ja4 {
        Ja4 {
            version: 0x0304,
            named: true,
            alpn: Some(b"h2".to_vec()),
            ciphers: vec![
                0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8,
                0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x2a2a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005,
                0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0xfafa,
            ],
            signature_algorithms: vec![
                0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
            ],
        }
    }

    #[test]
    fn published_example() {
        let ja4 = example();
        assert_eq!(ja4.to_string(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert_eq!(
            ja4.raw(),
            "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_\
             0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_\
             0403,0804,0401,0503,0805,0501,0806,0601"
        );
        let without_algorithms = Ja4 {
            signature_algorithms: Vec::new(),
            ..ja4
        };
        assert_eq!(
            without_algorithms.to_string(),
            "t13d1516h2_8daaf6152771_6d807ffa2a79"
        );
    }

    #[test]
    fn published_ends_of_protocols() {
        for (protocol, wanted) in [
            (&b"h2"[..], "h2"),
            (b"http/1.1", "h1"),
            (b"q", "qq"),
            (b"", "00"),
            (b"\xab", "ab"),
            (b"\xab\xcd", "ad"),
            (b"\x30\xab", "3b"),
            (b"\x30\x31\xab\xcd", "3d"),
            (b"\x30\xab\xcd\x31", "01"),
        ] {
            assert_eq!(ends(protocol), wanted, "{}", protocol.escape_ascii());
        }
    }

    #[test]
    fn nothing_is_zeros_and_many_are_99() {
        let empty = Ja4 {
            version: 0x0301,
            named: false,
            alpn: None,
            ciphers: vec![0x0a0a],
            extensions: vec![ALPN],
            signature_algorithms: Vec::new(),
        };
        assert_eq!(empty.to_string(), "t10i000100_000000000000_000000000000");
        let many = Ja4 {
            ciphers: (0..200).collect(),
            extensions: (0..200).collect(),
            ..empty
        };
        assert!(many.to_string().starts_with("t10i999900_"), "{many}");
    }
}
