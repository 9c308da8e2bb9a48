//! The lab: real packets between network namespaces, and the peers that send them.
//!
//! Everything here is a guard. A [`Lab`] is a partner, a gateway and two Edges in namespaces of their own, a [`Process`]
//! is a program running in one of them, a [`peers::Edge`] is a server on threads; dropping any of them, also while a
//! test panics, takes it away again. What a killed process leaves behind is removed by the next lab that starts.
//!
//! ```no_run
//! use std::{net::SocketAddr, time::Duration};
//! use snigate_tests::{Topology, addresses, lab_test, peers, pki::Pki};
//!
//! lab_test("tls-through-the-gateway", &Topology::default(), |lab| {
//!     let pki = Pki::new("federation", &lab.dir())?;
//!     let edge = pki.server("edge-a", &["sip.contoso.example"])?;
//!     let partner = pki.server("partner", &["sip.partner.example"])?;
//!     let _server = peers::OpensslServer::start(
//!         lab, "edge-a", &lab.edge_a, addresses::SIP_TLS, &edge, &pki,
//!     )?;
//!     // Here the gateway is started in `lab.gateway`, with its pins in `lab.bpffs()`.
//!     for vip in addresses::VIP_1.both() {
//!         let session = peers::OpensslClient::new(&lab.partner, "sip.contoso.example", &partner, &pki)
//!             .version(peers::TlsVersion::V13)
//!             .connect(SocketAddr::new(vip, addresses::SIP_TLS), Duration::from_secs(10))?;
//!         anyhow::ensure!(session.names == ["sip.contoso.example"], "{session:?}");
//!     }
//!     Ok(())
//! });
//! ```
//!
//! Addresses are documentation addresses, and nothing is ever configured in the root namespace.

pub mod addresses;
mod at_once;
pub mod bench;
pub mod bpffs;
mod capture;
pub mod counters;
pub mod deadline;
pub mod demo;
pub mod faults;
pub mod flood;
pub mod gateway;
pub mod kernel;
mod lab;
pub mod leftovers;
mod line;
mod netns;
pub mod packets;
pub mod peers;
pub mod pki;
pub mod plot;
mod process;
pub mod service_manager;
mod topology;
mod vlan;
mod wire;

pub use at_once::at_once;
pub use lab::{Lab, lab_test};
pub use netns::Namespace;
pub use process::{Process, output_within};
pub use topology::{Tags, Topology};
pub use wire::{Disturbance, Fate, Toward, Wire, WireCounts};
