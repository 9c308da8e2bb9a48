//! What holds for the reader of the PROXY protocol's header, whatever a stream begins with. The fuzz target `proxy` runs this very file.

use super::header::{self, Head, LONGEST};

/// Panics if the reader takes more than there is, decides before it can, or what it has read is not the same when it is written again.
pub(crate) fn check(bytes: &[u8]) {
    let whole = header::read(bytes);
    for end in 0..bytes.len().min(LONGEST) {
        check_beginning(&bytes[..end], whole);
    }
    match whole {
        Head::Header { client, length } => {
            assert!((1..=bytes.len()).contains(&length), "{length} bytes taken");
            // What follows is the client's own.
            assert_eq!(header::read(&bytes[..length]), whole);
            let again = match client {
                Some(client) => header::of(client, client),
                None => header::own(),
            };
            let again = again.expect("an address can be written");
            let length = again.len();
            assert_eq!(header::read(&again), Head::Header { client, length });
        }
        Head::Incomplete => assert!(bytes.len() < LONGEST),
        Head::Invalid => {}
    }
}

/// Whatever a beginning decides, the rest does not change.
fn check_beginning(beginning: &[u8], whole: Head) {
    match header::read(beginning) {
        Head::Incomplete => {}
        decided => assert_eq!(decided, whole, "after {} bytes", beginning.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus() {
        crate::corpus::each("proxy", check);
    }

    #[test]
    fn a_line_is_too_long_also_when_all_of_it_is_there() {
        let line = |padding| [&b"PROXY UNKNOWN "[..], &vec![b'f'; padding], b"\r\n"].concat();
        let length = 107;
        let header = Head::Header {
            client: None,
            length,
        };
        assert_eq!(header::read(&line(length - 16)), header);
        assert_eq!(header::read(&line(length - 15)), Head::Invalid);
        check(&line(length - 15));
    }

    #[test]
    fn a_header_is_too_long_also_when_all_of_it_is_there() {
        let header = |length: usize| {
            let mut bytes = header::own().expect("a header");
            let rest = length - bytes.len();
            bytes[14..16].copy_from_slice(&(rest as u16).to_be_bytes());
            bytes.resize(length, 0);
            bytes
        };
        let longest = Head::Header {
            client: None,
            length: LONGEST,
        };
        assert_eq!(header::read(&header(LONGEST)), longest);
        assert_eq!(header::read(&header(LONGEST + 1)), Head::Invalid);
        check(&header(LONGEST + 1));
    }
}
