//! The lab's address plan, all of it documentation addresses (RFC 5737, RFC 3849).
//!
//! ```text
//! partner eth0 ───── wan0 gateway lan0 ───── eth0 edge-a
//!     198.51.100.0/24     │       203.0.113.0/25
//!     2001:db8:1::/64     │       2001:db8:a::/64
//!                         └── lan1 ───────── eth0 edge-b
//!                                 203.0.113.128/25
//!                                 2001:db8:b::/64
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of SIP federation.
pub const SIP_TLS: u16 = 5061;

/// The partner.
pub const PARTNER: Host = host([198, 51, 100, 1], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]);
/// The gateway on the partner's link.
pub const GATEWAY_WAN: Host = host([198, 51, 100, 254], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe]);
/// The first virtual address: the first IP set.
pub const VIP_1: Host = host([198, 51, 100, 10], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10]);
/// The second virtual address: the second IP set.
pub const VIP_2: Host = host([198, 51, 100, 20], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x20]);
/// A virtual address that the gateway does not have of itself: an agent that inspects it makes it local.
pub const VIP_3: Host = host([198, 51, 100, 30], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x30]);
/// Another one.
pub const VIP_4: Host = host([198, 51, 100, 40], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x40]);
/// The gateway on the link of edge-a.
pub const GATEWAY_LAN_A: Host = host([203, 0, 113, 1], [0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1]);
/// The first Edge.
pub const EDGE_A: Host = host([203, 0, 113, 10], [0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x10]);
/// The gateway on the link of edge-b.
pub const GATEWAY_LAN_B: Host = host([203, 0, 113, 129], [0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1]);
/// The second Edge.
pub const EDGE_B: Host = host([203, 0, 113, 140], [0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x10]);
/// The gateway on the link to the router, in a lab that has one.
pub const GATEWAY_TRANSIT: Host = host([192, 0, 2, 1], [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1]);
/// The router between the gateway and edge-a, on the gateway's side. Towards edge-a it has [`GATEWAY_LAN_A`].
pub const ROUTER: Host = host([192, 0, 2, 2], [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 2]);

/// A machine's address in both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Host {
    /// Both addresses, IPv4 first: what a test loops over.
    #[must_use]
    pub fn both(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Likewise, with the port of SIP federation.
    #[must_use]
    pub fn sip(&self) -> [SocketAddr; 2] {
        self.both().map(at)
    }
}

/// The port of SIP federation at this address.
#[must_use]
pub fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, SIP_TLS)
}

/// Where clients of the first IP set connect to, IPv4 first.
#[must_use]
pub fn vips() -> [SocketAddr; 2] {
    VIP_1.sip()
}

/// The router between the gateway and the partner, on the gateway's side, in a lab that has one.
pub const WAN_ROUTER: Host = host([198, 51, 100, 253], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfd]);
/// The same router on the partner's side.
pub const WAN_ROUTER_DOWN: Host = host([192, 0, 2, 254], [0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 1]);
/// A partner on the partner's link whose address no kernel has: [`crate::peers::Smoltcp`].
pub const FOREIGN_PARTNER: Host = host([198, 51, 100, 3], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 3]);
/// Likewise an Edge on the link of edge-a.
pub const FOREIGN_EDGE: Host = host([203, 0, 113, 11], [0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x11]);

/// The `n`th address of the partner, counted from 0, which is [`PARTNER`]; see `Topology::partner_addresses`.
///
/// They run from 198.51.100.100 and 2001:db8:1::100 upwards, clear of everything else in the plan.
#[must_use]
pub fn partner(n: u8) -> Host {
    if n == 0 {
        return PARTNER;
    }
    assert!(
        n <= 100,
        "the partner's link has room for 100 further addresses, not {n}"
    );
    let low = 99 + n;
    host(
        [198, 51, 100, low],
        [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x100 + u16::from(n)],
    )
}

const fn host(v4: [u8; 4], v6: [u16; 8]) -> Host {
    Host {
        v4: Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]),
        v6: Ipv6Addr::new(v6[0], v6[1], v6[2], v6[3], v6[4], v6[5], v6[6], v6[7]),
    }
}
