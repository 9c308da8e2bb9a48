//! SIP over TLS from the test itself: the least that a federation peer answers to.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::channel::Channel;
use super::partner::Partner;
use crate::deadline::Deadline;

/// How much an answer's header may hold.
const HEADER_LIMIT: usize = 16 * 1024;

/// A request that needs no dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// What federating servers ask each other whether they are there (RFC 3261 section 11).
    Options,
    /// An instant message (RFC 3428).
    Message,
}

impl Method {
    /// Both: what a test loops over.
    pub const BOTH: [Self; 2] = [Self::Options, Self::Message];

    /// As in a request line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Options => "OPTIONS",
            Self::Message => "MESSAGE",
        }
    }

    /// What comes with it.
    pub(super) fn body(self) -> &'static str {
        match self {
            Self::Options => "",
            Self::Message => "Hello.",
        }
    }
}

/// A connection that SIP requests go over, of as many From domains as one likes: so do those of a hoster's Edge.
#[derive(Debug)]
pub struct SipConnection {
    channel: Channel,
    local: SocketAddr,
    timeout: Duration,
    requests: u64,
}

impl Partner<'_> {
    /// Opens a connection for SIP. In TLS 1.3 the Edge may still refuse the partner's certificate; then the first
    /// request fails.
    ///
    /// # Errors
    /// The connection fails.
    pub fn sip(&self, address: SocketAddr) -> Result<SipConnection> {
        let channel = self.connect(address).with_context(|| {
            let from = self.namespace.name();
            format!("connecting from namespace {from} to {address}")
        })?;
        Ok(SipConnection {
            local: channel.local()?,
            channel,
            timeout: self.timeout,
            requests: 0,
        })
    }
}

impl SipConnection {
    /// The partner's own end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends a request from a user of `from_domain` to one of `to_domain` and returns the status of the final answer.
    ///
    /// # Errors
    /// The connection is broken, or what comes is no answer to this request.
    pub fn request(&mut self, method: Method, from_domain: &str, to_domain: &str) -> Result<u16> {
        self.requests += 1;
        let id = format!("{}-{}", self.local.port(), self.requests);
        self.channel.set_deadline(Deadline::after(self.timeout));
        let request = self.encode(method, from_domain, to_domain, &id);
        self.channel.write_all(request.as_bytes())?;
        self.channel.flush()?;
        loop {
            let header = self.header().with_context(|| {
                format!(
                    "waiting for the answer to {} from {from_domain}",
                    method.name()
                )
            })?;
            ensure!(
                header.contains(&id),
                "an answer to something else: {header:?}"
            );
            let status = status(&header)?;
            if status >= 200 {
                return Ok(status);
            }
        }
    }

    fn encode(&self, method: Method, from: &str, to: &str, id: &str) -> String {
        let (name, body, local) = (method.name(), method.body(), self.local);
        let content = if body.is_empty() {
            ""
        } else {
            "Content-Type: text/plain\r\n"
        };
        format!(
            "{name} sip:bob@{to} SIP/2.0\r\n\
             Via: SIP/2.0/TLS {local};branch=z9hG4bK-{id}\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:alice@{from}>;tag={id}\r\n\
             To: <sip:bob@{to}>\r\n\
             Call-ID: {id}\r\n\
             CSeq: 1 {name}\r\n\
             {content}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Reads up to the empty line, and over the body.
    fn header(&mut self) -> Result<String> {
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n\r\n") {
            ensure!(header.len() < HEADER_LIMIT, "an answer without an end");
            let mut byte = [0];
            self.channel.read_exact(&mut byte)?;
            header.extend(byte);
        }
        let header = String::from_utf8(header).context("an answer that is no text")?;
        let length = header
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-length"))
            .map_or(Ok(0), |(_, value)| value.trim().parse())?;
        let mut body = vec![0; length];
        self.channel.read_exact(&mut body)?;
        Ok(header)
    }
}

/// The status of a status line, as in `SIP/2.0 403 Forbidden`.
pub(super) fn status(answer: &str) -> Result<u16> {
    let code = answer
        .strip_prefix("SIP/2.0 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok());
    match code {
        Some(code) => Ok(code),
        None => bail!("no SIP answer: {answer:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_from_its_line_alone() {
        assert_eq!(status("SIP/2.0 403 Forbidden\r\n").ok(), Some(403));
        for wrong in [
            "",
            "SIP/2.0",
            "SIP/2.0 4",
            "HTTP/1.1 400 Bad Request",
            "SIP/2.0 abc",
        ] {
            assert!(status(wrong).is_err(), "{wrong}");
        }
    }
}
