//! Balanced packing: a given number of certificates, each item to the one with the most room.
//!
//! Where both limits bind, the first certificates of first-fit decreasing are full of few large names and the last ones of many small names, with bytes to
//! spare; this mixes them.

use std::{collections::BinaryHeap, ops::Range};

use super::{Bin, Capacity, Item};

/// Packs into the fewest certificates of `counts` that work out.
///
/// More of them leave more room for all, so that the number is searched by halves; where that is not so, a number above the best is found.
pub(super) fn pack(
    items: &[Item],
    order: &[usize],
    capacity: Capacity,
    counts: Range<usize>,
) -> Option<Vec<Bin>> {
    let Range { mut start, mut end } = counts;
    let mut best = None;
    while start < end {
        let middle = start + (end - start) / 2;
        match pack_into(items, order, capacity, middle) {
            Some(bins) => {
                best = Some(bins);
                end = middle;
            }
            None => start = middle + 1,
        }
    }
    best
}

fn pack_into(
    items: &[Item],
    order: &[usize],
    capacity: Capacity,
    count: usize,
) -> Option<Vec<Bin>> {
    let mut bins = vec![Bin::default(); count];
    // Of those with the same room, the first.
    let entry = |bin: usize, bytes: usize| (capacity.bytes - bytes, std::cmp::Reverse(bin));
    let mut roomiest: BinaryHeap<_> = (0..count).map(|bin| entry(bin, 0)).collect();
    let mut aside = Vec::new();
    for place in order.iter().copied() {
        let item = &items[place];
        loop {
            let (room, std::cmp::Reverse(bin)) = roomiest.pop()?;
            if room < item.bytes {
                return None;
            }
            if bins[bin].tolerates(items, item).is_err() {
                aside.push((room, std::cmp::Reverse(bin)));
                continue;
            }
            bins[bin].add(items, place);
            if bins[bin].items().len() < capacity.names {
                roomiest.push(entry(bin, bins[bin].bytes()));
            }
            break;
        }
        roomiest.extend(aside.drain(..));
    }
    bins.retain(|bin| !bin.items().is_empty());
    Some(bins)
}
