//! The PROXY protocol: who the client really is, from a load balancer in front of the gateway, and for a backend that asks for it.
//!
//! Specified in HAProxy's `doc/proxy-protocol.txt`. Version 1 and 2 are read, version 2 is written.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use proxy_header::{Error, ParseConfig, ProxiedAddress, ProxyHeader};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    peek::{self, NoHello},
    socket::canonical,
};

/// Longer than the longest header without vendors' additions, by far; one that goes on is none.
const LONGEST: usize = 2048;

/// Why there is no usable header where there must be one.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHeader {
    /// The bytes are none.
    #[error(
        "a source of `proxy_protocol_from` sent no valid PROXY protocol header: switch it on there, or take the address out of the list"
    )]
    Invalid,
    /// The connection ended or broke first, as those of health checks do.
    #[error("the connection ended before its PROXY protocol header was complete: {0}")]
    Stream(NoHello),
}

/// Takes the header from the head of the stream. Gives the client that it names; nothing for a connection of the load balancer's own
/// (LOCAL, or UNKNOWN in version 1), such as a health check.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, NoHeader> {
    let mut bytes = Vec::with_capacity(256);
    let (client, length) = loop {
        peek::more(stream, &mut bytes)
            .await
            .map_err(NoHeader::Stream)?;
        match ProxyHeader::parse(&bytes, ParseConfig::default()) {
            Ok((header, length)) => {
                let client = header.proxied_address().map(|it| canonical(it.source));
                if client.is_some_and(|client| !is_host(client.ip())) {
                    return Err(NoHeader::Invalid);
                }
                break (client, length);
            }
            Err(Error::BufferTooShort) if bytes.len() < LONGEST => {}
            Err(_) => return Err(NoHeader::Invalid),
        }
    };
    let mut header = vec![0; length];
    let taken = stream.read_exact(&mut header).await;
    taken.map_err(|error| NoHeader::Stream(error.into()))?;
    Ok(client)
}

/// Whether an address can be a client's.
fn is_host(address: IpAddr) -> bool {
    let broadcast = IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_multicast() || address == broadcast)
}

/// Writes the header that tells an Edge of a client and of the address that it connected to.
pub(super) async fn write(
    edge: &mut TcpStream,
    client: SocketAddr,
    local: SocketAddr,
) -> io::Result<()> {
    // Both of one family, as the header wants them: behind a load balancer they need not be.
    let (client, local) = match (client.is_ipv4(), local.is_ipv4()) {
        (true, false) => (mapped(client), local),
        (false, true) => (client, mapped(local)),
        _ => (client, local),
    };
    let address = ProxiedAddress::stream(client, local);
    let mut header = Vec::new();
    ProxyHeader::with_address(address)
        .encode_v2(&mut header)
        .map_err(io::Error::other)?;
    edge.write_all(&header).await
}

/// Writes the header of a connection of the gateway's own, on nobody's behalf (LOCAL, section 2.2).
pub(super) async fn write_own(edge: &mut TcpStream) -> io::Result<()> {
    let mut header = Vec::new();
    ProxyHeader::with_local()
        .encode_v2(&mut header)
        .map_err(io::Error::other)?;
    edge.write_all(&header).await
}

/// The same address as IPv6 writes it.
fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    SocketAddr::new(ip.into(), address.port())
}
