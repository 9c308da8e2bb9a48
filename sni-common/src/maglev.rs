//! Maglev hashing (Eisenbud et al., NSDI 2016, 3.4): which Edge of a pool a flow belongs to.
//!
//! The table depends only on the seed and on the members' names, addresses and weights, so several gateways with the same configuration
//! choose alike without talking.

/// Slots of a pool's table: a prime, as the permutation needs, and about 64 times the largest pool, so that shares are even to a few
/// percent; two bytes a slot keep a table in 8 KiB.
pub const SLOTS: usize = 4093;

/// No Edge: what every slot of an empty pool holds.
pub const NO_EDGE: u16 = u16::MAX;

/// Entries of a table: the slots, rounded up to a power of two, so that the verifier sees from its bits that an index is in bounds.
pub const ENTRIES: usize = SLOTS.next_power_of_two();

/// A pool's table: Edge slot numbers by hash. Entries from [`SLOTS`] on are never looked at, and hold [`NO_EDGE`].
pub type Table = [u16; ENTRIES];

/// A pool member as the table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What identifies the member on every gateway: a hash of its name and address, see [`identity`].
    pub identity: u64,
    /// What the table holds for it.
    pub edge: u16,
    /// Its share relative to the other members; 0 takes no slots.
    pub weight: u16,
}

/// Fills a pool's table; every slot is [`NO_EDGE`] when no member has weight.
///
/// The members take turns in order of identity, so the order in which a configuration lists them does not matter. Weights stretch a
/// member's turn as in the paper: it takes slots whenever its accumulated weight reaches that of the heaviest member.
pub fn fill(table: &mut Table, members: &mut [Member], seed: u64) {
    table.fill(NO_EDGE);
    take_turns(table, members, seed);
}

/// Fills the table that new flows of a pool go by, of which only the `available` members take any.
///
/// Where `whole`, the table of all members, names an available one, it stays: whoever had an Edge that is still there keeps it, and an Edge that comes back
/// gets just what it had. For the other slots the available members take turns as they do for a whole table, so that each gets its share of them, and
/// gateways that see the same Edges fail agree without talking.
pub fn fill_available(table: &mut Table, whole: &[u16], available: &mut [Member], seed: u64) {
    table.fill(NO_EDGE);
    for (slot, edge) in table[..SLOTS].iter_mut().zip(whole) {
        if available.iter().any(|member| member.edge == *edge) {
            *slot = *edge;
        }
    }
    take_turns(table, available, seed);
}

/// The most members a pool may have.
pub const MAX_MEMBERS: usize = 64;

/// Gives the slots that are nobody's to the members.
fn take_turns(table: &mut Table, members: &mut [Member], seed: u64) {
    members.sort_unstable_by_key(|m| m.identity);
    let heaviest = members
        .iter()
        .map(|m| u32::from(m.weight))
        .max()
        .unwrap_or(0);
    let free = |slot: &&u16| **slot == NO_EDGE;
    let mut left = table[..SLOTS].iter().filter(free).count();
    if heaviest == 0 || left == 0 {
        return;
    }
    let mut turns = [Turns::default(); MAX_MEMBERS];
    for (turns, member) in turns.iter_mut().zip(members.iter()) {
        *turns = Turns::new(member.identity, seed);
    }
    loop {
        for (turns, member) in turns.iter_mut().zip(members.iter()) {
            turns.credit += u32::from(member.weight);
            if turns.credit < heaviest {
                continue;
            }
            turns.credit -= heaviest;
            let slot = loop {
                let slot = turns.next_slot();
                if table[slot] == NO_EDGE {
                    break slot;
                }
            };
            table[slot] = member.edge;
            left -= 1;
            if left == 0 {
                return;
            }
        }
    }
}

/// Where a member is: the slot of its permutation that it tries next, how far the one after it is, and what it has saved of its weight.
#[derive(Clone, Copy, Default)]
struct Turns {
    at: usize,
    skip: usize,
    credit: u32,
}

impl Turns {
    fn new(identity: u64, seed: u64) -> Self {
        let skip = mix(identity.rotate_left(32) ^ seed ^ 0x5ca1_ab1e) % (SLOTS as u64 - 1) + 1;
        Self {
            at: (mix(identity ^ seed) % SLOTS as u64) as usize,
            skip: skip as usize,
            credit: 0,
        }
    }

    fn next_slot(&mut self) -> usize {
        let slot = self.at;
        self.at = (slot + self.skip) % SLOTS;
        slot
    }
}

/// The slot of a flow: a hash of the client's address and port (network byte order), and of the seed.
///
/// The client alone, not the address it asked for: all services of a pool agree where a client's port belongs.
#[inline(always)]
pub const fn slot(client: &crate::Address, client_port_be: u16, seed: u64) -> u32 {
    let high = (client.0[0] as u64) << 32 | client.0[1] as u64;
    let low = (client.0[2] as u64) << 32 | client.0[3] as u64;
    let hash = mix(mix(mix(high ^ seed) ^ low) ^ client_port_be as u64);
    // Scaled rather than reduced: no division in the datapath.
    (((hash >> 32) * SLOTS as u64) >> 32) as u32
}

/// A stable hash of bytes (FNV-1a, then mixed), the same on every gateway and in every version: the seed's text and member identities.
pub fn identity(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in *part {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // A separator that no text contains: ("ab", "c") and ("a", "bc") differ.
        hash = (hash ^ 0xff).wrapping_mul(0x0100_0000_01b3);
    }
    mix(hash)
}

