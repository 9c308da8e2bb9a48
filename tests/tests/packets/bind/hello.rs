//! ClientHellos (RFC 8446, 4.1.2), as short or as long as a case wants them.

/// The usual one.
pub(crate) fn usual() -> Vec<u8> {
    named(b"sip.fabrikam.example")
}

/// One that asks for a name, and has nothing else.
pub(crate) fn named(name: &[u8]) -> Vec<u8> {
    with(&[(0, server_name(name))])
}

/// One with the usual name in front, as long as this in its record.
pub(crate) fn long(length: usize) -> Vec<u8> {
    long_named(b"sip.fabrikam.example", length)
}

/// Likewise with another name.
pub(crate) fn long_named(name: &[u8], length: usize) -> Vec<u8> {
    let short = padded(name, 0).len();
    padded(name, length - short)
}

fn padded(name: &[u8], padding: usize) -> Vec<u8> {
    with(&[(0, server_name(name)), (21, vec![0; padding])])
}

/// The content of a server name extension (RFC 6066, 3).
pub(crate) fn server_name(name: &[u8]) -> Vec<u8> {
    let entry = [&[0][..], &vec16(name)].concat();
    vec16(&entry)
}

/// One with these extensions.
pub(crate) fn with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    record(&message(extensions))
}

/// One in two records, of which the first has `first` bytes of the message.
pub(crate) fn in_two_records(first: usize) -> Vec<u8> {
    let message = message(&[(0, server_name(b"sip.fabrikam.example"))]);
    [record(&message[..first]), record(&message[first..])].concat()
}

fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &vec16(content)].concat())
        .collect();
    let body = [
        &[3, 3][..],
        &[0x5a; 32],
        &[0],
        &vec16(&[0x13, 1, 0x13, 2]),
        &[1, 0],
        &vec16(&extensions),
    ]
    .concat();
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    [&[1, a, b, c][..], &body].concat()
}

fn record(message: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &vec16(message)].concat()
}

fn vec16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}
