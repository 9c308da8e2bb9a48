//! One form for IPv4 and IPv6 addresses.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address in 16 bytes, network byte order; IPv4 is mapped as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// Four words rather than sixteen bytes, because the datapath copies, hashes and sums them by the word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u32; 4]);

crate::contract::wire_struct!(Address, 16);

const MAPPED_PREFIX: u32 = 0x0000_ffff_u32.to_be();

impl Address {
    /// The length of an address as a prefix, in bits.
    pub const BITS: u32 = 128;

    /// An IPv4 address from its word in network byte order, as it stands in a packet.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED_PREFIX, word])
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED_PREFIX
    }

    /// The IPv4 address as a word in network byte order; meaningful only where [`Address::is_v4`].
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// Whether no address is set (`::`, which no peer can have).
    #[inline(always)]
    pub const fn is_unset(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// What a budget per source counts as one source: an IPv4 address, or the /64 that an IPv6 host draws its addresses from.
    #[inline(always)]
    pub const fn source_group(&self) -> Self {
        if self.is_v4() {
            *self
        } else {
            Self([self.0[0], self.0[1], 0, 0])
        }
    }

    /// What a budget per prefix counts as one: an IPv4 /24, or an IPv6 /48, which is what networks are handed out in.
    #[inline(always)]
    pub const fn source_prefix(&self) -> Self {
        if self.is_v4() {
            let [a, b, c, _] = self.v4_word().to_ne_bytes();
            Self::from_v4_word(u32::from_ne_bytes([a, b, c, 0]))
        } else {
            let [a, b, _, _] = self.0[1].to_ne_bytes();
            Self([self.0[0], u32::from_ne_bytes([a, b, 0, 0]), 0, 0])
        }
    }

    /// The prefix length in this form's 128 bits of a prefix of `length` bits in the address's own family.
    pub const fn prefix_bits(&self, length: u8) -> u32 {
        if self.is_v4() {
            96 + length as u32
        } else {
            length as u32
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        let o = address.octets();
        let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            return IpAddr::V4(Ipv4Addr::from(address.v4_word().to_ne_bytes()));
        }
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(address.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(octets))
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_address_survives_the_round_trip(v4: u32, v6: u128) {
            let v4 = IpAddr::V4(Ipv4Addr::from(v4));
            prop_assert_eq!(IpAddr::from(Address::from(v4)), v4);
            let v6 = Ipv6Addr::from(v6);
            // A mapped address is the IPv4 address: the configuration refuses to name one as IPv6.
            prop_assume!(v6.to_ipv4_mapped().is_none());
            prop_assert_eq!(IpAddr::from(Address::from(v6)), IpAddr::V6(v6));
        }
    }

    #[test]
    fn the_source_group_of_ipv6_is_its_64_prefix() {
        let a: Address = "2001:db8:1:2:3:4:5:6".parse::<Ipv6Addr>().unwrap().into();
        let b: Address = "2001:db8:1:2::".parse::<Ipv6Addr>().unwrap().into();
        assert_eq!(a.source_group(), b);
        let v4: Address = Ipv4Addr::new(192, 0, 2, 1).into();
        assert_eq!(v4.source_group(), v4);
        assert_eq!(v4.prefix_bits(24), 120);
        let prefix: Address = Ipv4Addr::new(192, 0, 2, 0).into();
        assert_eq!(v4.source_prefix(), prefix);
        let prefix: Address = "2001:db8:1::".parse::<Ipv6Addr>().unwrap().into();
        assert_eq!(a.source_prefix(), prefix);
    }
}
