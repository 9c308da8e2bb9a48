//! Hellos of real clients, whole and in pieces. tests/hellos/README.md tells how they were made.

use crate::{
    builder::Hello,
    hello::{self, ClientHello, Peeked},
    invariants,
};

pub(crate) struct Captured {
    pub(crate) file: &'static str,
    pub(crate) bytes: &'static [u8],
    name: Option<&'static str>,
    protocols: &'static [&'static str],
    versions: &'static [u16],
    post_quantum: bool,
    ech: bool,
    /// From tshark 4.4.19 (`-e tls.handshake.ja4`), as are the other columns' values, except that tshark does not judge `ech`.
    ja4: &'static str,
}

macro_rules! captured {
    ($file:literal, $name:expr, $protocols:expr, $versions:expr, $ja4:literal) => {
        Captured {
            file: $file,
            bytes: include_bytes!(concat!("../hellos/", $file, ".bin")),
            name: $name,
            protocols: $protocols,
            versions: $versions,
            post_quantum: false,
            ech: false,
            ja4: $ja4,
        }
    };
}

const NAME: Option<&str> = Some("sip.fabrikam.example");
const TLS13: &[u16] = &[0x0304, 0x0303, 0x0302, 0x0301];
const TLS12: &[u16] = &[0x0303, 0x0302, 0x0301];
const WEB: &[&str] = &["h2", "http/1.1"];

pub(crate) fn captured() -> Vec<Captured> {
    let many: Vec<String> = (0..60)
        .map(|number| format!("proto-{number:03}{}", "x".repeat(20)))
        .collect();
    let many: Vec<&str> = many.into_iter().map(|name| &*name.leak()).collect();
    let chromium = captured!(
        "chromium",
        NAME,
        WEB,
        &[0x0304, 0x0303],
        "t13d1516h2_8daaf6152771_d8a2da3f94cd"
    );
    vec![
        Captured {
            post_quantum: true,
            ech: true,
            ..chromium
        },
        captured!(
            "curl",
            NAME,
            WEB,
            TLS13,
            "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6"
        ),
        captured!(
            "gnutls-default",
            NAME,
            &[],
            TLS13,
            "t13d291300_723694b0fccc_2cc26d266019"
        ),
        captured!(
            "gnutls-no-name",
            None,
            &[],
            TLS13,
            "t13i291200_723694b0fccc_2cc26d266019"
        ),
        captured!(
            "gnutls-tls12",
            NAME,
            &[],
            TLS12,
            "t12d251000_7415a186c913_577ffa9d9a5c"
        ),
        captured!(
            "openssl-alpn",
            NAME,
            &["sip/2", "http/1.1"],
            TLS13,
            "t13d3111s2_e8f1e7e78f70_1f22a2ca17c4"
        ),
        captured!(
            "openssl-no-name",
            None,
            &[],
            TLS13,
            "t13i310900_e8f1e7e78f70_1f22a2ca17c4"
        ),
        captured!(
            "openssl-split",
            NAME,
            many.leak(),
            TLS13,
            "t13d3111px_e8f1e7e78f70_1f22a2ca17c4"
        ),
        captured!(
            "openssl-tls10",
            NAME,
            &[],
            &[0x0301],
            "t10d090600_c491f621fb4c_195413a0cc0f"
        ),
        captured!(
            "openssl-tls12",
            NAME,
            &[],
            TLS12,
            "t12d280700_d943125447b4_e7e480e5a997"
        ),
        captured!(
            "openssl-tls13",
            NAME,
            &[],
            TLS13,
            "t13d311000_e8f1e7e78f70_1f22a2ca17c4"
        ),
    ]
}

