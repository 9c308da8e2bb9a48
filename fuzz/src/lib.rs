//! The parts of sni-user that are fuzzed, taken in as modules: as a dependency, sni-user would bring the datapath and its toolchain along.
//!
//! What is checked, sni-user's own tests check as well, with the corpus and without libFuzzer.

#[path = "../../sni-user/src/config/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "what the gateway does with a configuration"
)]
mod config;
#[path = "../../sni-user/src/config/invariants.rs"]
mod config_invariants;
mod control;
mod datapath;
mod proxy;
mod tls;

/// Any text as a configuration, and the tables that it comes to.
pub fn config(bytes: &[u8]) {
    config_invariants::check(bytes);
}

/// Any line of the control socket, on both sides.
pub fn control(bytes: &[u8]) {
    control::invariants::check(bytes);
}

/// Whatever a stream begins with, as a header of the PROXY protocol.
pub fn proxy(bytes: &[u8]) {
    proxy::invariants::check(bytes);
}

/// Any bytes as the certificate of a partner, and the mirrored one.
pub fn mirror(bytes: &[u8]) {
    tls::invariants::check(bytes);
}
