//! The datapath's walk over a ClientHello and the agent's reader, on any bytes and as any extensions, whole and cut. What is checked, the tests of sni-user check
//! as well (`sni-user/tests/hello/`).

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../sni-user/tests/hello/datapath.rs"]
mod datapath;
#[path = "../../sni-user/src/proxy/hello/mod.rs"]
#[expect(
    dead_code,
    reason = "names for metrics and the like are for the gateway"
)]
mod hello;

/// Where a hello is cut: at few places, for speed.
const CUTS: usize = 16;

fuzz_target!(|bytes: &[u8]| {
    datapath::check(bytes, &hello::read(bytes));
    datapath::check_beginnings(bytes, CUTS, hello::read);
    // So that it need not find lengths that fit.
    let hello = datapath::with_extensions(bytes);
    datapath::check(&hello, &hello::read(&hello));
    datapath::check_beginnings(&hello, CUTS, hello::read);
});
