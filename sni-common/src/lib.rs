//! What snigate's datapath (eBPF) and its agent (userspace) agree on, and the logic both sides use.
//!
//! [`contract`] holds every structure that crosses the kernel boundary: map keys and values, events, verdicts, numbered drop
//! reasons and counters, and the ABI version under which pinned maps may be adopted. The other modules are pure functions without
//! allocation or I/O, so that host tests run exactly what the verifier accepts.
#![no_std]

#[cfg(test)]
extern crate std;

mod address;
pub mod checksum;
pub mod contract;
pub mod expiry;
pub mod hello;
pub mod maglev;
pub mod syn;
pub mod tcp;
pub mod token_bucket;
pub mod translate;

pub use address::Address;
