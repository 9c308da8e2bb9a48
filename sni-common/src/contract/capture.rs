//! CAPTURING and CAPTURED: which packets `snigate capture` wants to see, and what the datapath shows of them.

use super::{FlowKey, VlanTag, wire_enum, wire_struct};
use crate::Address;

/// Bytes of a packet that are copied at most; a power of two.
pub const MAX_SNAP: usize = 2048;

/// How long a capture goes on that is not renewed, in nanoseconds: one that was killed, or stopped, costs the datapath nothing after that.
pub const CAPTURE_LEASE_NS: u64 = 5_000_000_000;

/// A prefix of addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Its address, without bits beyond the mask.
    pub address: Address,
    /// The bits that count, in network byte order like the address; none where every address is in it.
    pub mask: Address,
}
wire_struct!(Prefix, 32);

impl Prefix {
    /// The prefix of the first `bits` of an address, counted as [`Address::prefix_bits`] does.
    pub fn new(address: Address, bits: u32) -> Self {
        let mut mask = [0; 4];
        let mut masked = [0; 4];
        for (word, mask) in (0..).zip(&mut mask) {
            let ones = bits.saturating_sub(32 * word).min(32);
            *mask = u32::MAX.checked_shl(32 - ones).unwrap_or(0).to_be();
        }
        for (word, masked) in masked.iter_mut().enumerate() {
            *masked = address.0[word] & mask[word];
        }
        Self {
            address: Address(masked),
            mask: Address(mask),
        }
    }

    /// The bits in which an address is not in it; 0 for one that is.
    #[inline(always)]
    pub const fn difference(&self, address: &Address) -> u32 {
        ((address.0[0] & self.mask.0[0]) ^ self.address.0[0])
            | ((address.0[1] & self.mask.0[1]) ^ self.address.0[1])
            | ((address.0[2] & self.mask.0[2]) ^ self.address.0[2])
            | ((address.0[3] & self.mask.0[3]) ^ self.address.0[3])
    }
}

/// The one entry of CAPTURING: what a capture wants. In force until the time in [`super::CONTROL_CAPTURE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capturing {
    /// An end of the packet must be in it, as it comes or as its flow translates it.
    pub one_end: Prefix,
    /// Likewise.
    pub other_end: Prefix,
    /// Drop reasons that are wanted, a bit for each number; about [`Fate::Dropped`] and [`Fate::Answered`].
    pub reasons: u64,
    /// Fates that are wanted, a bit for each.
    pub fates: u32,
    /// Which capture: records that one before has not read are not this one's.
    pub session: u32,
    /// Bytes of each packet, from 1 to [`MAX_SNAP`].
    pub snap: u32,
    /// Interface that packets must come in by; 0 for any.
    pub ifindex: u32,
    /// Slot of the Edge, plus one, that packets must go to or come from; 0 for any.
    pub edge: u32,
    /// Packets on each CPU, in thousandths per second.
    pub millirate: u32,
    /// Packets on each CPU at once.
    pub burst: u32,
    /// Zero.
    pub padding: u32,
}
wire_struct!(Capturing, 104);

/// A record of the ring CAPTURED; the first bytes of the frame, as it came in, are behind it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// When the packet came in; monotonic clock, nanoseconds.
    pub at_ns: u64,
    /// [`Capturing::session`].
    pub session: u32,
    /// Interface that it came in by.
    pub ifindex: u32,
    /// Interface that it leaves by where it is forwarded; else 0.
    pub leaves_by: u32,
    /// Slot of its flow's Edge, plus one; 0 for a packet of no flow.
    pub edge: u32,
    /// Length of the whole frame, a tag that the kernel has taken out not counted; 0 where there was no packet to be seen.
    pub length: u32,
    /// How many bytes of it are behind the record.
    pub taken: u32,
    /// The VLAN tag that the kernel has taken out of the frame.
    pub tag: VlanTag,
    /// Addresses and ports as it came in.
    pub key: FlowKey,
    /// A [`Hook`].
    pub hook: u8,
    /// A [`Fate`].
    pub fate: u8,
    /// What exactly: a drop reason where the packet was dropped or answered, else a counter.
    pub number: u8,
    /// A [`super::Direction`], where there is an Edge.
    pub direction: u8,
}
wire_struct!(Captured, 80);

wire_enum! {
    /// Where the datapath saw a packet.
    pub enum Hook: u8 {
        /// XDP.
        Xdp = 1, "xdp";
        /// The ingress of traffic control.
        TrafficControl = 2, "tc";
        /// The program behind either, where answers of Edges are looked at.
        Behind = 3, "return";
        /// The host's lookup of a socket: there is no packet at this hook, only its addresses.
        SocketLookup = 4, "socket-lookup";
    }
}

wire_enum! {
    /// What became of a packet.
    pub enum Fate: u8 {
        /// The host's, or the next program's.
        Passed = 0, "passed";
        /// Translated and sent on.
        Forwarded = 1, "forwarded";
        /// Turned into an RST or an ICMP error for its sender, for a drop reason.
        Answered = 2, "answered";
        /// Turned into a SYN-ACK for its sender.
        Greeted = 3, "greeted";
        /// Taken from the wire because its work is done.
        Kept = 4, "kept";
        /// Dropped.
        Dropped = 5, "dropped";
    }
}

impl Fate {
    /// Those that have a drop reason, as bits of [`Capturing::fates`].
    pub const DROPS: u32 = 1 << Self::Answered as u32 | 1 << Self::Dropped as u32;
    /// All, likewise.
    pub const ANY: u32 = (1 << (Self::Dropped as u32 + 1)) - 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn prefix(text: &str, length: u8) -> Prefix {
        let address = address(text);
        Prefix::new(address, address.prefix_bits(length))
    }

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_prefix_has_its_own_addresses_and_no_others() {
        for (prefix, inside, outside) in [
            (prefix("192.0.2.77", 24), "192.0.2.255", "192.0.3.0"),
            (prefix("192.0.2.77", 32), "192.0.2.77", "192.0.2.76"),
            (prefix("192.0.2.0", 23), "192.0.3.1", "192.0.4.1"),
            (prefix("0.0.0.0", 0), "203.0.113.1", "2001:db8::1"),
            (prefix("2001:db8::", 32), "2001:db8:ffff::1", "2001:db9::"),
            (prefix("2001:db8::5", 128), "2001:db8::5", "2001:db8::4"),
            (
                prefix("2001:db8:8000::", 33),
                "2001:db8:8001::",
                "2001:db8::",
            ),
        ] {
            assert_eq!(
                prefix.difference(&address(inside)),
                0,
                "{prefix:?} {inside}"
            );
            assert_ne!(
                prefix.difference(&address(outside)),
                0,
                "{prefix:?} {outside}"
            );
        }
        for any in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(Prefix::default().difference(&address(any)), 0);
        }
    }

    #[test]
    fn fates_have_bits_of_their_own() {
        let all = Fate::ALL.iter().map(|fate| 1 << *fate as u32);
        assert_eq!(all.sum::<u32>(), Fate::ANY);
        for fate in Fate::ALL {
            let is_drop = matches!(fate, Fate::Answered | Fate::Dropped);
            assert_eq!(Fate::DROPS >> *fate as u32 & 1 == 1, is_drop, "{fate}");
        }
    }
}
