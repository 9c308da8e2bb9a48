//! Whatever a stream begins with, as a header of the PROXY protocol. What is checked, the tests of sni-user check as well
//! (`sni-user/src/proxy/proxy_header/invariants.rs`).

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| snigate_fuzz::proxy(bytes));
