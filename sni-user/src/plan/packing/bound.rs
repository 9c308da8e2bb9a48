//! How many certificates there must be at least.

use std::collections::{BTreeMap, BTreeSet};

use super::{Capacity, Item};

/// A number that no packing of the `chosen` items is below.
pub(in crate::plan) fn lower_bound(items: &[Item], chosen: &[usize], capacity: Capacity) -> usize {
    let (sharing, customers) = by_customer(items, chosen);
    let alone: usize = customers
        .values()
        .map(|chosen| of_sharing(items, chosen, capacity))
        .sum();
    alone + of_sharing(items, &sharing, capacity)
}

/// Those that share, and those of each customer that does not.
pub(super) fn by_customer(
    items: &[Item],
    chosen: &[usize],
) -> (Vec<usize>, BTreeMap<usize, Vec<usize>>) {
    let mut customers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut sharing = Vec::new();
    for place in chosen.iter().copied() {
        if items[place].alone {
            customers
                .entry(items[place].customer)
                .or_default()
                .push(place);
        } else {
            sharing.push(place);
        }
    }
    (sharing, customers)
}

/// The largest of the bounds that bytes, names and groups give.
pub(super) fn of_sharing(items: &[Item], chosen: &[usize], capacity: Capacity) -> usize {
    let mut sizes: Vec<_> = chosen.iter().map(|place| items[*place].bytes).collect();
    sizes.sort_unstable();
    by_bytes(&sizes, capacity.bytes)
        .max(chosen.len().div_ceil(capacity.names))
        .max(largest_group(items, chosen))
}

/// The bound L2 of Martello and Toth: large items, of which no two go together, and what the small ones need beside them.
fn by_bytes(sizes: &[usize], capacity: usize) -> usize {
    let mut sums = Vec::with_capacity(sizes.len() + 1);
    sums.push(0);
    for size in sizes {
        sums.push(sums[sums.len() - 1] + size);
    }
    let below = |size: usize| sizes.partition_point(|it| *it < size);
    let half = below(capacity / 2 + 1);
    // The threshold: smaller items are left out of account. Only sizes that occur make a difference.
    let mut bound = sums[sizes.len()].div_ceil(capacity);
    let mut from = 0;
    while from < half {
        let threshold = sizes[from];
        let large = below(capacity - threshold + 1).max(half);
        let beside = (large - half) * capacity - (sums[large] - sums[half]);
        let small = sums[half] - sums[from];
        let more = small.saturating_sub(beside).div_ceil(capacity);
        bound = bound.max(sizes.len() - half + more);
        from = below(threshold + 1);
    }
    bound.max(sizes.len() - half)
}

/// Customers of one group are all in different certificates.
fn largest_group(items: &[Item], chosen: &[usize]) -> usize {
    let members: BTreeSet<_> = chosen
        .iter()
        .flat_map(|place| {
            let item = &items[*place];
            item.apart.iter().map(|group| (*group, item.customer))
        })
        .collect();
    let mut sizes: BTreeMap<_, usize> = BTreeMap::new();
    for (group, _) in members {
        *sizes.entry(group).or_default() += 1;
    }
    sizes.into_values().max().unwrap_or_default()
}
