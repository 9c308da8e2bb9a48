//! What certificates are called, and which slot is theirs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Placement, Plan, Planning, place::Kept};
use crate::{
    config::Name,
    plan::{Mode, former::FormerCertificate, packing::Bin},
};

/// A certificate's name and slot.
type Identity = (Name, usize);

impl Planning<'_> {
    pub(super) fn name(self, kept: Vec<Kept>, fresh: Vec<Bin>, lower_bound: usize) -> Option<Plan> {
        let mut naming = Naming::default();
        let mut named = self.identify(kept, fresh, &mut naming);
        if named.is_empty() && !self.terms.names_in_all().is_empty() {
            // All domains use the provider's name, which has to be in a certificate.
            let former = self.former.certificates().first();
            let former = former.map(|it| (it.name.clone(), it.slot));
            named.push((former.unwrap_or_else(|| naming.next()), Bin::default()));
        }
        named.sort_by_key(|((_, slot), _)| *slot);
        let mut certificates = Vec::new();
        for ((name, slot), bin) in &named {
            certificates.push(self.certificate(name, *slot, bin)?);
        }
        let named_bins = named.len();
        let bins: Vec<_> = named.into_iter().map(|(_, bin)| bin).collect();
        let names: BTreeSet<_> = certificates.iter().map(|it| it.name.as_str()).collect();
        let former = self.former.certificates().iter();
        let dropped = former
            .filter(|it| !names.contains(it.name.as_str()))
            .map(|it| it.name.clone())
            .collect();
        Some(Plan {
            mode: self.terms.mode,
            placements: self.placements(&bins),
            lower_bound: match named_bins {
                0 => 0,
                _ => lower_bound.max(1),
            },
            dropped,
            certificates,
            items: self.items,
            bins,
            names: self.names,
        })
    }

    fn identify(
        &self,
        kept: Vec<Kept>,
        fresh: Vec<Bin>,
        naming: &mut Naming,
    ) -> Vec<(Identity, Bin)> {
        let mut named = Vec::new();
        for Kept { name, slot, bin } in kept {
            let slot = slot.unwrap_or_else(|| naming.slot_of(&name));
            naming.take(&name, slot);
            named.push(((name, slot), bin));
        }
        let mut again = self.most_alike(&fresh, naming);
        for (place, bin) in fresh.into_iter().enumerate() {
            let identity = again.remove(&place).unwrap_or_else(|| {
                let identity = match self.terms.mode {
                    Mode::San => naming.next(),
                    Mode::PerCustomer => naming.of_customer(self.customer(&bin)),
                };
                naming.take(&identity.0, identity.1);
                identity
            });
            named.push((identity, bin));
        }
        named
    }

    /// After a repacking: the former certificate that a new one has the most names of, so that few addresses and certificates change.
    fn most_alike(&self, fresh: &[Bin], naming: &mut Naming) -> HashMap<usize, Identity> {
        let mut shared: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for (place, bin) in fresh.iter().enumerate() {
            for item in bin.items() {
                let domain = &self.listed[self.owners[*item]].domain;
                if let Some(home) = self.former.place_of(domain) {
                    *shared.entry((place, home)).or_default() += 1;
                }
            }
        }
        let mut pairs: Vec<_> = shared.into_iter().collect();
        pairs.sort_by_key(|(pair, count)| (std::cmp::Reverse(*count), *pair));
        let mut again = HashMap::new();
        for ((place, home), _) in pairs {
            let FormerCertificate { name, slot, .. } = &self.former.certificates()[home];
            if !again.contains_key(&place) && naming.is_free(name, *slot) {
                naming.take(name, *slot);
                again.insert(place, (name.clone(), *slot));
            }
        }
        again
    }

    fn customer(&self, bin: &Bin) -> &str {
        let first = bin.items().first();
        first.map_or("", |item| &self.names.customers[self.items[*item].customer])
    }

    fn placements(&self, bins: &[Bin]) -> Vec<Placement> {
        let mut places = vec![None; self.listed.len()];
        for (certificate, bin) in bins.iter().enumerate() {
            for item in bin.items() {
                places[self.owners[*item]] = Some((certificate, *item));
            }
        }
        let listed = self.listed.iter().zip(places).zip(&self.reasons);
        listed
            .map(|((listed, place), reason)| Placement {
                domain: listed.domain.clone(),
                customer: listed.customer.to_string(),
                federation: listed.federation,
                certificate: place.map(|(certificate, _)| certificate),
                reason: *reason,
                item: place.map(|(_, item)| item),
            })
            .collect()
    }
}

/// Names and slots that are in use.
#[derive(Default)]
struct Naming {
    names: BTreeSet<Name>,
    slots: BTreeSet<usize>,
    /// None before this one is free.
    first_free: usize,
}

/// What a certificate that customers share is called, with its number behind it.
const SHARED: &str = "san-";

impl Naming {
    fn is_free(&self, name: &Name, slot: usize) -> bool {
        !self.names.contains(name) && !self.slots.contains(&slot)
    }

    fn take(&mut self, name: &Name, slot: usize) {
        self.names.insert(name.clone());
        self.slots.insert(slot);
    }

    fn free_slot(&mut self) -> usize {
        while self.slots.contains(&self.first_free) {
            self.first_free += 1;
        }
        self.first_free
    }

    /// The slot that a name's number stands for, or else the first free one.
    fn slot_of(&mut self, name: &Name) -> usize {
        let number = name.as_str().strip_prefix(SHARED);
        let slot = number.and_then(|it| it.parse::<usize>().ok()?.checked_sub(1));
        slot.filter(|slot| !self.slots.contains(slot))
            .unwrap_or_else(|| self.free_slot())
    }

    /// The first free slot, and the name with its number or the next free one.
    fn next(&mut self) -> Identity {
        let slot = self.free_slot();
        let name = (slot + 1..)
            .map(|number| format!("{SHARED}{number}").parse().expect("a name"))
            .find(|name| !self.names.contains(name));
        (name.expect("fewer names than numbers"), slot)
    }

    /// A customer's name as one of a file; a further certificate of the same gets a number.
    fn of_customer(&mut self, customer: &str) -> Identity {
        let slug = slug(customer);
        let name = (1..)
            .map(|number| match number {
                1 => slug.clone(),
                _ => format!("{slug}-{number}"),
            })
            .map(|name| name.parse().expect("a name"))
            .find(|name| !self.names.contains(name));
        (name.expect("fewer names than numbers"), self.free_slot())
    }
}

/// Lower-case letters, digits, dots and dashes, short enough for a number behind it.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for character in text.to_lowercase().chars() {
        match character {
            'a'..='z' | '0'..='9' => slug.push(character),
            '.' | '-' | ' ' | '_' if !slug.ends_with(['-', '.']) && !slug.is_empty() => {
                slug.push(if character == '.' { '.' } else { '-' });
            }
            _ => {}
        }
    }
    slug.truncate(Name::MAX_LEN - 8);
    match slug.trim_end_matches(['-', '.']) {
        "" => "customer".to_owned(),
        slug => slug.to_owned(),
    }
}
