//! The ClientHello's body, and those of its extensions that say something to a gateway.
//!
//! tls-parser's own lists end silently at the first entry whose length does not fit. So the extensions are taken one by one here,
//! and whatever is read must be used up to its last byte.

use tls_parser::{
    TlsExtension, TlsExtensionType, parse_tls_extension_unknown, parse_tls_handshake_client_hello,
};

use super::{ClientHello, HelloError, Ja4, is_grease, server_name};

const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// SecP256r1MLKEM768, X25519MLKEM768, SecP384r1MLKEM1024 and X25519Kyber768Draft00 in IANA's registry of groups.
const POST_QUANTUM: [u16; 4] = [0x11eb, 0x11ec, 0x11ed, 0x6399];

const TLS_1_0: u16 = 0x0301;
const TLS_1_2: u16 = 0x0303;

/// Reads a ClientHello's body.
pub(super) fn parse(body: &[u8]) -> Result<ClientHello, HelloError> {
    let Ok((behind, hello)) = parse_tls_handshake_client_hello(body) else {
        return Err(HelloError::LengthsOverrun("the ClientHello"));
    };
    if !behind.is_empty() {
        return Err(HelloError::LengthsOverrun("the extensions"));
    }
    if hello.ciphers.is_empty() {
        return Err(HelloError::ListEmpty("the cipher suites"));
    }
    if hello.comp.is_empty() {
        return Err(HelloError::ListEmpty("the compression methods"));
    }
    let extensions = Extensions::read(hello.ext.unwrap_or_default())?;

    let legacy = hello.version.0;
    let newest = extensions.versions.iter().flatten().max();
    let ja4 = Ja4 {
        version: newest.copied().unwrap_or(legacy),
        named: extensions.server_name.is_some(),
        alpn: extensions.alpn.first().cloned(),
        ciphers: hello.ciphers.into_iter().map(u16::from).collect(),
        signature_algorithms: extensions.signature_algorithms,
        extensions: extensions.types,
    };
    Ok(ClientHello {
        ech: ja4.extensions.contains(&ENCRYPTED_CLIENT_HELLO),
        server_name: extensions.server_name,
        alpn: extensions.alpn,
        versions: extensions.versions.unwrap_or_else(|| up_to(legacy)),
        post_quantum: extensions.post_quantum,
        ja4,
    })
}

/// What the extensions say.
#[derive(Default)]
struct Extensions {
    /// All of them, sorted.
    types: Vec<u16>,
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
    versions: Option<Vec<u16>>,
    signature_algorithms: Vec<u16>,
    post_quantum: bool,
}

impl Extensions {
    fn read(mut bytes: &[u8]) -> Result<Self, HelloError> {
        let mut found = Self {
            // As many as a browser has.
            types: Vec::with_capacity(20),
            ..Self::default()
        };
        while !bytes.is_empty() {
            let Ok((behind, TlsExtension::Unknown(kind, content))) =
                parse_tls_extension_unknown(bytes)
            else {
                return Err(HelloError::LengthsOverrun("an extension"));
            };
            bytes = behind;
            found.types.push(kind.0);
            found.take(kind, content)?;
        }
        // Sorted, as the fingerprint wants them; and 16,000 empty extensions are no work for a processor this way.
        found.types.sort_unstable();
        match found.types.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(HelloError::DuplicateExtension(pair[0])),
            None => Ok(found),
        }
    }

    fn take(&mut self, kind: TlsExtensionType, content: &[u8]) -> Result<(), HelloError> {
        match kind {
            TlsExtensionType::ServerName => self.server_name = Some(server_name::read(content)?),
            TlsExtensionType::ApplicationLayerProtocolNegotiation => {
                self.alpn = protocols(content)?;
            }
            TlsExtensionType::SupportedVersions => {
                let what = "supported_versions";
                let mut versions = numbers(whole(content, vector8, what)?, what)?;
                versions.retain(|version| !is_grease(*version));
                self.versions = Some(versions);
            }
            TlsExtensionType::SignatureAlgorithms => {
                let what = "signature_algorithms";
                self.signature_algorithms = numbers(whole(content, vector16, what)?, what)?;
            }
            TlsExtensionType::KeyShare => self.post_quantum = has_post_quantum_share(content)?,
            _ => {}
        }
        Ok(())
    }
}

/// RFC 7301 section 3.1.
fn protocols(content: &[u8]) -> Result<Vec<Vec<u8>>, HelloError> {
    let what = "ALPN";
    let mut list = whole(content, vector16, what)?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let (protocol, behind) = vector8(list).ok_or(HelloError::LengthsOverrun(what))?;
        if protocol.is_empty() {
            return Err(HelloError::ListEmpty("a protocol of ALPN"));
        }
        protocols.push(protocol.to_vec());
        list = behind;
    }
    if protocols.is_empty() {
        return Err(HelloError::ListEmpty(what));
    }
    Ok(protocols)
}

/// RFC 8446 section 4.2.8; a list without shares asks the server to choose a group.
fn has_post_quantum_share(content: &[u8]) -> Result<bool, HelloError> {
    let what = "key_share";
    let mut list = whole(content, vector16, what)?;
    let mut found = false;
    while !list.is_empty() {
        let (group, share) = list
            .split_first_chunk()
            .ok_or(HelloError::LengthsOverrun(what))?;
        let (_, behind) = vector16(share).ok_or(HelloError::LengthsOverrun(what))?;
        found |= POST_QUANTUM.contains(&u16::from_be_bytes(*group));
        list = behind;
    }
    Ok(found)
}

/// What a client offers that knows no `supported_versions`. RFC 8446 section 4.2.1: never more than TLS 1.2, whatever it says.
fn up_to(legacy: u16) -> Vec<u16> {
    match legacy {
        ..=TLS_1_0 => vec![legacy],
        _ => (TLS_1_0..=legacy.min(TLS_1_2)).rev().collect(),
    }
}

/// A list of 16-bit numbers that must have one.
fn numbers(list: &[u8], what: &'static str) -> Result<Vec<u16>, HelloError> {
    let (numbers, behind) = list.as_chunks();
    if !behind.is_empty() {
        return Err(HelloError::LengthsOverrun(what));
    }
    if numbers.is_empty() {
        return Err(HelloError::ListEmpty(what));
    }
    Ok(numbers
        .iter()
        .map(|number| u16::from_be_bytes(*number))
        .collect())
}

/// A vector's content and what is behind it, or `None` where it runs over the end.
type Vector = fn(&[u8]) -> Option<(&[u8], &[u8])>;

/// The content of the vector that `bytes` must be, with nothing behind it.
pub(super) fn whole<'a>(
    bytes: &'a [u8],
    vector: Vector,
    what: &'static str,
) -> Result<&'a [u8], HelloError> {
    match vector(bytes) {
        Some((content, [])) => Ok(content),
        _ => Err(HelloError::LengthsOverrun(what)),
    }
}

fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

pub(super) fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}
