//! Addresses of sockets that serve both families.

use std::net::{IpAddr, SocketAddr};

/// The address itself, where a socket of both families shows an IPv4 address as a mapped one.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        // An IPv6 address keeps its scope.
        IpAddr::V6(_) => address,
        v4 => SocketAddr::new(v4, address.port()),
    }
}
