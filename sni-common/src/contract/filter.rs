//! FILTER: which packets can be ours at all, so that nobody else pays for a hash lookup.
//!
//! Two sets of 65,536 bits, one for where packets go (public address and port of a service), one for where they come from (address and port of
//! an Edge). An endpoint's bit is a hash of it: a set bit says *perhaps*, a clear one *certainly not*.

use crate::Address;

/// Bits of one set.
pub const FILTER_BITS: u32 = 1 << 16;

/// The first bit of the services' set.
pub const FILTER_SERVICES: u32 = 0;

/// The first bit of the Edges' set.
pub const FILTER_EDGES: u32 = FILTER_BITS;

/// An endpoint's bit within its set; `port_be` in network byte order.
///
/// Multiplicative hashing: cheap, and no secret is needed, since whoever makes collisions only makes his own packets slower.
#[inline(always)]
pub const fn filter_bit(address: &Address, port_be: u16) -> u32 {
    let [a, b, c, d] = address.0;
    let folded = a ^ b.rotate_left(7) ^ c.rotate_left(13) ^ d ^ (port_be as u32).rotate_left(16);
    folded.wrapping_mul(0x9e37_79b1) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::collections::HashSet;

    #[test]
    fn neighbouring_endpoints_have_different_bits() {
        let mut bits = HashSet::new();
        for host in 0..=255u8 {
            for port in [443u16, 5061] {
                bits.insert(filter_bit(
                    &Ipv4Addr::new(198, 51, 100, host).into(),
                    port.to_be(),
                ));
                let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into());
                bits.insert(filter_bit(&v6.into(), port.to_be()));
            }
        }
        assert!(bits.iter().all(|bit| *bit < FILTER_BITS));
        assert!(bits.len() > 1000, "{} of 1024", bits.len());
    }
}
