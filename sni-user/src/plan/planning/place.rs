//! Certificates that are there: what stays in them, and what new domains go into them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Planning, Reason};
use crate::{
    config::{Diagnostic, Name},
    plan::packing::{self, Bin, Refusal},
};

/// A certificate that is there.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) name: Name,
    /// Of the former plan.
    pub(super) slot: Option<usize>,
    pub(super) bin: Bin,
}

impl Planning<'_> {
    /// The certificates that are there, and the items that none of them has.
    pub(super) fn keep(&mut self) -> (Vec<Kept>, Vec<usize>) {
        let mut certificates: BTreeMap<(usize, Name), Vec<usize>> = BTreeMap::new();
        let mut left = Vec::new();
        for item in 0..self.items.len() {
            let owner = self.owners[item];
            match self.wanted(owner) {
                Some((name, reason)) => {
                    let slot = self
                        .former
                        .named(name.as_str())
                        .map_or(usize::MAX, |it| it.slot);
                    certificates.entry((slot, name)).or_default().push(item);
                    self.reasons[owner] = reason;
                }
                None => left.push(item),
            }
        }
        let kept = certificates
            .into_iter()
            .map(|((slot, name), items)| Kept {
                bin: self.refill(&name, items),
                slot: Some(slot).filter(|slot| *slot != usize::MAX),
                name,
            })
            .collect();
        (kept, left)
    }

    /// Where a domain has to be.
    fn wanted(&self, owner: usize) -> Option<(Name, Reason)> {
        let listed = self.listed[owner];
        if self.terms.repack || self.terms.moved.contains(&listed.domain) {
            return None;
        }
        let former = self.former.of(&listed.domain).map(|it| &it.name);
        match &listed.certificate {
            Some(name) if former.is_none_or(|former| former != name) => {
                Some((name.clone(), Reason::Listed))
            }
            _ => former.map(|name| (name.clone(), Reason::Kept)),
        }
    }

    /// Puts back what was in a certificate, and says what may not be there any more.
    fn refill(&self, name: &Name, items: Vec<usize>) -> Bin {
        let mut bin = Bin::default();
        let mut overfull = false;
        for item in items {
            let listed = self.listed[self.owners[item]];
            let domain = &listed.domain;
            let problem = match bin.accepts(&self.items, &self.items[item], self.capacity) {
                Ok(()) => {
                    bin.add(&self.items, item);
                    continue;
                }
                // Once for all that is too much.
                Err(Refusal::Bytes | Refusal::Names) if overfull => continue,
                Err(Refusal::Bytes | Refusal::Names) => {
                    overfull = true;
                    format!("{domain} is in {name}, where the limits leave no room for it")
                }
                Err(Refusal::Apart { group, customer }) => format!(
                    "{domain} is in {name} with {}, which is of the group {} as well",
                    self.names.customers[customer], self.names.groups[group]
                ),
                Err(Refusal::Alone) => format!(
                    "{domain} is in {name} with another customer, and one of the two shares with nobody"
                ),
            };
            let help = format!(
                "let it move by `--move {domain}`, or all by `--repack`; or change what the list or the limits ask for"
            );
            self.report
                .push(Diagnostic::error(listed.at.clone(), problem).help(help));
        }
        bin
    }

    /// Puts new items where there is room, and returns those for which there is none.
    ///
    /// First into certificates that have to be issued again anyway, then into the one with the most room, so that few have to be.
    pub(super) fn join(&mut self, kept: &mut [Kept], left: &[usize]) -> Vec<usize> {
        let mut touched = BTreeSet::new();
        let mut remaining = Vec::new();
        for item in packing::placing_order(&self.items, left) {
            let takes = |bin: &usize| {
                let bin = &kept[*bin].bin;
                bin.accepts(&self.items, &self.items[item], self.capacity)
                    .is_ok()
            };
            let roomiest = || {
                (0..kept.len())
                    .filter(takes)
                    .min_by_key(|bin| (kept[*bin].bin.bytes(), *bin))
            };
            let Some(bin) = touched.iter().copied().find(takes).or_else(roomiest) else {
                remaining.push(item);
                continue;
            };
            kept[bin].bin.add(&self.items, item);
            touched.insert(bin);
            self.reasons[self.owners[item]] = Reason::Joined;
        }
        remaining.sort_unstable();
        remaining
    }
}