/// The finalizer of SplitMix64 (Steele et al., OOPSLA 2014): every input bit reaches every output bit.
#[inline(always)]
pub const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{boxed::Box, collections::HashMap, vec::Vec};

    fn table_of(members: &[Member], seed: u64) -> Box<Table> {
        let mut table = Box::new([0; ENTRIES]);
        fill(&mut table, &mut members.to_vec(), seed);
        table
    }

    fn pool(count: u16, weight: impl Fn(u16) -> u16) -> Vec<Member> {
        (0..count)
            .map(|edge| Member {
                identity: identity(&[b"edge", &edge.to_be_bytes()]),
                edge,
                weight: weight(edge),
            })
            .collect()
    }

    fn shares(table: &Table) -> HashMap<u16, usize> {
        table[..SLOTS]
            .iter()
            .fold(HashMap::new(), |mut shares, edge| {
                *shares.entry(*edge).or_default() += 1;
                shares
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_slot_is_filled_with_a_member(count in 1u16..=64, seed: u64) {
            let table = table_of(&pool(count, |_| 1), seed);
            prop_assert!(table[..SLOTS].iter().all(|edge| *edge < count));
            // The paper's bound for M > 100 N does not hold for the largest pools; turns keep shares within one slot all the same.
            let shares = shares(&table);
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            prop_assert!(shares.len() == usize::from(count) && most - least <= 1);
        }

        #[test]
        fn the_order_of_the_members_does_not_matter(count in 2u16..=16, seed: u64, rotate in 0usize..16) {
            let members = pool(count, |edge| edge % 3 + 1);
            let mut other = members.clone();
            other.rotate_left(rotate % usize::from(count));
            prop_assert_eq!(table_of(&members, seed), table_of(&other, seed));
        }

        #[test]
        fn removing_a_member_moves_little_else(count in 3u16..=32, gone in 0u16..32, seed: u64) {
            let gone = gone % count;
            let before = table_of(&pool(count, |_| 1), seed);
            let after = table_of(&pool(count, |edge| u16::from(edge != gone)), seed);
            prop_assert!(after.iter().all(|edge| *edge != gone));
            let moved = before.iter().zip(after.iter()).filter(|(b, a)| **b != gone && b != a).count();
            // Maglev trades a little disruption for even shares (paper, figure 12); rehashing modulo N would move (N-1)/N of them.
            prop_assert!(moved * 4 < SLOTS, "{moved} of {SLOTS} slots moved between members that stayed");
        }

        #[test]
        fn what_fails_moves_what_it_had_and_nothing_else(count in 2u16..=64, gone: u64, seed: u64) {
            let members = pool(count, |edge| edge % 3 + 1);
            let is_gone = |edge: u16| gone >> edge & 1 == 1;
            let left: Vec<_> = members.iter().copied().filter(|member| !is_gone(member.edge)).collect();
            let whole = table_of(&members, seed);
            let mut table = Box::new([0; ENTRIES]);
            fill_available(&mut table, &whole[..], &mut left.clone(), seed);
            for (before, after) in whole[..SLOTS].iter().zip(table.iter()) {
                if left.is_empty() {
                    prop_assert_eq!(*after, NO_EDGE);
                } else if is_gone(*before) {
                    prop_assert!(*after < count && !is_gone(*after));
                } else {
                    prop_assert_eq!(before, after);
                }
            }
        }

        #[test]
        fn what_a_failed_one_had_is_shared(count in 3u16..=16, gone in 0u16..16, seed: u64) {
            let gone = gone % count;
            let members = pool(count, |_| 1);
            let mut left: Vec<_> = members.iter().copied().filter(|member| member.edge != gone).collect();
            let mut table = Box::new([0; ENTRIES]);
            fill_available(&mut table, &table_of(&members, seed)[..], &mut left, seed);
            let even = SLOTS / usize::from(count - 1);
            for (edge, share) in shares(&table) {
                prop_assert!(share.abs_diff(even) <= 2, "Edge {edge} has {share} slots of {SLOTS}, and {even} would be even");
            }
        }

        #[test]
        fn weights_are_shares(heavy in 2u16..=10, seed: u64) {
            let shares = shares(&table_of(&pool(4, |edge| if edge == 0 { heavy } else { 1 }), seed));
            let ratio = shares[&0] as f64 / shares[&1] as f64;
            prop_assert!((ratio - f64::from(heavy)).abs() < 0.05 * f64::from(heavy), "weight {heavy}, ratio {ratio}");
        }
    }

    #[test]
    fn an_empty_pool_has_no_edge() {
        assert!(table_of(&[], 1).iter().all(|edge| *edge == NO_EDGE));
        assert!(
            table_of(&pool(3, |_| 0), 1)
                .iter()
                .all(|edge| *edge == NO_EDGE)
        );
    }

    #[test]
    fn clients_spread_evenly() {
        let mut hits = [0u32; 16];
        for port in 1024u16..=65535 {
            let slot = slot(
                &core::net::Ipv4Addr::new(192, 0, 2, 1).into(),
                port.to_be(),
                7,
            );
            hits[slot as usize * 16 / SLOTS] += 1;
        }
        let mean = (65536 - 1024) / 16;
        assert!(
            hits.iter().all(|h| h.abs_diff(mean) < mean / 10),
            "{hits:?}"
        );
    }

    #[test]
    fn the_hash_is_the_same_for_ever() {
        // Gateways of different versions must agree: these values are part of the contract.
        assert_eq!(identity(&[b"snigate"]), 0xef17_c80c_9ed5_7f2e);
        let v4 = core::net::Ipv4Addr::new(192, 0, 2, 1).into();
        assert_eq!(slot(&v4, 40000u16.to_be(), 7), 1325);
        let v6 = core::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into();
        assert_eq!(slot(&v6, 40000u16.to_be(), 7), 1500);
        assert_ne!(identity(&[b"ab", b"c"]), identity(&[b"a", b"bc"]));
    }
}
