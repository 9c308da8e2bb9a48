//! What identities cost.
//!
//! Minting is paid once for each partner and half a day, looking and verifying for each connection, loading for each reload.

use std::{fmt::Write as _, fs, path::Path};

use divan::{Bencher, black_box};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use sni_user::{
    config::Config,
    tls::{Authority, Store},
};
use tempfile::TempDir;

/// A gateway that mirrors the partners of one domain, or of many with a certificate each, and a partner.
struct Scene {
    directory: TempDir,
    partner: CertificateDer<'static>,
}

fn rsa() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key")
}

fn named(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("names")
}

fn write(directory: &Path, file: &str, text: &str) {
    fs::write(directory.join(file), text).expect("a file");
}

impl Scene {
    fn new(domains: usize) -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path();
        let mirror = Authority::new("mirror", 365).expect("a CA").pem();
        write(path, "mirror.pem", &mirror.certificate);
        write(path, "mirror.key", &mirror.key);

        let mut params = named(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = rsa();
        let root = params.self_signed(&key).expect("a root");
        write(path, "root.pem", &root.pem());
        let root = Issuer::new(params, key);
        let partner = named(&["sip.partner.example", "partner.example"]);
        let partner = partner.signed_by(&rsa(), &root).expect("a partner");

        let mut text = String::from(
            "[gateway]\ninterfaces = [\"wan0\"]\n[[edge]]\nname = \"a\"\naddress = \"203.0.113.10:5061\"\n\
             tls = { name = \"a.hoster.example\", roots = \"root.pem\" }\n\
             [[pool]]\nname = \"a\"\nedges = [\"a\"]\n\
             [[ip_set]]\nname = \"a\"\naddresses = [\"198.51.100.20\"]\ninspect = true\n\
             [identity]\nca = \"mirror.pem\"\nkey = \"mirror.key\"\ncrl_url = \"http://192.0.2.1/mirror.crl\"\n",
        );
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        for domain in 0..domains {
            let name = format!("sip.customer{domain}.example");
            let certificate = named(&[&name]).signed_by(&key, &root).expect("one");
            write(path, &format!("{domain}.pem"), &certificate.pem());
            write(path, &format!("{domain}.key"), &key.serialize_pem());
            writeln!(
                text,
                "[[domain]]\nsip_domain = \"customer{domain}.example\"\npool = \"a\"\ncertificate = \"{domain}.pem\"\n\
                 key = \"{domain}.key\"\nclient_roots = \"root.pem\"\nidentity = \"mirror\""
            )
            .expect("text");
        }
        write(path, "snigate.toml", &text);
        Self {
            partner: partner.der().clone(),
            directory,
        }
    }

    fn config(&self) -> Config {
        let loaded = Config::load(&self.directory.path().join("snigate.toml"));
        loaded.expect("a configuration").config
    }

    fn store(&self) -> Store {
        load(&self.config(), None)
    }
}

fn load(config: &Config, previous: Option<&Store>) -> Store {
    Store::load(config, previous).expect("a store").0
}

/// A certificate signed for a partner that was not seen before.
#[divan::bench]
fn mint(bencher: Bencher<'_, '_>) {
    let scene = Scene::new(1);
    let store = scene.store();
    let mirror = store.mirror().expect("a mirror CA");
    bencher.bench(|| mirror.sign(black_box(&scene.partner), UnixTime::now()));
}

/// The identity of a partner that was.
#[divan::bench]
fn mint_cached(bencher: Bencher<'_, '_>) {
    let scene = Scene::new(1);
    let store = scene.store();
    let mirror = store.mirror().expect("a mirror CA");
    bencher.bench(|| mirror.identity(black_box(&scene.partner), UnixTime::now()));
}

/// What a resumed session costs before it is relayed.
#[divan::bench]
fn verify_again(bencher: Bencher<'_, '_>) {
    let scene = Scene::new(1);
    let store = scene.store();
    let domain = store.domain(0).expect("terminated");
    let shown = [scene.partner.clone()];
    bencher.bench(|| domain.check_again(black_box(&shown), UnixTime::now()));
}

/// The files of so many domains, for the first time.
#[divan::bench(args = [1000], sample_count = 5)]
fn load_domains(bencher: Bencher<'_, '_>, domains: usize) {
    let scene = Scene::new(domains);
    let config = scene.config();
    bencher.bench_local(|| load(&config, None));
}

/// The same again, when nothing has changed.
#[divan::bench(args = [1000], sample_count = 5)]
fn reload_domains(bencher: Bencher<'_, '_>, domains: usize) {
    let scene = Scene::new(domains);
    let config = scene.config();
    let store = load(&config, None);
    bencher.bench_local(|| load(&config, Some(&store)));
}
