//! Where packets would go.

use std::{collections::BTreeSet, net::IpAddr};

use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{NetError, Network};

/// The kernel's answer to where packets to an address go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the interface they leave by.
    pub ifindex: u32,
    /// The router they are handed to; `None` where the destination is a neighbour. May be of the other address family.
    pub gateway: Option<IpAddr>,
    /// The source address that a socket of the host would take.
    pub source: Option<IpAddr>,
    /// What the destination is to this host.
    pub kind: RouteKind,
}

impl Route {
    /// The neighbour that packets to `destination` are sent to.
    #[must_use]
    pub fn next_hop(&self, destination: IpAddr) -> IpAddr {
        self.gateway.unwrap_or(destination)
    }
}

/// What a destination is to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Another host.
    Unicast,
    /// The host itself.
    Local,
    /// All hosts of a link.
    Broadcast,
    /// A group of hosts.
    Multicast,
    /// A kind of route that carries no traffic of the gateway; the number is `rtm_type` of rtnetlink(7).
    Other(u8),
}

impl Network {
    /// Asks the routing table for the way to `address`, for packets that the host itself sends from `from`, which must be one of its
    /// addresses, or from the address it chooses.
    ///
    /// # Errors
    /// [`NetError::Unreachable`] where there is no way; the kernel's.
    pub async fn route_to(&self, address: IpAddr, from: Option<IpAddr>) -> Result<Route, NetError> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(address);
        request.header.destination_prefix_length = prefix(address);
        request
            .attributes
            .push(RouteAttribute::Destination(address.into()));
        if let Some(from) = from {
            request.header.source_prefix_length = prefix(from);
            request.attributes.push(RouteAttribute::Source(from.into()));
        }
        let mut route = None;
        let doing = || format!("asking for the route to {address}");
        let asked = self
            .exchange(RouteNetlinkMessage::GetRoute(request), 0, doing, |answer| {
                if let RouteNetlinkMessage::NewRoute(message) = answer {
                    route = Some(Route::from(&message));
                }
            })
            .await;
        match (asked, route) {
            (Ok(()), Some(route)) => Ok(route),
            (Ok(()), None) => Err(NetError::Closed),
            (Err(NetError::Refused { reason, .. }), _) if says_unreachable(&reason) => {
                Err(NetError::Unreachable {
                    to: address,
                    from,
                    reason,
                })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The routers that routes lead to by these interfaces: default and other routes, IPv4 and IPv6, of every table, every path of a
    /// multipath route. Without duplicates, in order.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn default_next_hops(
        &self,
        ifindexes: &[u32],
    ) -> Result<Vec<(u32, IpAddr)>, NetError> {
        let mut found = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            self.list(
                RouteNetlinkMessage::GetRoute(request),
                || format!("listing the routes ({family:?})"),
                |answer| {
                    if let RouteNetlinkMessage::NewRoute(route) = answer {
                        let hops = hops(&route);
                        found.extend(hops.filter(|(index, _)| ifindexes.contains(index)));
                    }
                },
            )
            .await?;
        }
        Ok(found.into_iter().collect())
    }
}

/// What the kernel answers for no route, `unreachable`, `prohibit` and `blackhole` routes (ip-route(8)), and for a source address
/// that is not the host's.
fn says_unreachable(error: &std::io::Error) -> bool {
    let reasons = [
        Errno::NETUNREACH,
        Errno::HOSTUNREACH,
        Errno::ACCESS,
        Errno::INVAL,
    ];
    Errno::from_io_error(error).is_some_and(|errno| reasons.contains(&errno))
}

/// The routers of a route, each with the interface it is behind.
fn hops(route: &RouteMessage) -> impl Iterator<Item = (u32, IpAddr)> {
    let mut hops = Vec::new();
    if route.header.kind == RouteType::Unicast {
        let single = oif(&route.attributes).zip(gateway(&route.attributes));
        hops.extend(single);
        for attribute in &route.attributes {
            if let RouteAttribute::MultiPath(paths) = attribute {
                hops.extend(
                    paths.iter().filter_map(|path| {
                        Some((path.interface_index, gateway(&path.attributes)?))
                    }),
                );
            }
        }
    }
    hops.into_iter()
}

fn oif(attributes: &[RouteAttribute]) -> Option<u32> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        // A router of the other family (RFC 5549).
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

pub(super) fn prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl From<&RouteMessage> for Route {
    fn from(message: &RouteMessage) -> Self {
        let source = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::PrefSource(address) => ip(address),
                _ => None,
            });
        Self {
            ifindex: oif(&message.attributes).unwrap_or_default(),
            gateway: gateway(&message.attributes),
            source,
            kind: message.header.kind.into(),
        }
    }
}

impl From<RouteType> for RouteKind {
    fn from(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::Broadcast => Self::Broadcast,
            RouteType::Multicast => Self::Multicast,
            other => Self::Other(other.into()),
        }
    }
}
