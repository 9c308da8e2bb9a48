//! Addresses of IP sets that the agent makes the host's own.
//!
//! A connection to an address is the host's only if the address is local. The agent adds those that are not, each alone (/32, /128)
//! and in a way that changes nothing else of the host's traffic:
//!
//! - An IPv4 address has the scope `host`. The kernel never takes one of those as the source of what leaves the host, not even
//!   where an interface has no other (`inet_select_addr` in net/ipv4/devinet.c). With `global`, the usual scope, one on `lo` becomes the
//!   source on every unnumbered link. Neighbours get their ARP answer all the same, unless `arp_ignore` is 3.
//! - An IPv6 address is deprecated (preferred lifetime 0, RFC 4862): taken as a source only where the host has no other address of
//!   the same scope (RFC 6724, section 5, rule 3), and without a route to itself beside the local one. Duplicate address detection
//!   would leave it unusable for a second, and for good in a race with a gateway that is just giving it up.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use rustix::io::Errno;

use super::{LOOPBACK, NetError, Network, PROTOCOL, RouteKind, error::is, route};

/// The addresses that the agent has added to the host, or an earlier one that was killed: they are known by their mark, so nothing
/// needs to be remembered. There may be one agent to a network namespace.
#[derive(Debug)]
pub struct LocalAddresses {
    network: Network,
}

/// What [`LocalAddresses::keep`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Added now.
    pub added: Vec<Placed>,
    /// Added earlier, and where they belong.
    pub standing: Vec<Placed>,
    /// Local without the agent's doing.
    pub there: Vec<IpAddr>,
    /// Removed now: wanted no longer, or the host has got them from somebody else, or added elsewhere now.
    pub removed: Vec<Placed>,
}

impl Kept {
    /// Whether anything has been changed.
    #[must_use]
    pub fn changed(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty())
    }
}

/// An address and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// The address.
    pub address: IpAddr,
    /// Index of its interface.
    pub ifindex: u32,
}

