//! ClientHellos in segments and records: which of them are bound, and that all arrive byte for byte.

use std::time::Duration;

use anyhow::{Context as _, Result};
use snigate_tests::{
    addresses::vips,
    peers::{Segments, captured_hello, client_hello, in_records},
};

use crate::{BOUND, HANDED_OFF, NAME, Scene, client::Client, in_scenes, on_hooks, quiet};

/// That a hello in these segments reaches its Edge in both families, by this way.
fn arrives(
    scene: &Scene<'_>,
    what: &str,
    hello: &[u8],
    segments: Segments,
    way: &str,
) -> Result<()> {
    for address in vips() {
        let what = || format!("{what} to {address}, {way}");
        let opened = Client::open(&scene.lab.partner, None, address, hello, segments);
        let mut client = opened.with_context(what)?;
        scene.goes(&client, "a", way).with_context(what)?;
        client.ping().with_context(what)?;
        client.close().with_context(what)?;
    }
    Ok(())
}

const PROGRAMS: [&str; 6] = [
    "chromium",
    "curl",
    "gnutls-default",
    "openssl-alpn",
    "openssl-tls12",
    "openssl-tls13",
];

#[test]
fn captured_hellos_are_bound() {
    in_scenes("captured", &quiet(), |scene| {
        let _edges = scene.edges()?;
        for program in PROGRAMS {
            let hello = captured_hello(program)?;
            arrives(scene, program, &hello, Segments::Few, BOUND)?;
        }
        Ok(())
    });
}

#[test]
fn hellos_of_several_records_are_the_agents() {
    on_hooks("records", &quiet(), |scene| {
        let _edges = scene.edges()?;
        for program in ["openssl-split", "openssl-tls13", "chromium"] {
            let hello = captured_hello(program)?;
            for size in [1, 16, 100, 200] {
                let what = format!("{program} in records of {size}");
                let records = in_records(&hello, size)?;
                arrives(scene, &what, &records, Segments::Few, HANDED_OFF)?;
            }
        }
        Ok(())
    });
}

#[test]
fn hellos_in_any_segments_arrive_byte_for_byte() {
    on_hooks("segments", &quiet(), |scene| {
        let _edges = scene.edges()?;
        for (what, hello) in [
            ("rustls", client_hello(NAME)?),
            ("openssl-tls13", captured_hello("openssl-tls13")?),
            ("gnutls-default", captured_hello("gnutls-default")?),
            ("chromium", captured_hello("chromium")?),
        ] {
            for size in [1, 40, 100, 200, 400, 1000] {
                for pause in [0, 3] {
                    let segments = Segments::Of(size, Duration::from_millis(pause));
                    let count = hello.len().div_ceil(size);
                    if size == 1 && (pause > 0 || count > 600) {
                        continue;
                    }
                    let what = format!("{what} in {count} segments of {size}, pause {pause} ms");
                    // The segment with the name is the first one, or the agent's.
                    let first = &hello[..size.min(hello.len())];
                    let named = first
                        .windows(NAME.len())
                        .any(|bytes| bytes == NAME.as_bytes());
                    let way = if named { BOUND } else { HANDED_OFF };
                    arrives(scene, &what, &hello, segments, way)?;
                }
            }
        }
        Ok(())
    });
}
