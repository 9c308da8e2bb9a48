//! Any line of the control socket, on both sides. What is checked, the tests of sni-user check as well
//! (`sni-user/src/control/invariants.rs`).

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| snigate_fuzz::control(bytes));
