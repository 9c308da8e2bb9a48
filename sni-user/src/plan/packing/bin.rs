//! A certificate that is being filled.

use super::{Capacity, Item};

/// The items in it, by their place in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::plan) struct Bin {
    items: Vec<usize>,
    bytes: usize,
    /// Group and the customer of it that is here, in order.
    apart: Vec<(usize, usize)>,
    /// The customer that shares with nobody.
    owner: Option<usize>,
}

/// Why an item can't be in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Refusal {
    /// Too many bytes.
    Bytes,
    /// Too many names.
    Names,
    /// Another customer of this group is there.
    Apart {
        /// The group.
        group: usize,
        /// The customer.
        customer: usize,
    },
    /// Its customer, or the one that is there, shares with nobody.
    Alone,
}

impl Bin {
    /// What is in it.
    pub(in crate::plan) fn items(&self) -> &[usize] {
        &self.items
    }

    /// What that takes.
    pub(in crate::plan) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether an item may come in as well.
    pub(in crate::plan) fn accepts(
        &self,
        items: &[Item],
        item: &Item,
        capacity: Capacity,
    ) -> Result<(), Refusal> {
        if self.bytes + item.bytes > capacity.bytes {
            return Err(Refusal::Bytes);
        }
        if self.items.len() >= capacity.names {
            return Err(Refusal::Names);
        }
        self.tolerates(items, item)
    }

    /// The same but for the limits.
    pub(in crate::plan) fn tolerates(&self, items: &[Item], item: &Item) -> Result<(), Refusal> {
        if let Some(first) = self.items.first() {
            let another = match self.owner {
                Some(owner) => owner != item.customer,
                // Who is alone came first, or everybody else here is the same customer.
                None => item.alone && items[*first].customer != item.customer,
            };
            if another {
                return Err(Refusal::Alone);
            }
        }
        let rival = |group: &usize| {
            let here = self.apart.binary_search_by_key(group, |(group, _)| *group);
            let (group, customer) = self.apart[here.ok()?];
            (customer != item.customer).then_some(Refusal::Apart { group, customer })
        };
        match item.apart.iter().find_map(rival) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Puts an item in.
    pub(in crate::plan) fn add(&mut self, items: &[Item], place: usize) {
        let item = &items[place];
        self.items.push(place);
        self.bytes += item.bytes;
        if item.alone {
            self.owner = Some(item.customer);
        }
        for group in &item.apart {
            if let Err(at) = self.apart.binary_search_by_key(group, |(group, _)| *group) {
                self.apart.insert(at, (*group, item.customer));
            }
        }
    }

    /// Takes the item at this position out; it is of no group.
    pub(super) fn take(&mut self, items: &[Item], position: usize) -> usize {
        let place = self.items.swap_remove(position);
        self.bytes -= items[place].bytes;
        place
    }
}
