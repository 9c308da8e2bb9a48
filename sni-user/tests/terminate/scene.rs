//! A gateway on loopback that ends the TLS of one or two domains, between OpenSSL's client and an Edge.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use sni_user::{
    config::Config,
    proxy::terminate::{End, Reach, Reached, Relayed, TerminateError, establish},
    tls::{EdgeTls, Finding, Store},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;

use crate::pki::{Authority, Wanted, write};

pub(crate) const CRL_URL: &str = "http://192.0.2.1/mirror.crl";

/// A directory with the files of a gateway, and the authorities behind them.
pub(crate) struct Files {
    pub(crate) directory: TempDir,
    /// Issues the domains' and the partners' certificates.
    pub(crate) public: Authority,
    /// Issues the Edges'.
    pub(crate) private: Authority,
}

impl Files {
    /// `contoso.pem`, `fabrikam.pem`, `partner.pem`, `edge.pem` with their keys, `mirror.pem` and `mirror.key`.
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let public = Authority::new(directory.path(), "public");
        let private = Authority::new(directory.path(), "private");
        public.issue("contoso", &Wanted::new(&["sip.contoso.example"]));
        public.issue("fabrikam", &Wanted::new(&["sip.fabrikam.example"]));
        public.issue("partner", &Wanted::new(&["sip.partner.example"]));
        private.issue("edge", &Wanted::new(&["edge-a.hoster.example"]));
        let mirror = sni_user::tls::Authority::new("mirror", 365).expect("a CA");
        let pem = mirror.pem();
        write(directory.path(), "mirror.pem", &pem.certificate);
        write(directory.path(), "mirror.key", &pem.key);
        let gateway = mirror
            .gateway("gateway.hoster.example", Some(CRL_URL))
            .expect("a certificate");
        write(directory.path(), "gateway.pem", &gateway.certificate);
        write(directory.path(), "gateway.key", &gateway.key);
        Self {
            directory,
            public,
            private,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A configuration with `contoso.example`, which has these further lines, and `fabrikam.example`.
    pub(crate) fn text(&self, contoso: &str) -> String {
        let mut text = format!(
            r#"
            [gateway]
            interfaces = ["wan0"]
            [[edge]]
            name = "edge-a"
            address = "203.0.113.10:5061"
            tls = {{ name = "edge-a.hoster.example", roots = "private.pem" }}
            [[pool]]
            name = "edges-a"
            edges = ["edge-a"]
            [[ip_set]]
            name = "shared"
            addresses = ["198.51.100.20"]
            inspect = true
            [identity]
            ca = "mirror.pem"
            key = "mirror.key"
            crl_url = "{CRL_URL}"
            gateway_certificate = "gateway.pem"
            gateway_key = "gateway.key"
            "#
        );
        for (domain, lines) in [
            ("contoso", contoso),
            ("fabrikam", "client_roots = \"public.pem\""),
        ] {
            write!(
                text,
                "[[domain]]\nsip_domain = \"{domain}.example\"\npool = \"edges-a\"\n\
                 certificate = \"{domain}.pem\"\nkey = \"{domain}.key\"\n{lines}\n"
            )
            .expect("text");
        }
        text
    }

    pub(crate) fn config(&self, contoso: &str) -> Config {
        let text = self.text(contoso);
        match Config::parse(&self.path().join("snigate.toml"), &text) {
            Ok(loaded) => loaded.config,
            Err(diagnostics) => panic!("{diagnostics:?}"),
        }
    }

    /// Loads that configuration's files, which must be without an error.
    pub(crate) fn load(&self, contoso: &str) -> (Store, Vec<Finding>) {
        self.reload(contoso, None)
    }

    pub(crate) fn reload(&self, contoso: &str, previous: Option<&Store>) -> (Store, Vec<Finding>) {
        Store::load(&self.config(contoso), previous).unwrap_or_else(|found| panic!("{found:#?}"))
    }
}

/// Connections to one Edge.
pub(crate) struct Direct {
    pub(crate) edge: SocketAddr,
    pub(crate) tls: Arc<EdgeTls>,
}

impl Reach for Direct {
    type Tag = ();

    async fn reach(&mut self) -> Reached<()> {
        Ok((TcpStream::connect(self.edge).await?, self.tls.clone(), ()))
    }

