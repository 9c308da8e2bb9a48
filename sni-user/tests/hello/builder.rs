//! Hellos made to order, right ones and wrong ones.

use crate::invariants::into_records;

/// A ClientHello; whatever is in here is encoded as it is.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) legacy_version: u16,
    pub(crate) session_id: Vec<u8>,
    pub(crate) ciphers: Vec<u16>,
    pub(crate) compression: Vec<u8>,
    pub(crate) extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// One of TLS 1.2 with signature algorithms, which rustls insists on, and no name.
    pub(crate) fn new() -> Self {
        Self {
            legacy_version: 0x0303,
            session_id: vec![7; 32],
            ciphers: vec![0x1301, 0xc02b],
            compression: vec![0],
            extensions: vec![signature_algorithms(&[0x0403, 0x0804])],
        }
    }

    pub(crate) fn named(name: &[u8]) -> Self {
        Self::new().with(server_name(name))
    }

    pub(crate) fn with(mut self, extension: (u16, Vec<u8>)) -> Self {
        self.extensions.push(extension);
        self
    }

    /// With an extension that pads it to a message of about `len` bytes.
    pub(crate) fn padded(self, len: usize) -> Self {
        let missing = len.saturating_sub(self.message().len() + 4);
        self.with((21, vec![0; missing]))
    }

    /// The handshake message, its header included.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend([0x5a; 32]);
        body.extend(vec8(&self.session_id));
        body.extend(vec16(&numbers(&self.ciphers)));
        body.extend(vec8(&self.compression));
        let mut extensions = Vec::new();
        for (kind, content) in &self.extensions {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(vec16(content));
        }
        body.extend(vec16(&extensions));
        message(&body)
    }

    /// The stream, in records of the usual size.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        into_records(&self.message(), 1 << 14)
    }
}

/// A handshake message of type client_hello with this body.
pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1, a, b, c], body].concat()
}

pub(crate) fn server_name(name: &[u8]) -> (u16, Vec<u8>) {
    server_names(&[(0, name)])
}

pub(crate) fn server_names(names: &[(u8, &[u8])]) -> (u16, Vec<u8>) {
    let entries: Vec<_> = names
        .iter()
        .flat_map(|(kind, name)| [vec![*kind], vec16(name)].concat())
        .collect();
    (0, vec16(&entries))
}

pub(crate) fn alpn(protocols: &[&[u8]]) -> (u16, Vec<u8>) {
    let list: Vec<_> = protocols.iter().flat_map(|name| vec8(name)).collect();
    (16, vec16(&list))
}

pub(crate) fn supported_versions(versions: &[u16]) -> (u16, Vec<u8>) {
    (43, vec8(&numbers(versions)))
}

pub(crate) fn signature_algorithms(algorithms: &[u16]) -> (u16, Vec<u8>) {
    (13, vec16(&numbers(algorithms)))
}

pub(crate) fn key_share(shares: &[(u16, usize)]) -> (u16, Vec<u8>) {
    let list: Vec<_> = shares
        .iter()
        .flat_map(|(group, len)| [group.to_be_bytes().to_vec(), vec16(&vec![1; *len])].concat())
        .collect();
    (51, vec16(&list))
}

pub(crate) fn vec8(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).unwrap()], content].concat()
}

pub(crate) fn vec16(content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&len, content].concat()
}

fn numbers(values: &[u16]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect()
}
