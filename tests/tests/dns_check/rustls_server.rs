//! A server that shows what OpenSSL would refuse to: certificates that are none, or somebody else's.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use rustls::{
    ServerConfig, ServerConnection,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};
use snigate_tests::Namespace;

use crate::pki::Made;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The key is not the certificate's.
    Key,
    /// The certificate is no certificate.
    Garbage,
}

/// A running server; ends when dropped.
pub(crate) struct RustlsServer {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl RustlsServer {
    pub(crate) fn start(
        namespace: &Namespace,
        address: SocketAddr,
        made: &Made,
        fault: Fault,
    ) -> Result<Self> {
        let config = Arc::new(configuration(made, fault)?);
        let listener = namespace.run(|| Ok(TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = namespace.thread("rustls-server", move || {
            while !ended.load(Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => serve(stream, &config)?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })?;
        let thread = Some(thread);
        Ok(Self { end, thread })
    }
}

impl Drop for RustlsServer {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        if let Some(Err(error)) = self.thread.take().and_then(|it| it.join().ok()) {
            eprintln!("the rustls server: {error:#}");
        }
    }
}

fn configuration(made: &Made, fault: Fault) -> Result<ServerConfig> {
    let chain = match fault {
        Fault::Key => CertificateDer::pem_file_iter(&made.chain)?.collect::<Result<Vec<_>, _>>()?,
        Fault::Garbage => vec![CertificateDer::from(b"no certificate".to_vec())],
    };
    let key = match fault {
        Fault::Garbage => PrivateKeyDer::from_pem_file(&made.key)?,
        // Of the same kind, so that the same signatures are agreed on.
        Fault::Key => PrivateKeyDer::from_pem_file(made.key.with_file_name("ca.key"))?,
    };
    let key = CertifiedKey::new(chain, any_supported_type(&key)?);
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    Ok(builder
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key))))
}

/// One handshake, which the client may end as it likes.
fn serve(mut stream: TcpStream, config: &Arc<ServerConfig>) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut session = ServerConnection::new(Arc::clone(config))?;
    while session.is_handshaking() {
        if session.complete_io(&mut stream).is_err() {
            // What is left to say is the alert.
            let _ = session.write_tls(&mut stream);
            break;
        }
    }
    Ok(())
}
