//! One check of an Edge: a connection of the gateway's own, and what it finds there.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::Error as TlsError;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Active, Proxy, connect,
    options::{self, NoAnswer},
    proxy_header,
    terminate::TerminateError,
};
use crate::{config::Health, descriptors, edges::Edge, tls::CheckTls};

/// How long a check may take: as long as to the next one, within these bounds.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5);

/// What is wrong with an Edge.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No connection.
    #[error("it can't be connected to: {0}")]
    Connect(io::Error),
    /// It was not looked at.
    #[error("the gateway can't check it: {0}")]
    NotMade(io::Error),
    /// Too slow; or silent.
    #[error("{step} was not done within {} s", .within.as_secs())]
    Slow {
        /// What took too long.
        step: &'static str,
        /// The whole check's time.
        within: Duration,
    },
    /// TLS fails.
    #[error(transparent)]
    Tls(#[from] TerminateError),
    /// TLS can't be set up here.
    #[error("TLS can't be set up: {0}")]
    Setup(TlsError),
    /// No good answer to OPTIONS.
    #[error(transparent)]
    Options(#[from] NoAnswer),
}

/// The time that a check has.
struct Patience {
    within: Duration,
    deadline: Instant,
}

impl Patience {
    fn with(health: &Health) -> Self {
        let within = health.interval.clamp(SHORTEST, LONGEST);
        Self {
            within,
            deadline: Instant::now() + within,
        }
    }

    async fn grant<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, CheckError> {
        let within = self.within;
        let done = timeout_at(self.deadline, work).await;
        done.map_err(|_| CheckError::Slow { step, within })
    }
}

impl CheckError {
    fn of_connect(error: io::Error) -> Self {
        let is_ours = descriptors::is_want(&error) || error.kind() == io::ErrorKind::AddrInUse;
        if is_ours {
            Self::NotMade(error)
        } else {
            Self::Connect(error)
        }
    }
}

/// Checks an Edge as its configuration says. What was found, in a few words.
///
/// # Errors
/// Something is wrong with it, or it is too slow.
pub async fn check(
    proxy: &Proxy,
    active: &Active,
    edge: &Edge,
    health: &Health,
) -> Result<String, CheckError> {
    let patience = Patience::with(health);
    let address = edge.config.address;
    let connecting = connect::of_our_own(proxy, address);
    let connected = patience.grant("the TCP handshake", connecting).await?;
    let mut tcp = connected.map_err(CheckError::of_connect)?;
    if edge.config.proxy_protocol {
        let said = proxy_header::write_own(&mut tcp).await;
        said.map_err(CheckError::Connect)?;
    }
    if !health.tls {
        return Ok("it can be connected to".to_owned());
    }
    let configured = active.tls.edge(edge.index).map(|tls| &**tls);
    let looking = CheckTls::new(configured, address.ip()).map_err(CheckError::Setup)?;
    over_tls(tcp, address, &looking, health.options, &patience).await
}

async fn over_tls(
    tcp: TcpStream,
    edge: SocketAddr,
    looking: &CheckTls,
    ask: bool,
    patience: &Patience,
) -> Result<String, CheckError> {
    let handshake = shake_hands(tcp, looking);
    let session = patience.grant("the TLS handshake", handshake).await??;
    // A handshake that came to an end has shown one.
    let until = looking.good_until().unwrap_or_default();
    let certificate = format!("its certificate is good until {until}");
    let Some(mut tls) = session else {
        return if ask {
            Err(NoAnswer::NoSession.into())
        } else {
            Ok(certificate)
        };
    };
    let found = if ask {
        let answer = options::ask(&mut tls, edge);
        let status = patience
            .grant("the answer to SIP OPTIONS", answer)
            .await??;
        format!("it answers SIP OPTIONS with {status}; {certificate}")
    } else {
        certificate
    };
    // Ends the session in order; whether the Edge hears it does not matter.
    let _ = tls.shutdown().await;
    Ok(found)
}

/// The session; nothing where the Edge has shown a good certificate and then refused the gateway's, or that it has none. Edges of a federation want one of
/// a partner, and what is wrong with ours is not the Edge's fault.
async fn shake_hands(
    tcp: TcpStream,
    looking: &CheckTls,
) -> Result<Option<TlsStream<TcpStream>>, TerminateError> {
    let connector = TlsConnector::from(Arc::clone(&looking.config));
    let error = match connector.connect(looking.name.clone(), tcp).await {
        Ok(tls) => return Ok(Some(tls)),
        Err(error) => error,
    };
    match error.downcast::<TlsError>() {
        Ok(TlsError::AlertReceived(_)) if looking.good_until().is_some() => Ok(None),
        Ok(error) => Err(TerminateError::Edge(error)),
        Err(_) if looking.good_until().is_some() => Ok(None),
        Err(error) => Err(TerminateError::EdgeGone(error)),
    }
}
