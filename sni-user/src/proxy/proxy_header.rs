//! The PROXY protocol: who the client really is, from a load balancer in front of the gateway, and for a backend that asks for it.
//!
//! Specified in HAProxy's `doc/proxy-protocol.txt`. Version 1 and 2 are read, version 2 is written.

use std::{io, net::SocketAddr};

use proxy_header::{Error, ParseConfig, ProxiedAddress, ProxyHeader};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::peek::{self, NoHello};

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
    /// The connection ended or broke first.
    #[error(transparent)]
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
                break (header.proxied_address().map(|it| it.source), length);
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

/// Writes the header that tells an Edge of a client and of the address that it connected to.
pub(super) async fn write(
    edge: &mut TcpStream,
    client: SocketAddr,
    local: SocketAddr,
) -> io::Result<()> {
    let address = ProxiedAddress::stream(client, local);
    let mut header = Vec::new();
    ProxyHeader::with_address(address)
        .encode_v2(&mut header)
        .map_err(io::Error::other)?;
    edge.write_all(&header).await
}
