//! LINKS: VLAN interfaces, which a route may name but a frame can't be redirected to.

use super::{VlanTag, wire_struct};

/// Value of LINKS, keyed by the interface index of a VLAN interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Index of the interface that carries the frames.
    pub ifindex: u32,
    /// The tags they carry there; a single tag is the outer.
    pub tags: [VlanTag; 2],
}
wire_struct!(Link, 12);
