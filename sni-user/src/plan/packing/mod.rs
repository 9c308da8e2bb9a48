//! Bin packing: as few certificates as possible for names of nearly equal size, with a limit of bytes and one of names.
//!
//! First-fit decreasing, and beside it the balanced packing that is better where both limits bind; then an improvement that empties a certificate
//! into the gaps of the others, until the lower bound is reached or nothing moves. Everything is determined by the items and their order.

mod balance;
mod bin;
mod bound;
mod first_fit;
mod improve;

pub(super) use self::{
    bin::{Bin, Refusal},
    bound::lower_bound,
};

/// A name to be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// What it takes, at least one.
    pub(super) bytes: usize,
    /// Whose it is.
    pub(super) customer: usize,
    /// Whether its customer shares a certificate with nobody.
    pub(super) alone: bool,
    /// Groups whose customers never share one, in order.
    pub(super) apart: Vec<usize>,
}

/// What a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) bytes: usize,
    pub(super) names: usize,
}

/// Packs the `chosen` ones of `items` into new certificates. Each of them fits into an empty one.
pub(super) fn pack(items: &[Item], chosen: &[usize], capacity: Capacity) -> Vec<Bin> {
    let (sharing, customers) = bound::by_customer(items, chosen);
    let mut bins = Vec::new();
    for group in customers.values().chain(std::iter::once(&sharing)) {
        bins.extend(pack_together(items, group, capacity));
    }
    bins
}

/// The same for items that may share, but for the groups.
fn pack_together(items: &[Item], chosen: &[usize], capacity: Capacity) -> Vec<Bin> {
    if chosen.is_empty() {
        return Vec::new();
    }
    let order = placing_order(items, chosen);
    let bound = bound::of_sharing(items, chosen, capacity);
    let mut bins = first_fit::pack(items, &order, capacity);
    if bins.len() > bound
        && let Some(balanced) = balance::pack(items, &order, capacity, bound..bins.len())
    {
        bins = balanced;
    }
    improve::improve(bins, items, capacity, bound)
}

/// Customers that must be apart first, as long as every certificate has room for one of them; then the large names, whose gaps the small ones fill.
pub(super) fn placing_order(items: &[Item], chosen: &[usize]) -> Vec<usize> {
    let mut order = chosen.to_vec();
    order.sort_by_key(|place| {
        let item = &items[*place];
        (item.apart.is_empty(), std::cmp::Reverse(item.bytes), *place)
    });
    order
}

#[cfg(test)]
mod tests;
