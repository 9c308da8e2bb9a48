//! Mirroring a partner's certificate.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::LazyLock};

use divan::black_box;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, UnixTime};
use sni_user::{
    config::Config,
    tls::{Authority, Mirror, Mirrored, Store},
};
use std::sync::Arc;
use tempfile::TempDir;

/// As `snigate ca init` makes it: RSA of 3072 bits.
static MIRROR: LazyLock<Arc<Mirror>> = LazyLock::new(|| {
    let directory = TempDir::new().expect("a directory");
    let pair = Authority::new("mirror", 365).expect("a CA").pem();
    let key = directory.path().join("mirror.key");
    fs::write(directory.path().join("mirror.pem"), pair.certificate).expect("a file");
    fs::write(&key, pair.key).expect("a file");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("permissions");
    mirror(directory.path())
});

fn mirror(directory: &Path) -> Arc<Mirror> {
    let text = "[gateway]\ninterfaces = [\"wan0\"]\n[identity]\nca = \"mirror.pem\"\nkey = \"mirror.key\"\n";
    let loaded = Config::parse(&directory.join("snigate.toml"), text).expect("a configuration");
    let (store, _) = Store::load(&loaded.config, None).expect("its files");
    Arc::clone(store.mirror().expect("a mirror CA"))
}

/// A partner with ten names.
static PARTNER: LazyLock<CertificateDer<'static>> = LazyLock::new(|| {
    let names: Vec<_> = (0..10).map(|n| format!("sip{n}.partner.example")).collect();
    let params = CertificateParams::new(names).expect("names");
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").into()
});

/// A partner that is met for the first time in a day: a signature.
#[divan::bench]
fn signed() -> Mirrored {
    let (mirror, partner) = (&*MIRROR, &*PARTNER);
    let signed = mirror.sign(black_box(partner), UnixTime::now());
    signed.expect("a certificate")
}

/// One that has been met already.
#[divan::bench]
fn kept() -> Arc<Mirrored> {
    let (mirror, partner) = (&*MIRROR, &*PARTNER);
    let identity = mirror.identity(black_box(partner), UnixTime::now());
    identity.expect("a certificate")
}
