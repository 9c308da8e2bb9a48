//! Where a server name goes, among 100,000 domains.

use std::{net::SocketAddr, path::Path, sync::LazyLock};

use divan::{Bencher, black_box};
use sni_user::{
    config::Config,
    proxy::{
        Routing, Service, Verdict,
        hello::{self, ClientHello, Peeked},
    },
};

use crate::load;

const DOMAINS: usize = 100_000;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = load::passing(DOMAINS);
    let loaded = Config::parse(Path::new("snigate.toml"), &text);
    loaded.expect("a configuration").config
});
static ROUTING: LazyLock<Routing> = LazyLock::new(|| Routing::new(&CONFIG));

/// Names that are asked for one after the other, so that no cache holds the one that is looked up.
const ASKED: usize = 4096;

/// Decides for names of one kind, made from the number of a domain.
fn decide(bencher: Bencher<'_, '_>, name: impl Fn(usize) -> String) {
    let service: &Service = {
        let address: SocketAddr = load::ADDRESS.parse().expect("an address");
        ROUTING.service(address).expect("an inspected address")
    };
    let hellos: Vec<_> = (0..ASKED)
        .map(|n| asking_for(name(n * 7919 % DOMAINS)))
        .collect();
    let mut next = 0;
    bencher.bench_local(move || -> Verdict {
        next = (next + 1) % ASKED;
        ROUTING.decide(service, black_box(&hellos[next]))
    });
}

fn asking_for(name: String) -> ClientHello {
    const OPENSSL: &[u8] = include_bytes!("../../tests/hellos/openssl-tls13.bin");
    match hello::read(OPENSSL) {
        Ok(Peeked::Found(hello)) => ClientHello {
            server_name: Some(name),
            ..hello
        },
        other => panic!("{other:?}"),
    }
}

#[divan::bench]
fn exact(bencher: Bencher<'_, '_>) {
    decide(bencher, |n| format!("sip.{}", load::domain(n)));
}

/// So many labels before the one that the wildcard stands on.
#[divan::bench(args = [1, 3, 10])]
fn wildcard_over_labels(bencher: Bencher<'_, '_>, labels: usize) {
    decide(bencher, |n| {
        let domain = load::domain(n - n % load::WILDCARDS);
        format!("{}voip.{domain}", "a.".repeat(labels))
    });
}

/// A name that nobody has: all of its wildcards are looked for, then the address's default is taken.
#[divan::bench]
fn unknown(bencher: Bencher<'_, '_>) {
    decide(bencher, |n| format!("sip.unknown-{n}.example"));
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn table_of_100_000_domains() -> Routing {
    Routing::new(&CONFIG)
}
