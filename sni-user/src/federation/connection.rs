//! A connection to the target as a partner makes it, without a certificate of its own.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    AlertDescription, Error as TlsError, ProtocolVersion, SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::Mutex,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    gauge::Gauge,
    plain::{self, Answer, Newest},
};
use crate::tls::{Record, Recorder};

/// Who connects: so many a second at most, because the gateway takes only so many of one source.
pub(super) struct Connections {
    pub(super) open: Gauge,
    within: Duration,
    pace: Mutex<Interval>,
}

/// Why no certificate was shown.
#[derive(Debug)]
pub(super) enum Failure {
    /// No TCP connection.
    Connect(String),
    /// This host can't reach addresses of that family, or of that network, at all.
    NoRoute,
    /// A fatal alert.
    Alert(AlertDescription),
    /// It is connected, and says nothing.
    Silent(String),
    /// Anything else.
    Other(String),
}

/// What a server offers.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) record: Record,
    /// Versions of TLS, oldest first; of 1.0 and 1.1 the better one.
    pub(super) versions: Vec<&'static str>,
    /// TLS 1.2 comes with ciphers only that current peers do not take.
    pub(super) old_ciphers: bool,
}

impl Connections {
    pub(super) fn new(within: Duration, per_second: u32) -> Self {
        let mut pace = interval(Duration::from_secs(1) / per_second.max(1));
        // What was not used is no credit.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            open: Gauge::default(),
            within,
            pace: Mutex::new(pace),
        }
    }

    /// What the server at an address offers to who asks for a name.
    pub(super) async fn look(&self, address: SocketAddr, name: &str) -> Result<Offer, Failure> {
        let mut offer = match self.shake_hands(address, name, &[&TLS13, &TLS12]).await {
            Ok(record) => self.current(address, name, record).await,
            Err(failure) => match (may_be_too_new(&failure), failure) {
                // Servers without a common cipher reset the connection as often as they say so.
                (true, failure) => self.former(address, name).await.ok_or(failure)?,
                (false, failure) => return Err(failure),
            },
        };
        if let Some(old) = self.in_plain(address, name, Newest::V11).await
            && !offer.versions.contains(&old.version)
        {
            offer.versions.insert(0, old.version);
        }
        Ok(offer)
    }

    /// What else a server speaks that speaks TLS 1.2 or 1.3 well.
    async fn current(&self, address: SocketAddr, name: &str, record: Record) -> Offer {
        let versions = match record.version {
            Some(ProtocolVersion::TLSv1_3) => {
                match self.shake_hands(address, name, &[&TLS12]).await {
                    Ok(_) => vec!["1.2", "1.3"],
                    Err(_) => vec!["1.3"],
                }
            }
            _ => vec!["1.2"],
        };
        Offer {
            record,
            versions,
            old_ciphers: false,
        }
    }

    /// A server that does not.
    async fn former(&self, address: SocketAddr, name: &str) -> Option<Offer> {
        let answer = self.in_plain(address, name, Newest::V12).await?;
        Some(Offer {
            record: Record {
                chain: answer.chain,
                ..Record::default()
            },
            versions: vec![answer.version],
            old_ciphers: answer.version == "1.2",
        })
    }

    /// One handshake. Where it fails after the certificate, it is for want of a client's, and does not matter.
    async fn shake_hands(
        &self,
        address: SocketAddr,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Record, Failure> {
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| Failure::Other(format!("{name:?} can't be asked for in TLS")))?;
        let recorder =
            Recorder::new(versions).map_err(|error| Failure::Other(error.to_string()))?;
        let _open = self.open.enter();
        let tcp = self.connect(address).await?;
        let connector = TlsConnector::from(Arc::clone(&recorder.config));
        let done = timeout(self.within, connector.connect(server_name, tcp)).await;
        if let Ok(Ok(mut session)) = done {
            // Ends in order; whether the server hears it does not matter.
            let _ = timeout(self.within, session.shutdown()).await;
            return Ok(recorder.record());
        }
        let record = recorder.record();
        if !record.chain.is_empty() {
            return Ok(record);
        }
        Err(match done {
            Ok(Err(error)) => explain(error),
            _ => Failure::Silent(self.in_vain("nothing is said")),
        })
    }

    async fn in_plain(&self, address: SocketAddr, name: &str, newest: Newest) -> Option<Answer> {
        let _open = self.open.enter();
        let tcp = self.connect(address).await.ok()?;
        let asked = plain::ask(tcp, name, newest);
        timeout(self.within, asked).await.ok()?
    }

    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, Failure> {
        self.pace.lock().await.tick().await;
        match timeout(self.within, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => Ok(tcp),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NetworkUnreachable => {
                Err(Failure::NoRoute)
            }
            Ok(Err(error)) => Err(Failure::Connect(error.to_string())),
            Err(_) => Err(Failure::Connect(self.in_vain("no answer"))),
        }
    }

    fn in_vain(&self, what: &str) -> String {
        format!("{what} within {} s", self.within.as_secs_f32())
    }
}

/// Whether the server may refuse nothing but what is offered.
fn may_be_too_new(failure: &Failure) -> bool {
    match failure {
        Failure::Connect(_) | Failure::NoRoute | Failure::Silent(_) => false,
        Failure::Alert(alert) => *alert != AlertDescription::UnrecognisedName,
        Failure::Other(_) => true,
    }
}

fn explain(error: io::Error) -> Failure {
    match error.downcast::<TlsError>() {
        Ok(TlsError::AlertReceived(alert)) => Failure::Alert(alert),
        Ok(error) => Failure::Other(error.to_string()),
        Err(error) => Failure::Other(error.to_string()),
    }
}
