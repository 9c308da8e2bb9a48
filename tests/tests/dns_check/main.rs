//! `snigate check --dns`: what a partner sees, with nsd's zones and the certificates of nginx, OpenSSL and rustls, each right or wrong in one way.

mod cases;
mod described;
mod dns;
mod findings;
mod many;
mod pki;
mod rustls_server;
mod scene;
mod silent;
mod through;

use std::path::PathBuf;

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}
