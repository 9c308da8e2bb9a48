//! Fewer certificates: the emptiest one is emptied into the gaps of the others.

use super::{Bin, Capacity, Item};

/// Rounds of exchanges for one certificate. Each leaves smaller names in it; what has not been emptied by then won't be.
const ROUNDS: usize = 100;

/// Empties one certificate after the other, until there are `bound` of them or the emptiest one can't be emptied.
pub(super) fn improve(
    mut bins: Vec<Bin>,
    items: &[Item],
    capacity: Capacity,
    bound: usize,
) -> Vec<Bin> {
    while bins.len() > bound {
        match without_the_emptiest(bins.clone(), items, capacity) {
            Some(fewer) => bins = fewer,
            None => break,
        }
    }
    bins
}

fn without_the_emptiest(
    mut bins: Vec<Bin>,
    items: &[Item],
    capacity: Capacity,
) -> Option<Vec<Bin>> {
    let emptiest = (0..bins.len()).min_by_key(|bin| bins[*bin].bytes())?;
    let mut rest = bins.swap_remove(emptiest);
    for _ in 0..ROUNDS {
        rest = hand_out(rest, &mut bins, items, capacity);
        if rest.items().is_empty() {
            return Some(bins);
        }
        if !exchange(&mut rest, &mut bins, items, capacity) {
            return None;
        }
    }
    None
}

/// Moves what fits somewhere: the large items first, each to where it leaves the least room.
fn hand_out(rest: Bin, bins: &mut [Bin], items: &[Item], capacity: Capacity) -> Bin {
    let mut kept = Bin::default();
    for place in super::placing_order(items, rest.items()) {
        let item = &items[place];
        let tightest = (0..bins.len())
            .filter(|bin| bins[*bin].accepts(items, item, capacity).is_ok())
            .max_by_key(|bin| (bins[*bin].bytes(), std::cmp::Reverse(*bin)));
        match tightest {
            Some(bin) => bins[bin].add(items, place),
            None => kept.add(items, place),
        }
    }
    kept
}

/// Fills the gap of each certificate by exchanging one of its items for a larger one of the rest. Says whether any was.
///
/// Items of groups stay where they are.
fn exchange(rest: &mut Bin, bins: &mut [Bin], items: &[Item], capacity: Capacity) -> bool {
    let free = |place: &usize| items[*place].apart.is_empty();
    let mut exchanged = false;
    for bin in bins {
        let gap = capacity.bytes - bin.bytes();
        // What is offered, by size.
        let mut offered: Vec<_> = (0..rest.items().len())
            .filter(|position| free(&rest.items()[*position]))
            .map(|position| (items[rest.items()[position]].bytes, position))
            .collect();
        offered.sort_unstable();
        let best = (0..bin.items().len())
            .filter(|position| free(&bin.items()[*position]))
            .filter_map(|position| {
                let size = items[bin.items()[position]].bytes;
                let fitting = offered.partition_point(|(offer, _)| *offer <= size + gap);
                let (offer, from) = *offered[..fitting].last()?;
                (offer > size).then(|| (offer - size, position, from))
            })
            .max_by_key(|(gain, position, _)| (*gain, std::cmp::Reverse(*position)));
        let Some((_, position, from)) = best else {
            continue;
        };
        let out = bin.take(items, position);
        let into = rest.take(items, from);
        bin.add(items, into);
        rest.add(items, out);
        exchanged = true;
    }
    exchanged
}
