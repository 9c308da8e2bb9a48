//! ACCOUNTS: what connections have carried, by route, IP set and Edge: flows of the datapath that have ended, and all that the agent has carried itself.
//! Flows that live have it in their own entries; both together are the whole account.

use super::{Flow, wire_enum, wire_struct};

/// Key of ACCOUNTS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// An [`AccountKind`].
    pub kind: u32,
    /// An [`AccountWriter`].
    pub writer: u32,
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

wire_enum! {
    /// Who adds to an account. The datapath adds to a value where it lies; the agent and commands read it and write it anew, which would undo what
    /// another adds in between. So each has an account of its own, and their sum is what counts.
    pub enum AccountWriter: u32 {
        /// The datapath, on whatever CPU.
        Datapath = 0, "datapath";
        /// The agent.
        Agent = 1, "agent";
        /// `snigate flow kill`.
        Command = 2, "command";
    }
}

impl AccountKey {
    /// The account of an Edge, as the datapath writes it; see [`AccountKey::by`].
    #[inline(always)]
    pub const fn edge(slot: u16) -> Self {
        Self::of(AccountKind::Edge, slot as u64)
    }

    /// The account of a route, or of an IP set where `route` is 0, likewise.
    #[inline(always)]
    pub const fn route(route: u64, ip_set: u32) -> Self {
        if route != 0 {
            Self::of(AccountKind::Route, route)
        } else {
            Self::of(AccountKind::IpSet, ip_set as u64)
        }
    }

    /// The same account, as another writer has it.
    #[must_use]
    #[inline(always)]
    pub const fn by(self, writer: AccountWriter) -> Self {
        Self {
            writer: writer as u32,
            ..self
        }
    }

    #[inline(always)]
    const fn of(kind: AccountKind, number: u64) -> Self {
        Self {
            kind: kind as u32,
            writer: AccountWriter::Datapath as u32,
            number,
        }
    }
}

/// Value of ACCOUNTS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Connections: flows that have ended, and those that the agent carries or has carried.
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
        *self = self.combined(other, u64::wrapping_add);
    }

    /// What must be added to `earlier` to get this: less than nothing wraps around, and around again when it is added.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.combined(earlier, u64::wrapping_sub)
    }

    fn combined(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            connections: with(self.connections, other.connections),
            to_edge: with(self.to_edge, other.to_edge),
            to_client: with(self.to_client, other.to_client),
        }
    }
}
