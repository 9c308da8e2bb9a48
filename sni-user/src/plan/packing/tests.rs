//! What any packing keeps to, and how close it comes to the bound.

use proptest::prelude::*;

use super::*;

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = (1usize..60, 0usize..12).prop_map(|(bytes, customer)| Item {
        bytes,
        customer,
        // Customers 0 and 1 are alone, 2 to 5 of one group, 4 to 7 of another.
        alone: customer < 2,
        apart: [(0, 2..6), (1, 4..8)]
            .into_iter()
            .filter(|(_, members)| members.contains(&customer))
            .map(|(group, _)| group)
            .collect(),
    });
    prop::collection::vec(item, 0..120)
}

fn sharing(sizes: impl IntoIterator<Item = usize>) -> Vec<Item> {
    let item = |(customer, bytes)| Item {
        bytes,
        customer,
        alone: false,
        apart: Vec::new(),
    };
    sizes.into_iter().enumerate().map(item).collect()
}

fn packed(items: &[Item], capacity: Capacity) -> (usize, usize) {
    let all: Vec<_> = (0..items.len()).collect();
    let bins = pack(items, &all, capacity);
    (bins.len(), lower_bound(items, &all, capacity))
}

/// The fewest certificates, by trying everything.
fn fewest(items: &[Item], capacity: Capacity, next: usize, bins: &mut Vec<Bin>) -> usize {
    if next == items.len() {
        return bins.len();
    }
    let mut best = usize::MAX;
    for bin in 0..bins.len() {
        if bins[bin].accepts(items, &items[next], capacity).is_ok() {
            let before = bins[bin].clone();
            bins[bin].add(items, next);
            best = best.min(fewest(items, capacity, next + 1, bins));
            bins[bin] = before;
        }
    }
    let mut fresh = Bin::default();
    fresh.add(items, next);
    bins.push(fresh);
    best = best.min(fewest(items, capacity, next + 1, bins));
    bins.pop();
    best
}

proptest! {
    #[test]
    fn a_packing_keeps_to_everything(items in items(), bytes in 60usize..200, names in 1usize..12) {
        let capacity = Capacity { bytes, names };
        let all: Vec<_> = (0..items.len()).collect();
        let bins = pack(&items, &all, capacity);
        let mut seen: Vec<_> = bins.iter().flat_map(|bin| bin.items()).copied().collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, all.clone());
        for bin in &bins {
            let inside: Vec<_> = bin.items().iter().map(|place| &items[*place]).collect();
            let taken: usize = inside.iter().map(|item| item.bytes).sum();
            prop_assert_eq!(taken, bin.bytes());
            prop_assert!(taken <= capacity.bytes && inside.len() <= capacity.names);
            for (one, other) in inside.iter().flat_map(|one| inside.iter().map(move |other| (one, other))) {
                let shared = one.customer != other.customer;
                prop_assert!(!(shared && one.alone), "{one:?} {other:?}");
                prop_assert!(!(shared && one.apart.iter().any(|group| other.apart.contains(group))), "{one:?} {other:?}");
            }
        }
        prop_assert!(bins.len() >= lower_bound(&items, &all, capacity));
    }

    #[test]
    fn the_bound_is_below_the_optimum(items in items().prop_map(|mut items| { items.truncate(8); items }), bytes in 60usize..120, names in 1usize..5) {
        let capacity = Capacity { bytes, names };
        let (found, bound) = packed(&items, capacity);
        let optimum = fewest(&items, capacity, 0, &mut Vec::new());
        prop_assert!(bound <= optimum && optimum <= found, "{bound} {optimum} {found}");
    }
}

#[test]
fn large_items_are_bounded_by_more_than_their_sum() {
    let capacity = Capacity {
        bytes: 100,
        names: 100,
    };
    // Of three times 51, no two go together; 40 goes beside each, and a fourth 40 does not.
    assert_eq!(packed(&sharing([51, 51, 51]), capacity), (3, 3));
    assert_eq!(packed(&sharing([61, 61, 40, 40]), capacity), (3, 3));
    assert_eq!(packed(&sharing([]), capacity), (0, 0));
}

#[test]
fn names_as_they_are_reach_the_bound() {
    // Lengths between 19 and 50, as `sip.<domain>` has them, in no order.
    let sizes = |count: usize| (0..count).map(|n| 19 + (n * n * 7 + n * 13) % 32);
    for (count, bytes, names) in [(100, 1009, 250), (1000, 1009, 100), (3000, 4078, 250)] {
        let (found, bound) = packed(&sharing(sizes(count)), Capacity { bytes, names });
        assert_eq!(found, bound, "{count} items");
    }
    // Where the limit of names binds as well, the large ones are mixed with the small ones.
    let (found, bound) = packed(
        &sharing(sizes(3000)),
        Capacity {
            bytes: 1009,
            names: 30,
        },
    );
    assert!(found <= bound + 2, "{found} for {bound}");
}
