//! TLS that ends at the gateway: everything that a configuration's certificate files come to.
//!
//! [`Store::load`] reads them as a whole and reports all that is wrong at once. From a store come, for each domain with a certificate,
//! a [`Terminating`] (the certificate shown to partners and how theirs are verified) and, for each Edge, an [`EdgeTls`] (how it is
//! verified and what it is shown). A store is never changed: a reload makes another one, connections keep what they began with, and what
//! is the same in both (session tickets, mirrored certificates) is handed on.
//!
//! # Resumed sessions
//! Each domain has ticket keys of its own, and its sessions lie under a prefix of its own in the one bounded cache, so that a session
//! can be resumed only where it began. They are made anew whenever the domain's certificate, roots, revocation lists or demands on
//! partners change. A resumed session brings the partner's certificate along without a handshake that would check it, so that
//! [`Terminating::check_again`] verifies it anew (chain, validity, revocation) before a byte is relayed: that costs two or three signature
//! verifications, a fraction of the signature that resumption saves, and leaves no window in which a revoked partner goes on.

mod alert;
mod authority;
mod authority_client;
mod certificate;
mod chain;
mod check;
pub mod crl;
mod edge;
mod files;
mod finding;
mod handshake;
#[cfg(test)]
mod invariants;
mod inventory;
mod loader;
mod mirror;
mod mirroring;
mod ocsp;
mod partner;
mod recorder;
mod roots;
mod server;
mod store;
mod x509;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

pub(crate) use self::alert::linger;
pub(crate) use self::authority_client::{authority_client, fitting};
pub(crate) use self::chain::{is_self_issued, order_of};
pub(crate) use self::ocsp::path_of as staple_path;
pub use self::{
    alert::{fatal_alert, plaintext_alert},
    authority::{Authority, AuthorityError, PemPair},
    certificate::{Facts, date},
    check::CheckTls,
    edge::{EdgeTls, Identity},
    finding::{Concern, Finding},
    inventory::{Kept, Purpose, inventory, mirror_ca},
    mirror::{Mirror, MirrorError, Mirrored},
    recorder::{Record, Recorder},
    roots::trusted,
    server::Terminating,
    store::{Lifetime, Store},
};
/// The ciphers, key exchanges and signatures of both sides; one for all, because ten thousand domains would have as many copies.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    &PROVIDER
}
