//! The life of a connection whose TLS ends here, after routing.
//!
//! The partner's handshake comes first, because a mirrored identity is made from what the partner shows; then the Edge's; then bytes go
//! both ways until both directions have ended. When the Edge fails, the partner's handshake is complete already, and it is told by an alert
//! that is sealed by hand (`tls::fatal_alert`), rather than by a connection that just ends.

mod error;
mod relay;

use std::{error::Error, io, sync::Arc, time::Duration};

use rustls::{
    AlertDescription, HandshakeKind, PeerIncompatible, ProtocolVersion,
    pki_types::{CertificateDer, UnixTime},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub use self::{
    error::TerminateError,
    relay::{End, Leg, Relayed, relay},
};

use super::Progress;
pub use crate::metrics::Peer;
use crate::tls::{EdgeTls, Terminating, fatal_alert, linger, plaintext_alert};

/// Handshakes with Edges that are tried for one connection, whatever [`Reach`] would give.
const ATTEMPTS: usize = 3;

/// A connection to an Edge, its handshake complete.
pub type EdgeStream = client::TlsStream<TcpStream>;

/// A partner whose handshake is complete.
#[derive(Debug)]
pub struct Partner {
    stream: server::TlsStream<TcpStream>,
    shown: Vec<CertificateDer<'static>>,
}

impl Partner {
    /// The certificates that it has shown and that were verified, its own first; empty where it showed none.
    pub fn shown(&self) -> &[CertificateDer<'static>] {
        &self.shown
    }

    /// Whether it resumed a session.
    pub fn has_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// TLS 1.2 or 1.3.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.stream.get_ref().1.protocol_version()
    }

    /// The application protocol that was agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }

    /// The decrypted stream.
    pub fn into_stream(self) -> server::TlsStream<TcpStream> {
        self.stream
    }

    /// Ends the connection with a fatal alert.
    pub async fn refuse(self, alert: AlertDescription) {
        refuse(self.stream, alert).await;
    }
}

async fn refuse(stream: server::TlsStream<TcpStream>, alert: AlertDescription) {
    if let Err(error) = fatal_alert(stream, alert).await {
        // It has gone first; there is nobody left to tell.
        tracing::debug!(%error, ?alert, "an alert could not be sent");
    }
}

/// A connection to an Edge, how that is verified, and what comes with it; or why there is none.
pub type Reached<T> = Result<(TcpStream, Arc<EdgeTls>, T), Box<dyn Error + Send + Sync>>;

/// Where a terminated connection goes on.
///
/// A trait and not a closure, because the futures of async closures are not known to be `Send`.
pub trait Reach: Send {
    /// What comes with a connection and lives as long.
    type Tag: Send;

    /// Another connection to an Edge, and how that is verified.
    ///
    /// # Errors
    /// There is none (any longer).
    fn reach(&mut self) -> impl Future<Output = Reached<Self::Tag>> + Send;

    /// Takes note that the handshake on the last connection has failed.
    fn failed(&mut self, tag: Self::Tag, error: &TerminateError);

    /// Takes note of how long a handshake took until it was complete, or had failed.
    fn shook_hands(&mut self, _with: Peer, _took: Duration, _completed: bool) {}
}

/// A terminated connection whose two handshakes are complete.
#[derive(Debug)]
pub struct Established {
    partner: Partner,
    edge: EdgeStream,
}

impl Established {
    /// Relays until both directions have ended, or nothing has come either way for `idle`, and tells the partner when the Edge has failed.
    pub async fn relay(self, idle: Duration, progress: &Progress) -> Relayed {
        run(self.partner, self.edge, idle, progress).await
    }
}

/// Ends a domain's TLS on a connection whose ClientHello has not been read yet, and begins TLS with an Edge.
///
/// `edges` is asked again, three times in all, when the handshake with an Edge fails in a way that another one may not; an error of it ends
/// that. `server_name` is what the partner asked for; each handshake may take `handshake`.
///
/// Whatever fails, the partner is told by an alert before its connection is closed, unless it was too slow.
///
/// # Errors
/// One of the handshakes failed, or there is no Edge.
pub async fn establish<R: Reach>(
    client: TcpStream,
    domain: &Terminating,
    server_name: Option<&str>,
    handshake: Duration,
    edges: &mut R,
) -> Result<(Established, R::Tag), TerminateError> {
    let began = Instant::now();
    let partner = accept_partner(client, domain, began + handshake).await;
    edges.shook_hands(Peer::Partner, began.elapsed(), partner.is_ok());
    let partner = partner?;
    let mut failure = None;
    for _ in 0..ATTEMPTS {
        let (tcp, edge, tag) = match edges.reach().await {
            Ok(connected) => connected,
            Err(error) => {
                // What an Edge did wrong says more than that there is no further one.
                failure.get_or_insert(TerminateError::NoEdge(error));
                break;
            }
        };
        let began = Instant::now();
        let deadline = began + handshake;
        let connected = connect_edge(tcp, &edge, domain, server_name, &partner, deadline).await;
        edges.shook_hands(Peer::Edge, began.elapsed(), connected.is_ok());
        match connected {
            Ok(edge) => return Ok((Established { partner, edge }, tag)),
            Err(error) => {
                edges.failed(tag, &error);
                let last = !error.may_differ_elsewhere();
                failure = Some(error);
                if last {
                    break;
                }
            }
        }
    }
    partner.refuse(AlertDescription::InternalError).await;
    // At least one attempt was made.
    Err(failure.unwrap_or_else(|| TerminateError::NoEdge("no Edge was tried".into())))
}

