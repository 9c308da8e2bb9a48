//! HTTP-01 (RFC 8555 section 8.3): at port 80 of inspected addresses, tokens are answered, and nothing else.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::{Counts, challenge};
use crate::http::{self, Answer};

/// The only port that authorities ask at.
pub(crate) const PORT: u16 = 80;
const PREFIX: &str = "/.well-known/acme-challenge/";
/// Connections at once of each address; further ones wait. An authority opens a handful for each name.
const CONNECTIONS: usize = 64;
const BACKLOG: i32 = 128;
/// When to try again to listen: another program may leave the port.
const AGAIN: Duration = Duration::from_secs(10);

/// Answers tokens for as long as it lives.
pub(crate) struct Responder {
    tokens: Arc<Tokens>,
    listening: HashMap<IpAddr, JoinHandle<()>>,
}

/// The tokens that are answered.
pub(crate) struct Tokens {
    directory: RwLock<Option<PathBuf>>,
    counts: Arc<Counts>,
}

impl Responder {
    pub(crate) fn new(counts: Arc<Counts>) -> Self {
        let tokens = Tokens {
            directory: RwLock::default(),
            counts,
        };
        Self {
            tokens: Arc::new(tokens),
            listening: HashMap::new(),
        }
    }

    /// For another server that has port 80 of some address.
    pub(crate) fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens)
    }

    /// Answers tokens of this directory from now on, at these addresses; none where there is none.
    pub(crate) async fn follow(&mut self, directory: Option<&Path>, addresses: HashSet<IpAddr>) {
        self.tokens.follow(directory);
        let addresses = match directory {
            Some(_) => addresses,
            None => HashSet::new(),
        };
        let gone: Vec<_> = self.listening.keys().copied().collect();
        for address in gone.into_iter().filter(|it| !addresses.contains(it)) {
            self.leave(address).await;
        }
        for address in addresses {
            let tokens = &self.tokens;
            self.listening
                .entry(address)
                .or_insert_with(|| tokio::spawn(serve(address, Arc::clone(tokens))));
        }
    }

    /// Leaves port 80 to somebody else for now.
    pub(crate) async fn make_room(&mut self) {
        let all: Vec<_> = self.listening.keys().copied().collect();
        for address in all {
            self.leave(address).await;
        }
    }

    async fn leave(&mut self, address: IpAddr) {
        if let Some(server) = self.listening.remove(&address) {
            server.abort();
            // The port is free when the task is gone.
            let _ = server.await;
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        for server in self.listening.values() {
            server.abort();
        }
    }
}

async fn serve(address: IpAddr, tokens: Arc<Tokens>) {
    let mut said = false;
    let listener = loop {
        match listen(address) {
            Ok(listener) => break listener,
            Err(error) if !said => {
                tracing::error!(%address, %error, "port {PORT} can't be listened at, so that HTTP-01 is not answered there; trying again every {} seconds", AGAIN.as_secs());
                said = true;
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    };
    tracing::info!(%address, "answering ACME tokens at port {PORT}");
    http::serve(listener, "ACME tokens", CONNECTIONS, move |request| {
        let tokens = Arc::clone(&tokens);
        async move { tokens.answer(&request).await }
    })
    .await;
}

/// Also where the address is not this host's yet: the agent makes inspected addresses local, and takes that back.
fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(SocketAddr::new(address, PORT));
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.bind(&SocketAddr::new(address, PORT).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Tokens {
    fn follow(&self, directory: Option<&Path>) {
        let mut current = self
            .directory
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = directory.map(Path::to_owned);
    }

    /// The token, or a bare 404, whatever else is asked for and however.
    pub(crate) async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let found = match self.asked_for(request) {
            // The directory may be on another machine.
            Some((directory, token)) => {
                let read = spawn_blocking(move || challenge::answer_of(&directory, &token));
                read.await.ok().flatten()
            }
            None => None,
        };
        self.counts.request(found.is_some());
        match found {
            Some(text) => {
                // RFC 8555 section 8.3.
                let headers = [
                    (CONTENT_TYPE, "application/octet-stream"),
                    (CACHE_CONTROL, "no-store"),
                ];
                http::page(text.into(), &headers)
            }
            None => http::plain(StatusCode::NOT_FOUND, ""),
        }
    }

    /// Whether a request is for a token.
    pub(crate) fn is_asked_for(&self, request: &Request<Incoming>) -> bool {
        self.asked_for(request).is_some()
    }

    fn asked_for(&self, request: &Request<Incoming>) -> Option<(PathBuf, String)> {
        if request.method() != Method::GET {
            return None;
        }
        let directory = self
            .directory
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let token = request.uri().path().strip_prefix(PREFIX)?;
        Some((directory.clone()?, token.to_owned()))
    }
}
