//! Entries of the maps as `map dump` shows them: nothing interpreted that is not in the entry itself or in a label.

mod capture;
mod config;
mod hand_over;
mod names;
mod pending;
mod steering;
mod traffic;

pub(in crate::cli) use self::{
    capture::capturing,
    config::{acl, control, filter, labels, settings},
    hand_over::{accounts, handing_off, syns},
    names::{learned, listeners, routes},
    pending::{hellos, pending},
    steering::{edges, maglev, pools, services},
    traffic::{budget, links, stats},
};