impl LocalAddresses {
    /// Those of the namespace that `network` is connected to.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self { network }
    }

    /// Sees to it that every address of `wanted` is local. Those that the host has without the agent are left as they are; those that
    /// the agent has added and are wanted no longer are removed.
    ///
    /// An address goes to that one of `interfaces` (the attached ones and the VLANs on top of them) on whose subnet it lies, so that
    /// neighbours there get an answer to who has it; to `lo` if there is none, since packets to it are routed here.
    ///
    /// Costs one listing if there is nothing to change: call it again on [`super::Change::addresses`] and [`super::Change::links`],
    /// because an interface that goes down loses its IPv6 addresses.
    ///
    /// # Errors
    /// The first refusal. The other addresses are added nevertheless, and nothing is removed.
    pub async fn keep(&mut self, wanted: &[IpAddr], interfaces: &[u32]) -> Result<Kept, NetError> {
        let present = self.network.addresses().await?;
        let (ours, others): (Vec<_>, Vec<_>) = present.into_iter().partition(|entry| entry.ours);
        let mut ours: BTreeSet<Placed> = ours.into_iter().map(|entry| entry.placed).collect();
        let mut kept = Kept::default();
        let mut refused = None;
        for address in wanted.iter().copied().collect::<BTreeSet<_>>() {
            let placed = Placed {
                address,
                ifindex: place(address, &others, interfaces),
            };
            if others.iter().any(|entry| entry.placed.address == address) {
                kept.there.push(address);
            } else if ours.remove(&placed) {
                kept.standing.push(placed);
            } else {
                let fresh = !ours.iter().any(|entry| entry.address == address);
                match self.make_local(placed, fresh).await {
                    Ok(true) => kept.added.push(placed),
                    Ok(false) => kept.there.push(address),
                    Err(error) => {
                        refused.get_or_insert(error);
                    }
                }
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        // Last, so that an address that moves is local all the time.
        kept.removed = self.remove(ours).await?;
        Ok(kept)
    }

    /// Removes every address that the agent, or an earlier one, has added.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn release(&mut self) -> Result<Vec<Placed>, NetError> {
        let present = self.network.addresses().await?;
        let ours = present.into_iter().filter(|entry| entry.ours);
        self.remove(ours.map(|entry| entry.placed)).await
    }

    /// Adds the address; `false` where it turns out to be local already. A `fresh` one is nowhere in the list of addresses.
    async fn make_local(&self, placed: Placed, fresh: bool) -> Result<bool, NetError> {
        if fresh && self.is_routed_here(placed.address).await? {
            return Ok(false);
        }
        match self.network.add_address(placed).await {
            Ok(()) => Ok(true),
            // Somebody was faster.
            Err(NetError::Refused { reason, .. }) if is(&reason, Errno::EXIST) => Ok(false),
            Err(NetError::Refused { reason, .. })
                if placed.address.is_ipv6() && lacks_ipv6(&reason) =>
            {
                Err(NetError::Ipv6Off {
                    address: placed.address,
                    interface: self.network.interface_name(placed.ifindex).await?,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether an address that is none of the host's is local nevertheless: by a route such as `local 198.51.100.0/24 dev lo`.
    async fn is_routed_here(&self, address: IpAddr) -> Result<bool, NetError> {
        match self.network.route_to(address, None).await {
            Ok(route) => Ok(route.kind == RouteKind::Local),
            Err(NetError::Unreachable { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, all: impl IntoIterator<Item = Placed>) -> Result<Vec<Placed>, NetError> {
        let mut removed = Vec::new();
        for placed in all {
            match self.network.remove_address(placed).await {
                // Gone with its interface, or by hand.
                Err(NetError::Refused { reason, .. })
                    if is(&reason, Errno::ADDRNOTAVAIL) || is(&reason, Errno::NODEV) => {}
                other => {
                    other?;
                    removed.push(placed);
                }
            }
        }
        Ok(removed)
    }
}

/// What the kernel answers for an IPv6 address where IPv6 is switched off: on the interface, or altogether.
fn lacks_ipv6(reason: &std::io::Error) -> bool {
    let reasons = [Errno::ACCESS, Errno::OPNOTSUPP, Errno::AFNOSUPPORT];
    Errno::from_io_error(reason).is_some_and(|errno| reasons.contains(&errno))
}

/// The interface that an address belongs on: that with the smallest subnet around it, the first of several.
fn place(address: IpAddr, others: &[Configured], interfaces: &[u32]) -> u32 {
    let subnets = interfaces.iter().flat_map(|index| {
        others
            .iter()
            .filter(|entry| entry.placed.ifindex == *index && entry.subnet.contains(&address))
    });
    subnets
        .min_by_key(|entry| u8::MAX - entry.subnet.prefix_len())
        .map_or(LOOPBACK, |entry| entry.placed.ifindex)
}

/// An address as it is configured.
#[derive(Clone, Copy, Debug)]
struct Configured {
    placed: Placed,
    /// The addresses of its link.
    subnet: IpNet,
    ours: bool,
}

impl Network {
    async fn addresses(&self) -> Result<Vec<Configured>, NetError> {
        let mut found = Vec::new();
        self.list(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            || "listing the addresses".to_owned(),
            |answer| {
                if let RouteNetlinkMessage::NewAddress(message) = answer {
                    found.extend(Configured::read(&message));
                }
            },
        )
        .await?;
        Ok(found)
    }

    async fn add_address(&self, placed: Placed) -> Result<(), NetError> {
        let mut message = message(placed);
        let protocol = AddressProtocol::Other(PROTOCOL);
        message
            .attributes
            .push(AddressAttribute::Protocol(protocol));
        if placed.address.is_ipv4() {
            message.header.scope = AddressScope::Host;
        } else {
            let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::Flags(flags));
            message
                .attributes
                .push(AddressAttribute::CacheInfo(lifetime));
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let Placed { address, ifindex } = placed;
        let doing = || format!("adding the address {address} to interface {ifindex}");
        self.exchange(request, flags, doing, drop).await
    }

    async fn remove_address(&self, placed: Placed) -> Result<(), NetError> {
        let request = RouteNetlinkMessage::DelAddress(message(placed));
        let Placed { address, ifindex } = placed;
        let doing = || format!("removing the address {address} from interface {ifindex}");
        self.exchange(request, NLM_F_ACK, doing, drop).await
    }

    async fn interface_name(&self, ifindex: u32) -> Result<String, NetError> {
        let interfaces = self.interfaces().await?;
        let found = interfaces
            .into_iter()
            .find(|interface| interface.index == ifindex);
        Ok(found.map_or_else(|| format!("interface {ifindex}"), |found| found.name))
    }
}

fn message(placed: Placed) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = route::family(placed.address);
    message.header.prefix_len = route::prefix(placed.address);
    message.header.index = placed.ifindex;
    // IPv4 needs both; without `Address`, a removal would take the first entry with this address, of whatever prefix.
    message.attributes = vec![
        AddressAttribute::Local(placed.address),
        AddressAttribute::Address(placed.address),
    ];
    message
}

impl Configured {
    /// `None` for what is no IP address.
    fn read(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut remote, mut ours) = (None, None, false);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => remote = Some(*address),
                AddressAttribute::Protocol(protocol) => ours = u8::from(*protocol) == PROTOCOL,
                _ => {}
            }
        }
        // On a point-to-point link `Address` is the other end, and the prefix is around it; elsewhere it is the address itself,
        // for IPv6 without a `Local` beside it.
        let address = local.or(remote)?;
        Some(Self {
            placed: Placed {
                address,
                ifindex: message.header.index,
            },
            subnet: IpNet::new(remote.unwrap_or(address), message.header.prefix_len).ok()?,
            ours,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(ifindex: u32, subnet: &str) -> Configured {
        let subnet: IpNet = subnet.parse().expect("a subnet");
        Configured {
            placed: Placed {
                address: subnet.addr(),
                ifindex,
            },
            subnet,
            ours: false,
        }
    }

    #[test]
    fn an_address_belongs_on_the_smallest_subnet_of_an_attached_interface() {
        let others = [
            configured(2, "198.51.100.254/24"),
            configured(3, "198.51.100.129/25"),
            configured(4, "198.51.100.161/27"),
            configured(3, "2001:db8:1::fe/64"),
            configured(2, "2001:db8:1::fd/64"),
        ];
        let at = |address: &str, interfaces: &[u32]| {
            place(address.parse().expect("an address"), &others, interfaces)
        };
        assert_eq!(at("198.51.100.10", &[2, 3]), 2);
        assert_eq!(at("198.51.100.170", &[2, 3]), 3);
        assert_eq!(at("198.51.100.170", &[2, 3, 4]), 4);
        assert_eq!(at("198.51.100.170", &[2]), 2);
        assert_eq!(at("192.0.2.1", &[2, 3, 4]), LOOPBACK);
        assert_eq!(at("198.51.100.10", &[]), LOOPBACK);
        // The first of several, as the caller has them.
        assert_eq!(at("2001:db8:1::10", &[2, 3]), 2);
        assert_eq!(at("2001:db8:1::10", &[3, 2]), 3);
        assert_eq!(at("2001:db8:2::10", &[3, 2]), LOOPBACK);
    }

    #[test]
    fn the_subnet_of_a_point_to_point_link_is_around_its_other_end() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 24;
        message.header.index = 7;
        let (own, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([203, 0, 113, 1]));
        message.attributes = vec![
            AddressAttribute::Address(other),
            AddressAttribute::Local(own),
        ];
        let read = Configured::read(&message).expect("an address");
        assert_eq!(
            read.placed,
            Placed {
                address: own,
                ifindex: 7
            }
        );
        assert_eq!(place([203, 0, 113, 9].into(), &[read], &[7]), 7);
        assert_eq!(place([192, 0, 2, 9].into(), &[read], &[7]), LOOPBACK);
    }
}