/// The partner's handshake. A failed one has been answered with an alert.
///
/// # Errors
/// The partner's certificate was refused, there is no version or cipher in common, it spoke no TLS, went away, or took too long.
pub async fn accept_partner(
    tcp: TcpStream,
    domain: &Terminating,
    deadline: Instant,
) -> Result<Partner, TerminateError> {
    match timeout_at(deadline, is_too_old(&tcp)).await {
        Err(_) => return Err(TerminateError::PartnerTimeout),
        Ok(true) => return Err(answer_too_old(tcp).await),
        Ok(false) => {}
    }
    let accept = TlsAcceptor::from(domain.server_config())
        .accept(tcp)
        .into_fallible();
    let stream = match timeout_at(deadline, accept).await {
        Err(_) => return Err(TerminateError::PartnerTimeout),
        // rustls has written its alert.
        Ok(Err((error, tcp))) => {
            linger(tcp).await;
            return Err(TerminateError::partner(error));
        }
        Ok(Ok(stream)) => stream,
    };
    let shown = stream.get_ref().1.peer_certificates();
    let shown: Vec<_> = shown.unwrap_or_default().to_vec();
    let partner = Partner { stream, shown };
    if partner.has_resumed()
        && let Err(error) = domain.check_again(&partner.shown, UnixTime::now())
    {
        partner.refuse(error::alert_for(&error)).await;
        return Err(TerminateError::partner(io::Error::other(error)));
    }
    Ok(partner)
}

/// Whether a ClientHello offers nothing newer than TLS 1.1. Its version says so: clients of TLS 1.3 write 1.2 there (RFC 8446 section 4.1.2).
///
/// rustls has no word for it: it looks for the signature algorithms first, which such a hello does not have, and answers with
/// handshake_failure.
async fn is_too_old(tcp: &TcpStream) -> bool {
    // The headers of the record and of the message, then the version. A first record shorter than that is left to rustls.
    let mut head = [0; 11];
    let read = tcp.peek(&mut head).await;
    matches!(read, Ok(11)) && head[0] == 22 && head[5] == 1 && head[9..] < [3, 3][..]
}

async fn answer_too_old(mut tcp: TcpStream) -> TerminateError {
    let alert = plaintext_alert(AlertDescription::ProtocolVersion);
    // Seven bytes fit into any empty send buffer.
    if tcp.write_all(&alert).await.is_ok() {
        linger(tcp).await;
    }
    TerminateError::Partner(PeerIncompatible::Tls12NotOffered.into())
}

/// The handshake with an Edge, on the partner's behalf.
///
/// In TLS 1.3 an Edge that refuses the certificate says so only after this has succeeded: see [`End::Edge`].
///
/// # Errors
/// The Edge's certificate was refused, it refused the gateway's, spoke no TLS, went away, or took too long; or the partner can't be mirrored.
pub async fn connect_edge(
    tcp: TcpStream,
    edge: &EdgeTls,
    domain: &Terminating,
    server_name: Option<&str>,
    partner: &Partner,
    deadline: Instant,
) -> Result<EdgeStream, TerminateError> {
    let config = edge.client_config(
        domain.identity(),
        partner.shown(),
        partner.alpn(),
        UnixTime::now(),
    )?;
    let name = edge.server_name(server_name, domain.name());
    let connect = TlsConnector::from(config).connect(name, tcp);
    match timeout_at(deadline, connect).await {
        Err(_) => Err(TerminateError::EdgeTimeout),
        Ok(Err(error)) => Err(TerminateError::edge(error)),
        Ok(Ok(stream)) => Ok(stream),
    }
}

/// Relays until both directions have ended, and tells the partner when the Edge has failed.
async fn run(
    partner: Partner,
    mut edge: EdgeStream,
    idle: Duration,
    progress: &Progress,
) -> Relayed {
    let mut stream = partner.into_stream();
    let relayed = relay(&mut stream, &mut edge, idle, progress).await;
    if let End::Edge(_) = relayed.end {
        refuse(stream, AlertDescription::InternalError).await;
    }
    relayed
}
