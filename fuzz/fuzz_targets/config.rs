//! Any text as a configuration, and the tables that it comes to. What is checked, the tests of sni-user check as well
//! (`sni-user/src/config/invariants.rs`).

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| snigate_fuzz::config(bytes));
