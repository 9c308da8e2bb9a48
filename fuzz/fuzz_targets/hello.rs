//! The ClientHello's reader on any bytes. What is checked, the tests of sni-user check as well (`sni-user/tests/hello/`).
//!
//! The reader is taken in as a module: as a dependency, sni-user would bring the datapath and its toolchain along.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../sni-user/src/proxy/hello/mod.rs"]
#[expect(
    dead_code,
    reason = "names for metrics and the like are for the gateway"
)]
mod hello;
#[path = "../../sni-user/tests/hello/invariants.rs"]
mod invariants;

fuzz_target!(|bytes: &[u8]| invariants::check(bytes));
