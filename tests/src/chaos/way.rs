//! The ways that a connection can go, and what leads to each.

use std::net::SocketAddr;

use crate::addresses::{Host, VIP_1, VIP_2, VIP_3, VIP_4};

/// A way, as `snigate flow ls` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Decided by the address.
    Steered,
    /// By its name, in the datapath.
    Bound,
    /// By its name, in the agent, which has given its sockets up.
    HandedOff,
    /// By its name, and kept in the agent.
    Relayed,
    /// TLS ends in the agent.
    Terminated,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Steered,
        Self::Bound,
        Self::HandedOff,
        Self::Relayed,
        Self::Terminated,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Steered => "steered",
            Self::Bound => "bound",
            Self::HandedOff => "handed-off",
            Self::Relayed => "relayed",
            Self::Terminated => "terminated",
        }
    }

    /// Whether the agent is an end of such connections: they end with it.
    #[must_use]
    pub fn is_the_agents(self) -> bool {
        matches!(self, Self::Relayed | Self::Terminated)
    }

    pub(super) fn vip(self) -> Host {
        match self {
            Self::Steered => VIP_1,
            Self::Bound | Self::Terminated => VIP_2,
            Self::Relayed => VIP_3,
            Self::HandedOff => VIP_4,
        }
    }

    /// IPv4 first.
    pub(super) fn addresses(self) -> [SocketAddr; 2] {
        self.vip().sip()
    }
}
