//! The datapath as userspace sees it: its maps by type, the program's life, and a configuration in its terms.
//!
//! This is the only module that names aya. Everything is pinned below one directory: maps under their names, programs and links below
//! `links/`. Whoever may open the pins can read the state, with or without an agent.

mod accounts;
mod attach;
mod availability;
mod batch;
mod capture;
mod clsact;
mod dispatch;
mod error;
mod events;
mod fill;
mod former;
mod generation;
mod hand_offs;
#[cfg(test)]
pub(crate) mod invariants;
mod lacks;
mod lookups;
mod maps;
mod names;
mod program;
mod returning;
mod run_time;
mod sweep;
mod sys;
mod tables;

use std::net::SocketAddr;

use sni_common::Address;

pub use self::{
    accounts::Additions,
    attach::{AttachMode, Attached, attached_interfaces},
    capture::{Capture, CapturedPacket},
    dispatch::Listeners,
    error::DatapathError,
    events::{EventStream, LogStream, Told},
    fill::Fill,
    former::FormerSettings,
    generation::Activated,
    hand_offs::{FlowRefused, HandOffs},
    lacks::lacks,
    maps::{MAPS, MapKind, Maps, map_kind},
    program::{Datapath, Origin, ProgramFacts},
    returning::ReturnHook,
    run_time::{Measuring, Programs, RunTime},
    sweep::{EndedFlow, RemovedFlow, Swept, sweep},
    tables::Tables,
};

/// An address of the contract with a port in network byte order.
pub(crate) fn endpoint(address: Address, port_be: u16) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be(port_be))
}

/// The datapath's object, compiled for the BPF target by the build script.
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/snigate-datapath"));

/// Name of the XDP program in the object.
pub(crate) const XDP_PROGRAM: &str = "snigate_xdp";

/// Name of the same program for traffic control.
pub(crate) const TC_PROGRAM: &str = "snigate_tc";
