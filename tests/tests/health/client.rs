//! A client that learns from an [`EchoEdge`](snigate_tests::peers::EchoEdge) where it has come to.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab,
    deadline::Deadline,
    peers::{Introduction, Segments, client_hello, open_socket, send_in_segments},
};

use crate::{NAME, TIMEOUT, Way, end};

/// An open connection that an Edge has answered.
#[derive(Debug)]
pub(crate) struct Client {
    way: Way,
    stream: TcpStream,
    edge: String,
}

impl Client {
    /// Connects, from this address of the partner or the first one, and waits for the Edge's answer to a ClientHello.
    pub(crate) fn open(
        lab: &Lab,
        way: Way,
        address: SocketAddr,
        from: Option<SocketAddr>,
    ) -> Result<Self> {
        let from = from.unwrap_or_else(|| end(address, 0));
        let stream = lab
            .partner
            .run(|| Ok(open_socket(Some(from), address, TIMEOUT)?));
        let mut stream = stream.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let hello = client_hello(NAME)?;
        send_in_segments(&mut stream, &hello, Segments::Few, Deadline::after(TIMEOUT))?;
        let Introduction { edge, .. } = Introduction::read(&mut stream)?;
        let mut echo = vec![0; hello.len()];
        stream.read_exact(&mut echo).context("the hello's echo")?;
        ensure!(echo == hello, "another hello has reached the Edge");
        Ok(Self { way, stream, edge })
    }

    /// The Edge's name.
    pub(crate) fn edge(&self) -> &str {
        &self.edge
    }

    pub(crate) fn way(&self) -> Way {
        self.way
    }

    /// Sends something, and waits for it to come back.
    pub(crate) fn ping(&mut self) -> Result<()> {
        let sent = [7; 3000];
        self.stream.write_all(&sent)?;
        let mut received = [0; 3000];
        self.stream.read_exact(&mut received).context("an echo")?;
        ensure!(sent == received, "other bytes came back than were sent");
        Ok(())
    }

    /// What the other side's end of the connection is met with; an error where there is none in time.
    pub(crate) fn ended(&mut self) -> std::io::Result<usize> {
        self.stream.read(&mut [0; 16])
    }

    /// Ends in order.
    pub(crate) fn close(mut self) -> Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)?;
        let length = self.ended()?;
        ensure!(length == 0, "{length} bytes instead of the end");
        Ok(())
    }
}
