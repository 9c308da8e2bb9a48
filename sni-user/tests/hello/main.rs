//! The reader of the ClientHello: real clients' hellos, every rule, any bytes, and rustls's opinion.

use sni_user::proxy::hello;

mod builder;
mod captured;

mod differential;
mod invariants;
mod properties;
mod rules;
