//! The lab: real packets between network namespaces, and the peers that send them.
//!
//! Everything here is a guard. A [`Lab`] is a partner, a gateway and two Edges in namespaces of their own, a [`Process`]
//! is a program running in one of them, a [`peers::Edge`] is a server on threads; dropping any of them, also while a
//! test panics, takes it away again. What a killed process leaves behind is removed by the next lab that starts.
//!
//! Addresses are documentation addresses, and nothing is ever configured in the root namespace.

pub mod addresses;
pub mod bpffs;
mod capture;
pub mod counters;
pub mod deadline;
pub mod faults;
mod lab;
pub mod leftovers;
mod netns;
pub mod peers;
pub mod pki;
mod process;
mod topology;
mod vlan;

pub use lab::{Lab, lab_test};
pub use netns::Namespace;
pub use process::{Process, output_within};
pub use topology::{Tags, Topology};