    fn failed(&mut self, _tag: (), _error: &TerminateError) {}
}

/// A gateway that serves a store.
pub(crate) struct Gateway {
    pub(crate) port: u16,
    outcomes: Receiver<Result<Relayed, TerminateError>>,
    store: Arc<Mutex<Arc<Store>>>,
    _runtime: Runtime,
}

pub(crate) const IDLE: Duration = Duration::from_secs(60);

impl Gateway {
    /// Ends the TLS of the domain at `domain` and connects to `edge`.
    pub(crate) fn start(store: Store, domain: usize, edge: SocketAddr) -> Self {
        Self::start_with(store, domain, edge, IDLE)
    }

    pub(crate) fn start_with(
        store: Store,
        domain: usize,
        edge: SocketAddr,
        idle: Duration,
    ) -> Self {
        let runtime = runtime();
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, outcomes) = channel();
        let store = Arc::new(Mutex::new(Arc::new(store)));
        let current = store.clone();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let store = Arc::clone(&current.lock().expect("a store"));
                let sender = sender.clone();
                tokio::spawn(async move {
                    let domain = store.domain(domain).expect("terminated").clone();
                    let patience = Duration::from_secs(10);
                    let mut edges = Direct {
                        edge,
                        tls: store.edge(0).expect("verified").clone(),
                    };
                    let name = Some("sip.contoso.example");
                    let outcome = establish(client, &domain, name, patience, &mut edges).await;
                    let outcome = match outcome {
                        Ok((session, ())) => Ok(session
                            .relay(idle, &sni_user::proxy::Progress::default())
                            .await),
                        Err(error) => Err(error),
                    };
                    // A test that has seen enough is gone.
                    let _ = sender.send(outcome);
                });
            }
        });
        Self {
            port,
            outcomes,
            store,
            _runtime: runtime,
        }
    }

    pub(crate) fn replace(&self, store: Store) {
        *self.store.lock().expect("a store") = Arc::new(store);
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        self.store.lock().expect("a store").clone()
    }

    /// How the next connection ended.
    pub(crate) fn outcome(&self) -> Result<Relayed, TerminateError> {
        self.outcomes
            .recv_timeout(Duration::from_secs(20))
            .expect("the connection ends")
    }

    /// The name of why the next connection failed.
    pub(crate) fn failure(&self) -> &'static str {
        match self.outcome() {
            Err(error) => error.name(),
            Ok(Relayed {
                end: End::Edge(error) | End::Partner(error),
                ..
            }) => error.name(),
            Ok(relayed) => panic!("{relayed:?}"),
        }
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// An Edge in this process that answers every line reversed and remembers what certificates it was shown.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    shown: Receiver<Vec<CertificateDer<'static>>>,
    _runtime: Runtime,
}

impl Edge {
    /// It demands a client certificate of the authority in `roots`, if there is one.
    pub(crate) fn start(files: &Files, roots: Option<&str>) -> Self {
        let runtime = runtime();
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(edge_config(files, roots)));
        let (sender, shown) = channel();
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let certificates = stream.get_ref().1.peer_certificates();
                    let _ = sender.send(certificates.unwrap_or_default().to_vec());
                    let mut bytes = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                        let line = bytes[..read].trim_ascii_end();
                        let mut answer: Vec<u8> = line.iter().rev().copied().collect();
                        answer.push(b'\n');
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self {
            address,
            shown,
            _runtime: runtime,
        }
    }

    /// What the next connection showed.
    pub(crate) fn shown(&self) -> Vec<CertificateDer<'static>> {
        self.shown
            .recv_timeout(Duration::from_secs(20))
            .expect("a connection")
    }
}

pub(crate) fn edge_config(files: &Files, roots: Option<&str>) -> ServerConfig {
    let read = |file: &str| fs::read(files.path().join(file)).expect("a file");
    let chain = vec![CertificateDer::from_pem_slice(&read("edge.pem")).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(&read("edge.key")).expect("PEM");
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            let der = CertificateDer::from_pem_slice(&read(file)).expect("PEM");
            roots.add(der).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    builder.with_single_cert(chain, key).expect("an Edge")
}
