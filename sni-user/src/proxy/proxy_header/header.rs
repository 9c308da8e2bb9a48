//! The header's bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proxy_header::{Error, ParseConfig, ProxiedAddress, ProxyHeader};

use crate::proxy::canonical::canonical;

/// Longer than the longest header without vendors' additions, by far; one that goes on is none.
pub(super) const LONGEST: usize = 2048;
/// The longest line of version 1, its end included (section 2.1).
const LONGEST_LINE: usize = 107;

/// What the head of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// A header.
    Header {
        /// The client that it names; none for a connection of the load balancer's own (LOCAL, or UNKNOWN in version 1), such as a health check.
        client: Option<SocketAddr>,
        /// Its bytes.
        length: usize,
    },
    /// All is right so far.
    Incomplete,
    /// No header, or one that names nobody who could connect.
    Invalid,
}

/// Reads what a stream begins with.
pub(super) fn read(bytes: &[u8]) -> Head {
    // The parser bounds only what it waits for. What is too long must be so also where all of it is there at once.
    let longest = if bytes.starts_with(b"PROXY") {
        LONGEST_LINE
    } else {
        LONGEST
    };
    match ProxyHeader::parse(bytes, ParseConfig::default()) {
        Ok((_, length)) if length > longest => Head::Invalid,
        Ok((header, length)) => {
            let client = header.proxied_address().map(|it| canonical(it.source));
            if client.is_some_and(|client| !is_host(client.ip())) {
                return Head::Invalid;
            }
            Head::Header { client, length }
        }
        Err(Error::BufferTooShort) if bytes.len() < LONGEST => Head::Incomplete,
        Err(_) => Head::Invalid,
    }
}

/// Whether an address can be a client's.
fn is_host(address: IpAddr) -> bool {
    let broadcast = IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_multicast() || address == broadcast)
}

/// The header that tells of a client and of the address that it connected to, in version 2.
///
/// # Errors
/// None that the addresses could cause.
pub(super) fn of(client: SocketAddr, local: SocketAddr) -> Result<Vec<u8>, Error> {
    // Both of one family, as the header wants them: behind a load balancer they need not be.
    let (client, local) = match (client.is_ipv4(), local.is_ipv4()) {
        (true, false) => (mapped(client), local),
        (false, true) => (client, mapped(local)),
        _ => (client, local),
    };
    written(&ProxyHeader::with_address(ProxiedAddress::stream(
        client, local,
    )))
}

/// The header of a connection of the gateway's own, on nobody's behalf (LOCAL, section 2.2).
///
/// # Errors
/// As for [`of`].
pub(super) fn own() -> Result<Vec<u8>, Error> {
    written(&ProxyHeader::with_local())
}

fn written(header: &ProxyHeader<'_>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes)?;
    Ok(bytes)
}

/// The same address as IPv6 writes it.
fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    SocketAddr::new(ip.into(), address.port())
}
