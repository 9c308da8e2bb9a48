//! What an [`EchoEdge`](snigate_tests::peers::EchoEdge) makes of what a client says before it finishes.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result};
use snigate_tests::{
    Lab,
    addresses::PARTNER,
    deadline::Deadline,
    peers::{Introduction, Segments, open_socket, send_in_segments},
};

use crate::TIMEOUT;

/// What came back through the gateway.
#[derive(Debug)]
pub(crate) struct Echo {
    /// The Edge's name.
    pub(crate) edge: String,
    /// Whom it saw.
    pub(crate) peer: SocketAddr,
    /// What it received.
    pub(crate) bytes: Vec<u8>,
}

/// A connection of the partner's; without a `source` from its first address, which is not the kernel's choice where it has several.
pub(crate) fn connect(
    lab: &Lab,
    source: Option<SocketAddr>,
    address: SocketAddr,
) -> Result<TcpStream> {
    let [v4, v6] = PARTNER.both();
    let first = if address.is_ipv4() { v4 } else { v6 };
    let source = source.unwrap_or(SocketAddr::new(first, 0));
    let stream = lab
        .partner
        .run(|| Ok(open_socket(Some(source), address, TIMEOUT)?));
    let stream = stream.with_context(|| format!("connecting from {source} to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Sends `bytes`, finishes, and returns what an Edge makes of it.
pub(crate) fn say(
    lab: &Lab,
    address: SocketAddr,
    bytes: &[u8],
    segments: Segments,
) -> Result<Echo> {
    let stream = connect(lab, None, address)?;
    say_on(stream, bytes, segments)
}

/// Likewise, on an open connection.
pub(crate) fn say_on(mut stream: TcpStream, bytes: &[u8], segments: Segments) -> Result<Echo> {
    send_in_segments(&mut stream, bytes, segments, Deadline::after(TIMEOUT))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let Introduction { edge, peer } = Introduction::read(&mut stream)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(Echo { edge, peer, bytes })
}
