//! Neighbours that the kernel keeps resolved by itself.
//!
//! The datapath sends to whom the neighbour table knows, and packets it forwards never make the kernel ask. An entry that is *managed*
//! (Linux 5.16) is probed by the kernel for as long as it exists, also while no agent runs.

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE};
use rtnetlink::packet_route::RouteNetlinkMessage;
pub use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
};
use rustix::io::Errno;

use super::{Mac, NetError, Network, error::is, route};

/// An entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// How far the kernel is with it.
    pub state: NeighbourState,
    /// Its Ethernet address, where one is known.
    pub mac: Option<Mac>,
    /// Whether the kernel keeps it resolved by itself.
    pub managed: bool,
}

impl Neighbour {
    /// Whether packets can be sent to it (NUD_VALID of the kernel's include/net/neighbour.h): what the datapath's lookup goes by.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
        matches!(
            self.state,
            Reachable | Stale | Delay | Probe | Noarp | Permanent
        )
    }

    /// Whether an administrator has set it, or its link needs no resolution: nothing to keep.
    fn is_fixed(&self) -> bool {
        matches!(
            self.state,
            NeighbourState::Permanent | NeighbourState::Noarp
        )
    }
}

impl Network {
    /// Has the kernel resolve `address` on this interface now, and keep it resolved. An entry that an administrator has made permanent
    /// is left as it is. The entry goes when the link does: ask again on [`super::Change::neighbours`].
    ///
    /// # Errors
    /// No privilege, no such interface, a full neighbour table.
    pub async fn keep_neighbour(&self, ifindex: u32, address: IpAddr) -> Result<(), NetError> {
        if let Some(entry) = self.neighbour_state(ifindex, address).await?
            && entry.is_fixed()
        {
            // One made between this look and the request below would be touched: as wide as any two commands on one host.
            return Ok(());
        }
        let mut message = message(ifindex, address);
        // `Use` asks for resolution at once. `ExtLearned` exempts the entry from the garbage collection of a full table, in
        // which one that fails to answer for a moment would be lost.
        message.header.flags = NeighbourFlags::Use | NeighbourFlags::ExtLearned;
        message
            .attributes
            .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        self.change_neighbour(message, NLM_F_CREATE, || {
            format!("keeping the neighbour {address} of interface {ifindex} resolved")
        })
        .await
    }

    /// Has the kernel resolve `address` on this interface now, unless it knows it or keeps it resolved already; what it learns stays for
    /// as long as it usually does.
    ///
    /// # Errors
    /// No privilege, no such interface, a full neighbour table.
    pub async fn resolve_neighbour(&self, ifindex: u32, address: IpAddr) -> Result<(), NetError> {
        // Not for thrift alone: the request would take a permanent entry's permanence and a managed one's care.
        if let Some(entry) = self.neighbour_state(ifindex, address).await?
            && (entry.is_usable() || entry.managed)
        {
            return Ok(());
        }
        let mut message = message(ifindex, address);
        message.header.flags = NeighbourFlags::Use;
        self.change_neighbour(message, NLM_F_CREATE, || {
            format!("resolving the neighbour {address} of interface {ifindex}")
        })
        .await
    }

    /// Leaves `address` to the kernel's ordinary care; what it knows of it stays until it is forgotten.
    ///
    /// # Errors
    /// No privilege, or no such interface. An entry that is gone already is none.
    pub async fn release_neighbour(&self, ifindex: u32, address: IpAddr) -> Result<(), NetError> {
        match self.neighbour_state(ifindex, address).await? {
            Some(entry) if entry.managed => {}
            _ => return Ok(()),
        }
        // An update without the flags clears them (neigh_update_flags), and `Use` leaves the state alone.
        let mut message = message(ifindex, address);
        message.header.flags = NeighbourFlags::Use;
        let released = self
            .change_neighbour(message, 0, || {
                format!("releasing the neighbour {address} of interface {ifindex}")
            })
            .await;
        match released {
            Err(NetError::Refused { reason, .. }) if is(&reason, Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// What the neighbour table says of `address` on this interface.
    ///
    /// # Errors
    /// No such interface, or the kernel's.
    pub async fn neighbour_state(
        &self,
        ifindex: u32,
        address: IpAddr,
    ) -> Result<Option<Neighbour>, NetError> {
        let mut found = None;
        let doing = || format!("asking for the neighbour {address} of interface {ifindex}");
        let request = RouteNetlinkMessage::GetNeighbour(message(ifindex, address));
        let asked = self
            .exchange(request, 0, doing, |answer| {
                if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                    found = Some(Neighbour::from(&message));
                }
            })
            .await;
        match asked {
            Err(NetError::Refused { reason, .. }) if is(&reason, Errno::NOENT) => Ok(None),
            other => other.map(|()| found),
        }
    }

    async fn change_neighbour(
        &self,
        message: NeighbourMessage,
        flags: u16,
        doing: impl Fn() -> String,
    ) -> Result<(), NetError> {
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.exchange(request, NLM_F_ACK | flags, doing, drop).await
    }
}

fn message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = route::family(address);
    message.header.ifindex = ifindex;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    message
}

impl From<&NeighbourMessage> for Neighbour {
    fn from(message: &NeighbourMessage) -> Self {
        let mut neighbour = Self {
            state: message.header.state,
            mac: None,
            managed: false,
        };
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    neighbour.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
                }
                NeighbourAttribute::ExtFlags(flags) => {
                    neighbour.managed = flags.contains(NeighbourExtFlags::Managed);
                }
                _ => {}
            }
        }
        neighbour
    }
}
