//! Reading a configuration with all files that it names, as a start or a reload does.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

use divan::Bencher;
use rcgen::{CertificateParams, KeyPair};
use sni_user::{
    config::{Config, Loaded},
    datapath::Tables,
    edges::Edges,
    proxy::Routing,
    tls::Store,
};
use tempfile::TempDir;

/// The one inspected address.
pub(crate) const ADDRESS: &str = "198.51.100.20:5061";

/// The `n`th domain.
pub(crate) fn domain(n: usize) -> String {
    format!("customer-{n}.example")
}

/// Domains from one that has a wildcard to the next: 100,000 domains then have 125,000 names, and the datapath's table takes 131,072.
pub(crate) const WILDCARDS: usize = 4;

/// A configuration of so many domains that are passed through, each with a name, and some with a wildcard.
pub(crate) fn passing(domains: usize) -> String {
    (0..domains).fold(HEAD.to_owned(), |mut text, n| {
        let domain = domain(n);
        let wildcard = match n % WILDCARDS {
            0 => format!(", \"*.voip.{domain}\""),
            _ => String::new(),
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n[[domain]]\nsip_domain = \"{domain}\"\nnames = [\"sip.{domain}\"{wildcard}]\npool = \"edges\"\n"
        );
        text
    })
}

const HEAD: &str = r#"
[gateway]
interfaces = ["wan0"]

[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"
tls = { name = "edge-a.hoster.example", roots = "certs/0.pem" }

[[pool]]
name = "edges"
edges = ["edge-a"]

[[ip_set]]
name = "shared"
addresses = ["198.51.100.20"]
inspect = true
default = "edges"
"#;

/// A directory with configurations, made once each.
struct Files {
    directory: TempDir,
    made: Mutex<HashMap<(bool, usize), PathBuf>>,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let files = Files {
        directory: TempDir::new().expect("a directory"),
        made: Mutex::default(),
    };
    fs::create_dir(files.path().join("certs")).expect("a directory");
    files.certificate(0);
    files
});

impl Files {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn passing(&self, domains: usize) -> PathBuf {
        self.once(false, domains, || passing(domains))
    }

    /// As many domains, each with a certificate and key of its own.
    fn terminating(&self, domains: usize) -> PathBuf {
        self.once(true, domains, || {
            (0..domains).fold(HEAD.to_owned(), |mut text, n| {
                self.certificate(n);
                let domain = domain(n);
                let _ = write!(
                    text,
                    "\n[[domain]]\nsip_domain = \"{domain}\"\npool = \"edges\"\ncertificate = \"certs/{n}.pem\"\n\
                     key = \"certs/{n}.key\"\nclient_certificate = \"none\"\n"
                );
                text
            })
        })
    }

    fn once(&self, terminating: bool, domains: usize, text: impl FnOnce() -> String) -> PathBuf {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let path = made.entry((terminating, domains)).or_insert_with(|| {
            let path = self.path().join(format!("{terminating}-{domains}.toml"));
            fs::write(&path, text()).expect("a file");
            path
        });
        path.clone()
    }

    fn certificate(&self, n: usize) {
        let certs = self.path().join("certs");
        let key = KeyPair::generate().expect("a key");
        let name = format!("sip.{}", domain(n));
        let params = CertificateParams::new([name]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(certs.join(format!("{n}.pem")), certificate.pem()).expect("a file");
        let file = certs.join(format!("{n}.key"));
        fs::write(&file, key.serialize_pem()).expect("a file");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("permissions");
    }
}

fn load(path: &Path) -> Config {
    match Config::load(path) {
        Ok(Loaded { config, .. }) => config,
        Err(found) => panic!("{found:?}"),
    }
}

fn store(config: &Config, previous: Option<&Store>) -> Store {
    let (store, _) = Store::load(config, previous).unwrap_or_else(|found| panic!("{:?}", found[0]));
    store
}

/// All that is made of a configuration on its way to become the active one.
fn candidate(path: &Path, previous: Option<&Store>) -> (Store, Routing, Edges, Tables) {
    let config = load(path);
    let gateway = IpAddr::from(Ipv4Addr::LOCALHOST);
    let tables = Tables::new(&config, (32_768, 28_232), |_| Ok(gateway));
    (
        store(&config, previous),
        Routing::new(&config),
        Edges::new(&config, &Edges::default()),
        tables.expect("tables"),
    )
}

#[divan::bench(args = [10_000, 100_000], sample_count = 5, sample_size = 1)]
fn configuration(bencher: Bencher<'_, '_>, domains: usize) {
    let path = FILES.passing(domains);
    bencher.bench(|| load(&path));
}

#[divan::bench(args = [10_000, 100_000], sample_count = 5, sample_size = 1)]
fn everything_passed_through(bencher: Bencher<'_, '_>, domains: usize) {
    let path = FILES.passing(domains);
    bencher.bench(|| candidate(&path, None));
}

/// Each with a certificate of its own.
#[divan::bench(args = [10_000], sample_count = 3, sample_size = 1)]
fn everything_terminated(bencher: Bencher<'_, '_>, domains: usize) {
    let path = FILES.terminating(domains);
    bencher.bench(|| candidate(&path, None));
}

/// The same again, with no file changed.
#[divan::bench(args = [10_000], sample_count = 3, sample_size = 1)]
fn everything_terminated_again(bencher: Bencher<'_, '_>, domains: usize) {
    let path = FILES.terminating(domains);
    let previous = store(&load(&path), None);
    bencher.bench(|| candidate(&path, Some(&previous)));
}
