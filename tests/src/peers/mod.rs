//! The two ends of a federation connection.
//!
//! [`OpensslClient`], [`OpensslServer`], [`GnutlsClient`], [`KamailioEdge`], [`KamailioPartner`] and [`sipp`] are real peers
//! that know nothing of this project. [`Partner`] and [`Edge`] are threads of the test itself, for what those cannot do:
//! bulk both ways with hashes, half-close, resets, hundreds of connections at once, and in a [`Storm`] thousands one after
//! the other. An [`EchoEdge`] does not care what it is sent. [`Smoltcp`] is an endpoint on either side whose TCP is not
//! Linux's. A [`Stream`] to a [`StreamEdge`] is raw bytes after a ClientHello, for benches. [`replay`] sends what another program has written, and a [`Proxy`] is what the
//! gateway is compared with.

mod channel;
mod echo_edge;
mod edge;
mod failure;
mod gnutls;
mod kamailio;
mod openssl;
mod partner;
mod pattern;
mod presented;
mod proxies;
mod replay;
mod request;
mod setups;
mod sip;
mod sipp;
mod smoltcp;
mod storm;
mod stream;
mod stream_edge;
mod tls;

pub use echo_edge::{EchoEdge, Introduction};
pub use edge::{Edge, End, Report};
pub use failure::{LocalEnd, WrongBytes, is_of_kind, is_reset};
pub use gnutls::{GnutlsClient, GnutlsSession};
pub use kamailio::{KamailioEdge, KamailioPartner, SeenRequest};
pub use openssl::{OpenSession, OpensslClient, OpensslServer, Session};
pub use partner::{Connection, Conversation, Partner, open_socket};
pub use pattern::Hash;
pub use proxies::{Make, NameTable, Proxy, Size, Upstream, Way};
pub use replay::{
    Answer, Segments, captured_hello, captured_hellos, in_records, replay, send_in_segments,
};
pub use request::{Action, Greeting, PAUSE, Request};
pub use sip::{Method, SipConnection};
pub use sipp::sipp;
pub use smoltcp::{Smoltcp, SmoltcpReport};
pub use storm::{Limit, Storm, StormConnection, StormReport};
pub use stream::{Opener, Stream, converse, pour};
pub use stream_edge::StreamEdge;
pub use tls::{EdgeTls, PartnerTls, client_hello};

/// A TLS version to insist on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

impl TlsVersion {
    /// Both, older first: what a test loops over.
    pub const BOTH: [Self; 2] = [Self::V12, Self::V13];

    /// OpenSSL's name of it, as in [`Session::version`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V12 => "TLSv1.2",
            Self::V13 => "TLSv1.3",
        }
    }
}
