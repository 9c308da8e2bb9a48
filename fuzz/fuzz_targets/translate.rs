//! The translation of handed-off flows on any option area. What is checked, the tests of sni-common check as well
//! (`sni-common/tests/translate/`).

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../sni-common/tests/translate/invariants.rs"]
mod invariants;
#[path = "../../sni-common/tests/translate/reference.rs"]
#[expect(dead_code, reason = "where an option starts is for the tests")]
mod reference;

fuzz_target!(|bytes: &[u8]| invariants::check(bytes));
