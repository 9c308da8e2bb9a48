//! What only shows when the tables are compared with each other.
//!
//! Each check works on drafts and skips what has been reported as unreadable, so that one mistake is one message.

mod acme;
mod addresses;
mod domains;
mod families;
mod gateway;
mod names;
mod references;
mod steering;

use std::{collections::hash_map::Entry, hash::Hash, sync::Arc};

use foldhash::{HashMap, HashMapExt as _};

use super::{
    diagnostics::{Diagnostic, Report},
    location::{Location, Source},
    tables::Draft,
};

/// Reports everything that is wrong with the configuration as a whole.
pub(super) fn check(draft: &Draft, main: Option<&Arc<Source>>, report: &Report) {
    if let (None, false, Some(main)) = (&draft.gateway, draft.incomplete, main) {
        gateway::missing(main, report);
    }
    if let Some(table) = &draft.gateway {
        gateway::check(table, draft, report);
    }
    names::check(draft, report);
    references::check(draft, report);
    families::check(draft, report);
    addresses::check(draft, report);
    domains::check(draft, report);
    acme::check(draft, report);
    steering::check(draft, report);
}

/// Where each of the things that may exist only once was first written.
struct Once<'a, T> {
    first: HashMap<T, &'a Location>,
}

impl<'a, T: Hash + Eq> Once<'a, T> {
    fn new() -> Self {
        Self::of(0)
    }

    /// With room for so many.
    fn of(count: usize) -> Self {
        Self {
            first: HashMap::with_capacity(count),
        }
    }

    /// Nothing the first time, and the place of the first time from then on.
    fn again(&mut self, what: T, at: &'a Location) -> Option<&'a Location> {
        match self.first.entry(what) {
            Entry::Occupied(first) => Some(first.get()),
            Entry::Vacant(slot) => {
                slot.insert(at);
                None
            }
        }
    }
}

/// Something that is written twice and may be written once: both places are named.
fn twice(
    at: &Location,
    first: &Location,
    message: impl Into<String>,
    help: impl Into<String>,
) -> Diagnostic {
    Diagnostic::error(at.clone(), message)
        .related(first, "the first is here")
        .help(help)
}
