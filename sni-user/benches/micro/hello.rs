//! Reading a ClientHello.

use divan::{Bencher, black_box};
use sni_user::proxy::hello::{self, ClientHello, Peeked};

const OPENSSL: &[u8] = include_bytes!("../../tests/hellos/openssl-tls13.bin");
const CHROMIUM: &[u8] = include_bytes!("../../tests/hellos/chromium.bin");
/// Five records of 512 bytes.
const SPLIT: &[u8] = include_bytes!("../../tests/hellos/openssl-split.bin");

fn found(bytes: &[u8]) -> ClientHello {
    match hello::read(black_box(bytes)) {
        Ok(Peeked::Found(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

#[divan::bench]
fn openssl() -> ClientHello {
    found(OPENSSL)
}

#[divan::bench]
fn chromium() -> ClientHello {
    found(CHROMIUM)
}

#[divan::bench]
fn five_records() -> ClientHello {
    found(SPLIT)
}

/// Records of this many bytes each.
#[divan::bench(args = [1, 16])]
fn chromium_in_records_of(bencher: Bencher<'_, '_>, size: usize) {
    let bytes: Vec<u8> = CHROMIUM[5..]
        .chunks(size)
        .flat_map(|fragment| [&[22, 3, 1, 0, fragment.len() as u8], fragment].concat())
        .collect();
    bencher.bench(|| found(&bytes));
}

/// All but the last byte has come.
#[divan::bench]
fn chromium_incomplete() -> Result<Peeked, hello::HelloError> {
    hello::read(black_box(&CHROMIUM[..CHROMIUM.len() - 1]))
}

#[divan::bench]
fn ja4(bencher: Bencher<'_, '_>) {
    let hello = found(CHROMIUM);
    bencher.bench(|| black_box(&hello).ja4.to_string());
}
