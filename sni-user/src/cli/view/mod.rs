//! From the maps' contents to what commands show: pure functions, and structs that are JSON and table rows at once.
//!
//! Field names are part of the command line's interface: programs read the JSON.

pub(super) mod ca;
pub(super) mod cert;
pub(super) mod domain;
pub(super) mod dump;
pub(super) mod edge;
pub(super) mod entry;
pub(super) mod flow;
pub(super) mod hello;
#[cfg(test)]
pub(super) mod made_up;
pub(super) mod route;
pub(super) mod service;
pub(super) mod status;
pub(super) mod total;
