//! Entries of the maps as `map dump` shows them: nothing interpreted that is not in the entry itself or in a label.

mod config;
mod traffic;

pub(in crate::cli) use self::{
    config::{acl, control, edges, labels, maglev, pools, ports, services, settings},
    traffic::{budget, links, stats},
};
