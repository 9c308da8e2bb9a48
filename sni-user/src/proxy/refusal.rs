//! Why a connection is not carried: each reason has a name for the count, a sentence for the log, and where TLS has one, an alert for the client.

use std::{io, time::Duration};

use rustls::AlertDescription;

use crate::config::Domain;

use super::{
    connect::NoEdge,
    hello::{HelloError, NotTls},
    peek::NoHello,
    proxy_header::NoHeader,
    terminate::TerminateError,
};

/// Why a connection is not carried.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The configuration has changed between the SYN and now.
    #[error("its address and port are inspected no longer")]
    NoService,
    /// Two things that are made from one configuration do not fit together.
    #[error(
        "the active configuration has no {0} where there must be one: reload it, and report this"
    )]
    Incoherent(&'static str),
    /// A load balancer in front of the gateway.
    #[error(transparent)]
    ProxyHeader(NoHeader),
    /// The client that a load balancer names.
    #[error("the client that the PROXY protocol header names is denied by `limits.deny`")]
    Denied,
    /// Too many connections of this source without a ClientHello.
    #[error(
        "the source leaves more connections without a ClientHello than `limits.hello_per_source`, or its prefix than `limits.hello_per_prefix`, allows: raise it, or put the source into `limits.allow`"
    )]
    HelloBudget,
    /// A slow client.
    #[error("no complete ClientHello within `hello_timeout` ({0:?})")]
    HelloTimeout(Duration),
    /// The client is gone.
    #[error("the client closed the connection before its ClientHello was complete")]
    HelloClosed,
    /// The client is gone, and not politely.
    #[error("the connection broke before the ClientHello was complete: {0}")]
    HelloBroken(io::Error),
    /// Another protocol.
    #[error("the client does not speak TLS but {}", .0.name())]
    NotTls(NotTls),
    /// A ClientHello that must not be routed.
    #[error("the ClientHello must not be routed: {0}")]
    Hello(HelloError),
    /// A route, but not for this client.
    #[error(
        "the server name is defined for application protocols only that the client does not offer: add a [[domain]] without `alpn`"
    )]
    WrongProtocol,
    /// None that could be shown.
    #[error(
        "the domain has no certificate yet: the agent asks its ACME authority for one, and `snigate cert ls` says how far that is"
    )]
    NoCertificate,
    /// No route.
    #[error(
        "no [[domain]] has this server name, and its [[ip_set]] has no `default`: define it with `snigate domain add`, or set a default"
    )]
    UnrecognizedName,
    /// No Edge.
    #[error(transparent)]
    NoEdge(#[from] NoEdge),
    /// Terminating.
    #[error(transparent)]
    Terminate(#[from] TerminateError),
    /// No Edge with which TLS could be agreed on.
    #[error("no Edge of its pool could be used: {tried}")]
    NoHandshake {
        /// Of the last one.
        reason: TerminateError,
        /// Each Edge that was tried, with its reason.
        tried: String,
    },
    /// The Edge has answered, and broke off before it had the ClientHello.
    #[error("the Edge {edge} broke the connection at its start: {reason}")]
    EdgeBroken {
        /// Which one.
        edge: String,
        /// What happened.
        reason: io::Error,
    },
}

/// What becomes of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// A fatal alert (RFC 8446 section 6), then the end.
    Alert(AlertDescription),
    /// The end, without a word that it could understand; or the word has been said.
    Close,
    /// A RST: whoever floods is not worth a state.
    Reset,
}

impl Refusal {
    /// Of a domain whose TLS should end here, and can't.
    pub(super) fn no_certificate(domain: &Domain) -> Self {
        let acme = domain.terminate.as_ref().and_then(|it| it.acme.as_ref());
        match acme {
            Some(_) => Self::NoCertificate,
            None => Self::Incoherent("certificate"),
        }
    }

    /// The reason, as it is counted.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::NoService => "no-service",
            Self::Incoherent(_) => "incoherent",
            Self::Denied => "denied",
            Self::WrongProtocol => "wrong-protocol",
            Self::ProxyHeader(NoHeader::Stream(_)) => "proxy-header-missing",
            Self::ProxyHeader(_) => "proxy-header",
            Self::HelloBudget => "hello-budget",
            Self::HelloTimeout(_) => "hello-timeout",
            Self::HelloClosed => "hello-closed",
            Self::HelloBroken(_) => "hello-broken",
            Self::NotTls(NotTls::Http) => "not-tls-http",
            Self::NotTls(NotTls::Sip) => "not-tls-sip",
            Self::NotTls(NotTls::Ssl2) => "not-tls-ssl2",
            Self::NotTls(NotTls::Proxy) => "not-tls-proxy",
            Self::NotTls(NotTls::NoHello) => "not-tls-no-hello",
            Self::NotTls(NotTls::Other) => "not-tls-other",
            Self::Hello(error) => error.name(),
            Self::NoCertificate => "no-certificate",
            Self::UnrecognizedName => "unrecognized-name",
            Self::NoEdge(error) => error.name(),
            Self::EdgeBroken { .. } => "edge-broken",
            Self::Terminate(error) | Self::NoHandshake { reason: error, .. } => error.name(),
        }
    }

    /// What the client is told.
    pub(super) fn farewell(&self) -> Farewell {
        match self {
            Self::UnrecognizedName => Farewell::Alert(AlertDescription::UnrecognisedName),
            // Not the client's fault, nor for good.
            Self::NoEdge(_) | Self::EdgeBroken { .. } | Self::NoCertificate => {
                Farewell::Alert(AlertDescription::InternalError)
            }
            Self::Hello(HelloError::LengthsOverrun(_) | HelloError::ListEmpty(_)) => {
                Farewell::Alert(AlertDescription::DecodeError)
            }
            Self::Hello(_) => Farewell::Alert(AlertDescription::IllegalParameter),
            // It costs least, and says as much as a closed port.
            Self::HelloBudget | Self::HelloBroken(_) | Self::NoService | Self::Denied => {
                Farewell::Reset
            }
            Self::Incoherent(_) => Farewell::Alert(AlertDescription::InternalError),
            Self::WrongProtocol => Farewell::Alert(AlertDescription::NoApplicationProtocol),
            Self::ProxyHeader(_)
            | Self::HelloTimeout(_)
            | Self::HelloClosed
            | Self::NotTls(_)
            // TLS has said what there is to say.
            | Self::Terminate(_)
            | Self::NoHandshake { .. } => Farewell::Close,
        }
    }

    /// Whether it says what came of waiting for the ClientHello, and of reading it.
    pub(super) fn is_of_hello(&self) -> bool {
        matches!(
            self,
            Self::HelloBudget
                | Self::HelloTimeout(_)
                | Self::HelloClosed
                | Self::HelloBroken(_)
                | Self::NotTls(_)
                | Self::Hello(_)
        )
    }

    /// Whether the operator has something to mend; else it is the client's affair, and its traces are for who looks for them.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Incoherent(_)
            | Self::NoCertificate
            | Self::ProxyHeader(NoHeader::Invalid)
            | Self::NoEdge(_)
            | Self::EdgeBroken { .. } => true,
            Self::Terminate(error) | Self::NoHandshake { reason: error, .. } => error.is_ours(),
            _ => false,
        }
    }
}

impl From<NoHello> for Refusal {
    fn from(error: NoHello) -> Self {
        match error {
            NoHello::NotTls(kind) => Self::NotTls(kind),
            NoHello::Wrong(error) => Self::Hello(error),
            NoHello::Closed => Self::HelloClosed,
            NoHello::Io(error) => Self::HelloBroken(error),
        }
    }
}