fn found(bytes: &[u8]) -> ClientHello {
    match hello::read(bytes) {
        Ok(Peeked::Found(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_they_ask_for() {
    for captured in captured() {
        let hello = found(captured.bytes);
        let file = captured.file;
        assert_eq!(hello.server_name.as_deref(), captured.name, "{file}");
        let protocols: Vec<_> = captured
            .protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        assert_eq!(hello.alpn, protocols, "{file}");
        assert_eq!(hello.versions, captured.versions, "{file}");
        assert_eq!(hello.newest_version(), captured.versions[0], "{file}");
        assert_eq!(hello.post_quantum, captured.post_quantum, "{file}");
        assert_eq!(hello.ech, captured.ech, "{file}");
        assert_eq!(hello.ja4.to_string(), captured.ja4, "{file}");
    }
}

/// Segments of one byte each, and each pair of segments.
#[test]
fn every_prefix_is_incomplete() {
    for captured in captured() {
        for end in 0..captured.bytes.len() {
            let prefix = hello::read(&captured.bytes[..end]);
            let Ok(Peeked::Incomplete { needed }) = prefix else {
                panic!("{end} bytes of {}: {prefix:?}", captured.file);
            };
            assert!(
                needed > end && needed <= captured.bytes.len(),
                "{needed} after {end} of {}",
                captured.file
            );
        }
    }
}

/// A caller who waits for exactly the bytes that are needed looks a few times for each record, however slowly they come.
#[test]
fn waiting_for_what_is_needed_ends() {
    for captured in captured() {
        let mut looks = 0;
        let mut have = 0;
        while let Ok(Peeked::Incomplete { needed }) = hello::read(&captured.bytes[..have]) {
            have = needed;
            looks += 1;
        }
        assert_eq!(have, captured.bytes.len());
        // Type, version, length, content; in the first record the message's type and length as well.
        let records = if captured.file == "openssl-split" {
            5
        } else {
            1
        };
        assert_eq!(looks, 4 * records + 2, "{}", captured.file);
    }
}

#[test]
fn records_of_any_size() {
    for captured in captured() {
        let whole = hello::read(captured.bytes);
        let message = invariants::message_of(captured.bytes);
        for size in [1, 2, 3, 4, 5, 16, 100, 1 << 14] {
            let bytes = invariants::into_records(&message, size);
            assert_eq!(
                hello::read(&bytes),
                whole,
                "{} in records of {size}",
                captured.file
            );
            // Every prefix of thousands of records would take long.
            let step = if size < 16 { 37 } else { 1 };
            for end in (0..bytes.len()).step_by(step) {
                let prefix = hello::read(&bytes[..end]);
                assert!(
                    matches!(prefix, Ok(Peeked::Incomplete { .. })),
                    "{end} bytes: {prefix:?}"
                );
            }
        }
        invariants::check(captured.bytes);
    }
}

/// Early data, a change of cipher spec, an alert, half a record: whatever a client has sent meanwhile.
#[test]
fn what_follows_does_not_matter() {
    for captured in captured() {
        let whole = hello::read(captured.bytes);
        for behind in [
            &b"\x14\x03\x03\x00\x01\x01\x17\x03\x03\x00\x05hello"[..],
            b"\x15\x03\x01\x00\x02\x01\x00",
            b"\x17\x03",
            b"\x16\x03\x03\x00\x00",
            b"GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(hello::read(&[captured.bytes, behind].concat()), whole);
        }
    }
}

#[test]
fn big_hellos() {
    for len in [5_000, 15_000, 40_000] {
        let hello = Hello::named(b"sip.fabrikam.example").padded(len);
        let message = hello.message();
        assert!(message.len().abs_diff(len) < 8);
        for size in [16, 1460, 1 << 14] {
            let bytes = invariants::into_records(&message, size);
            assert_eq!(found(&bytes).server_name.as_deref(), NAME);
            for end in (0..bytes.len()).step_by(997) {
                let prefix = hello::read(&bytes[..end]);
                assert!(
                    matches!(prefix, Ok(Peeked::Incomplete { .. })),
                    "{end} of {len}: {prefix:?}"
                );
            }
        }
    }
}
