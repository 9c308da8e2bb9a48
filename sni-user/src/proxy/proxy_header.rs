//! The PROXY protocol: who the client really is, from a load balancer in front of the gateway, and for a backend that asks for it.
//!
//! Specified in HAProxy's `doc/proxy-protocol.txt`. Version 1 and 2 are read, version 2 is written.

mod header;
#[cfg(test)]
mod invariants;

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use self::header::Head;
use super::peek::{self, NoHello};

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
        match header::read(&bytes) {
            Head::Header { client, length } => break (client, length),
            Head::Incomplete => {}
            Head::Invalid => return Err(NoHeader::Invalid),
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
    let header = header::of(client, local).map_err(io::Error::other)?;
    edge.write_all(&header).await
}

/// Writes the header of a connection of the gateway's own, on nobody's behalf.
pub(super) async fn write_own(edge: &mut TcpStream) -> io::Result<()> {
    let header = header::own().map_err(io::Error::other)?;
    edge.write_all(&header).await
}
