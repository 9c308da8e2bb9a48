//! The reader of the ClientHello: real clients' hellos, every rule, any bytes, rustls's opinion, and the datapath's.

mod builder;
mod captured;
#[path = "../../../fuzz/corpus.rs"]
mod corpus;

mod datapath;
mod differential;
mod invariants;
mod properties;
mod rules;
mod walk;

/// The reader; whatever any test has it read, the datapath's walk must not take for something else.
mod hello {
    pub(crate) use sni_user::proxy::hello::{ClientHello, HelloError, MAX_HELLO, NotTls, Peeked};

    pub(crate) fn read(bytes: &[u8]) -> Result<Peeked, HelloError> {
        let read = sni_user::proxy::hello::read(bytes);
        crate::datapath::check(bytes, &read);
        read
    }
}
