//! ACCOUNTS: what ended flows and connections have carried, by route, IP set and Edge. Those that live have it in their own entries; both together
//! are the whole account.

use super::{Flow, wire_enum, wire_struct};

/// Key of ACCOUNTS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// An [`AccountKind`].
    pub kind: u32,
    /// Zero.
    pub padding: u32,
    /// By the kind: [`super::SniName::number`] of a route, the number of an IP set, the slot of an Edge.
    pub number: u64,
}
wire_struct!(AccountKey, 16);

wire_enum! {
    /// Whose account it is. Every connection is in two: its Edge's, and its route's or IP set's.
    pub enum AccountKind: u32 {
        /// A configured server name.
        Route = 1, "route";
        /// An IP set: connections that no configured name decided about.
        IpSet = 2, "ip-set";
        /// An Edge.
        Edge = 3, "edge";
    }
}

impl AccountKey {
    /// The account of an Edge.
    #[inline(always)]
    pub const fn edge(slot: u16) -> Self {
        Self::of(AccountKind::Edge, slot as u64)
    }

    /// The account of a route, or of an IP set where `route` is 0.
    #[inline(always)]
    pub const fn route(route: u64, ip_set: u32) -> Self {
        if route != 0 {
            Self::of(AccountKind::Route, route)
        } else {
            Self::of(AccountKind::IpSet, ip_set as u64)
        }
    }

    #[inline(always)]
    const fn of(kind: AccountKind, number: u64) -> Self {
        Self {
            kind: kind as u32,
            padding: 0,
            number,
        }
    }
}

/// Value of ACCOUNTS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Connections that have ended.
    pub connections: u64,
    /// Bytes from clients to Edges, as [`Flow::bytes`] counts them.
    pub to_edge: u64,
    /// Bytes from Edges to clients.
    pub to_client: u64,
}
wire_struct!(Account, 24);

impl Account {
    /// What one flow adds.
    #[inline(always)]
    pub const fn of_flow(to_edge: &Flow, to_client: &Flow) -> Self {
        Self {
            connections: 1,
            to_edge: to_edge.bytes,
            to_client: to_client.bytes,
        }
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.connections = self.connections.wrapping_add(other.connections);
        self.to_edge = self.to_edge.wrapping_add(other.to_edge);
        self.to_client = self.to_client.wrapping_add(other.to_client);
    }
}
