//! Any bytes as the certificate of a partner, and the mirrored one. What is checked, the tests of sni-user check as well
//! (`sni-user/src/tls/invariants.rs`).

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| snigate_fuzz::mirror(bytes));
