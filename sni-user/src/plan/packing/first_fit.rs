//! First-fit: each item into the first certificate that takes it.

use super::{Bin, Capacity, Item};

/// Packs items in the given order.
pub(super) fn pack(items: &[Item], order: &[usize], capacity: Capacity) -> Vec<Bin> {
    let mut bins: Vec<Bin> = Vec::new();
    let mut room = Room::default();
    for place in order.iter().copied() {
        let item = &items[place];
        let mut from = 0;
        let bin = loop {
            match room.first(from, item.bytes) {
                Some(bin) if bins[bin].tolerates(items, item).is_ok() => break bin,
                Some(bin) => from = bin + 1,
                None => {
                    bins.push(Bin::default());
                    break bins.len() - 1;
                }
            }
        };
        bins[bin].add(items, place);
        let full = bins[bin].items().len() >= capacity.names;
        let left = if full {
            0
        } else {
            capacity.bytes - bins[bin].bytes()
        };
        room.set(bin, left);
    }
    bins
}

/// The room of each bin in a tree of maxima, so that the first with enough of it is found in as many steps as their number has digits.
#[derive(Default)]
struct Room {
    /// The root at 1, children of `n` at `2n` and `2n + 1`; the bins are its second half.
    tree: Vec<usize>,
}

impl Room {
    fn bins(&self) -> usize {
        self.tree.len() / 2
    }

    fn set(&mut self, bin: usize, room: usize) {
        if bin >= self.bins() {
            self.grow(bin + 1);
        }
        let mut node = self.bins() + bin;
        self.tree[node] = room;
        while node > 1 {
            node /= 2;
            self.tree[node] = self.tree[2 * node].max(self.tree[2 * node + 1]);
        }
    }

    fn grow(&mut self, bins: usize) {
        let leaves = self.tree.split_off(self.bins());
        let bins = bins.next_power_of_two();
        self.tree = vec![0; 2 * bins];
        self.tree[bins..bins + leaves.len()].copy_from_slice(&leaves);
        for node in (1..bins).rev() {
            self.tree[node] = self.tree[2 * node].max(self.tree[2 * node + 1]);
        }
    }

    /// The first bin from `from` on with at least this much room, which is more than none.
    fn first(&self, from: usize, room: usize) -> Option<usize> {
        let bins = self.bins();
        if from >= bins {
            return None;
        }
        // Up to the first subtree right of `from` that has enough, then down to its first leaf that has.
        let mut node = bins + from;
        while self.tree[node] < room {
            while node % 2 == 1 {
                node /= 2;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < bins {
            node *= 2;
            if self.tree[node] < room {
                node += 1;
            }
        }
        Some(node - bins)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_with_room_is_found(
            rooms in prop::collection::vec(0usize..6, 1..40),
            from in 0usize..45,
            wanted in 1usize..7,
        ) {
            let mut room = Room::default();
            for (bin, left) in rooms.iter().enumerate() {
                room.set(bin, *left);
            }
            let expected = (from..rooms.len()).find(|bin| rooms[*bin] >= wanted);
            prop_assert_eq!(room.first(from, wanted), expected);
        }
    }
}
