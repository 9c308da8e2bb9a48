//! The agent's side of the control socket.

use std::{
    convert::Infallible,
    future::Future,
    io, mem,
    net::IpAddr,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use rustix::process::geteuid;
use serde::Serialize;
use sni_common::token_bucket::TokenBucket;
use tokio::{
    net::UnixStream,
    select,
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, broadcast},
    task::JoinSet,
    time::sleep,
};

use super::{
    peer::{NoRequest, Peer},
    protocol::{
        AgentStatus, Call, Connections, DomainChanged, DomainTable, EdgeChanged, EdgeEnded, Noted,
        Notice, Refusal, RefusalKind, Reloaded, Request, RouteAdded, RouteRemoved, WatchingNow,
    },
    seen::{HelloSeen, WatchFilter},
    socket::{ControlError, ControlSocket},
};
use crate::{
    clock::monotonic_ns,
    config::{Name, ServerName},
};

/// Clients at once, of those who may change things and of those who may not: neither locks the other out.
const CLIENTS: usize = 32;

/// How long after a failure to accept the next attempt is made; mostly for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// What an agent does when it is asked. A refusal has changed nothing.
///
/// Requests that change something come one at a time, and are carried out to their end even when the client has gone.
pub trait Handler: Send + Sync + 'static {
    /// Facts about the agent.
    fn status(&self) -> impl Future<Output = Result<AgentStatus, Refusal>> + Send;

    /// The connections that the agent carries itself, all or those of one client.
    fn connections(&self, client: Option<IpAddr>) -> Connections;

    /// Loads everything anew.
    fn reload(&self) -> impl Future<Output = Result<Reloaded, Refusal>> + Send;

    /// Routes a name to a pool until the agent ends or the configuration defines the name.
    fn add_route(
        &self,
        name: ServerName,
        pool: Name,
    ) -> impl Future<Output = Result<RouteAdded, Refusal>> + Send;

    /// Forgets such a route.
    fn remove_route(
        &self,
        name: ServerName,
    ) -> impl Future<Output = Result<RouteRemoved, Refusal>> + Send;

    /// Gives an Edge no new connections.
    fn drain_edge(&self, name: Name) -> impl Future<Output = Result<EdgeChanged, Refusal>> + Send;

    /// Lets the checks of an Edge decide again.
    fn enable_edge(&self, name: Name) -> impl Future<Output = Result<EdgeChanged, Refusal>> + Send;

    /// Ends the connections to an Edge that the agent carries itself.
    fn end_edge(&self, name: Name) -> impl Future<Output = Result<EdgeEnded, Refusal>> + Send;

    /// Defines a domain and reloads; see [`super::domains::add`].
    fn add_domain(
        &self,
        domain: DomainTable,
    ) -> impl Future<Output = Result<DomainChanged, Refusal>> + Send;

    /// Removes a domain and reloads; see [`super::domains::remove`].
    fn remove_domain(
        &self,
        sip_domain: String,
    ) -> impl Future<Output = Result<DomainChanged, Refusal>> + Send;

    /// Every ClientHello from now on. A watcher that falls behind loses the oldest: its channel is as long as it may fall behind.
    fn watch(&self) -> broadcast::Receiver<Arc<HelloSeen>>;
}

/// A control socket that can be connected to.
pub struct Server {
    socket: ControlSocket,
}

impl Server {
    /// Makes the socket: for root, the agent's user and the group `snigate`, if there is one. Its directory is made where it is missing,
    /// and the socket of a dead agent is replaced. The file goes when the server is dropped.
    ///
    /// # Errors
    /// When an agent listens there, something else has that name, or the file system refuses.
    pub async fn bind(path: &Path) -> Result<Self, ControlError> {
        let socket = ControlSocket::bind(path).await?;
        Ok(Self { socket })
    }

    /// Serves until the future is dropped; clients are then cut off.
    pub async fn serve<H: Handler>(self, handler: Arc<H>) -> Infallible {
        let owner = geteuid().as_raw();
        let changing = Arc::new(Mutex::new(()));
        let denied = Arc::new(Denied::default());
        let [writers, readers] = [(); 2].map(|()| Arc::new(Semaphore::new(CLIENTS)));
        let mut clients = JoinSet::new();
        tracing::debug!(path = %self.socket.path().display(), "the control socket is open");
        let mut failing = false;
        loop {
            // The tasks of clients that have gone.
            while clients.try_join_next().is_some() {}
            let (stream, who) = match self.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Once, however long it lasts.
                    if !mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "a client of the control socket can't be accepted");
                    }
                    sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            failing = false;
            let may_change = who.uid == 0 || who.uid == owner;
            let room = if may_change { &writers } else { &readers };
            let peer = Peer::new(stream);
            let Ok(permit) = Arc::clone(room).try_acquire_owned() else {
                clients.spawn(turn_away(peer));
                continue;
            };
            let client = Client {
                peer,
                who,
                may_change,
                handler: Arc::clone(&handler),
                denied: Arc::clone(&denied),
                changing: Arc::clone(&changing),
                _permit: permit,
            };
            clients.spawn(client.serve());
        }
    }

    async fn accept(&self) -> io::Result<(UnixStream, Who)> {
        let (stream, _) = self.socket.listener.accept().await?;
        let credentials = stream.peer_cred()?;
        let who = Who {
            uid: credentials.uid(),
            pid: credentials.pid(),
            login: None,
        };
        Ok((stream, who))
    }
}

/// Who connected: by SO_PEERCRED, but for the login, which is what root says.
#[derive(Clone, Copy)]
struct Who {
    uid: u32,
    pid: Option<i32>,
    login: Option<u32>,
}

impl Who {
    /// The line about a command that changes something: who, what, and what came of it.
    fn did(self, command: &str, outcome: &str) {
        // Longer than any command that makes sense.
        const LONGEST: usize = 500;
        let Self { uid, pid, login } = self;
        let command = command.chars().take(LONGEST).collect::<String>();
        tracing::info!(uid, login, pid, command, outcome, "administrative command");
    }
}

/// Bounds the lines about those who may not do what they ask for.
#[derive(Default)]
struct Denied(std::sync::Mutex<TokenBucket>);

impl Denied {
    const LINES_PER_SECOND: u32 = 10;

    fn may_be_said(&self) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(
            monotonic_ns(),
            Self::LINES_PER_SECOND * 1000,
            Self::LINES_PER_SECOND,
        )
    }
}

/// Bounded by the patience of an answer; the client has not even been heard.
async fn turn_away(mut peer: Peer) {
    let message =
        format!("{CLIENTS} clients are connected to the control socket: end some, or try again");
    let refusal = Refusal::new(RefusalKind::Busy, message);
    // Whoever does not wait for it needs no reason.
    let _ = peer.answer::<()>(Err(refusal)).await;
}

struct Client<H> {
    peer: Peer,
    who: Who,
    may_change: bool,
    handler: Arc<H>,
    denied: Arc<Denied>,
    /// Held while something is changed.
    changing: Arc<Mutex<()>>,
    _permit: OwnedSemaphorePermit,
}

impl<H: Handler> Client<H> {
    async fn serve(mut self) {
        let outcome = match self.peer.request().await {
            Ok(Call { request, .. }) if request.changes() && !self.may_change => {
                // Whoever may only look must not be able to fill the log.
                if self.denied.may_be_said() {
                    self.who.did(&request.command(), "not allowed");
                }
                let refusal = self.not_allowed();
                self.peer.answer::<()>(Err(refusal)).await
            }
            Ok(Call { request, login, .. }) => {
                self.who.login = login;
                self.carry_out(request).await
            }
            Err(NoRequest::Refused(refusal)) => self.peer.answer::<()>(Err(refusal)).await,
            Err(NoRequest::Gone) => return,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a client of the control socket has gone");
        }
    }

    fn not_allowed(&self) -> Refusal {
        let message = format!(
            "only root and the agent's own user may change anything, and you are user {}: run it with sudo",
            self.who.uid
        );
        Refusal::new(RefusalKind::NotAllowed, message)
    }

    async fn carry_out(&mut self, request: Request) -> io::Result<()> {
        let changing = Arc::clone(&self.changing);
        let _one_at_a_time = if request.changes() {
            Some(changing.lock().await)
        } else {
            None
        };
        let command = request.command();
        let handler = Arc::clone(&self.handler);
        match request {
            Request::Status => self.peer.answer(handler.status().await).await,
            Request::Connections { client } => {
                self.peer.answer(Ok(handler.connections(client))).await
            }
            Request::Reload => self.conclude(&command, handler.reload().await).await,
            Request::RouteAdd { name, pool } => {
                let outcome = match (parsed(&name), parsed(&pool)) {
                    (Ok(name), Ok(pool)) => handler.add_route(name, pool).await,
                    (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
                };
                self.conclude(&command, outcome).await
            }
            Request::RouteRm { name } => {
                let outcome = match parsed(&name) {
                    Ok(name) => handler.remove_route(name).await,
                    Err(refusal) => Err(refusal),
                };
                self.conclude(&command, outcome).await
            }
            Request::EdgeDrain { name } => {
                let outcome = match parsed(&name) {
                    Ok(name) => handler.drain_edge(name).await,
                    Err(refusal) => Err(refusal),
                };
                self.conclude(&command, outcome).await
            }
            Request::EdgeEnable { name } => {
                let outcome = match parsed(&name) {
                    Ok(name) => handler.enable_edge(name).await,
                    Err(refusal) => Err(refusal),
                };
                self.conclude(&command, outcome).await
            }
            Request::EdgeEnd { name } => {
                let outcome = match parsed(&name) {
                    Ok(name) => handler.end_edge(name).await,
                    Err(refusal) => Err(refusal),
                };
                self.conclude(&command, outcome).await
            }
            Request::DomainAdd { domain } => {
                self.conclude(&command, handler.add_domain(domain).await)
                    .await
            }
            Request::DomainRm { sip_domain } => {
                self.conclude(&command, handler.remove_domain(sip_domain).await)
                    .await
            }
            Request::Note { outcome, .. } => {
                self.who.did(&command, &outcome);
                self.peer.answer(Ok(Noted { noted: true })).await
            }
            Request::Watch { filter } => {
                let seen = handler.watch();
                watch(&mut self.peer, seen, &filter).await
            }
        }
    }

    /// Something has been changed, or refused: one line in the log, and the answer.
    async fn conclude<T: Serialize>(
        &mut self,
        command: &str,
        outcome: Result<T, Refusal>,
    ) -> io::Result<()> {
        match &outcome {
            Ok(_) => self.who.did(command, "done"),
            Err(refusal) => {
                let why = refusal.message.lines().next().unwrap_or_default();
                self.who.did(command, &format!("refused: {why}"));
            }
        }
        self.peer.answer(outcome).await
    }
}

fn parsed<T>(text: &str) -> Result<T, Refusal>
where
    T: std::str::FromStr<Err: ToString>,
{
    text.parse()
        .map_err(|error: T::Err| Refusal::new(RefusalKind::Malformed, error.to_string()))
}

/// Sends what is seen until the client closes or the agent ends.
async fn watch(
    peer: &mut Peer,
    mut seen: broadcast::Receiver<Arc<HelloSeen>>,
    filter: &WatchFilter,
) -> io::Result<()> {
    let wanted = match filter.compile() {
        Ok(wanted) => wanted,
        Err(error) => {
            let message = format!(
                "the pattern of names can't be understood: {error}; write one such as \"*.fabrikam.example\""
            );
            let refusal = Refusal::new(RefusalKind::Malformed, message);
            return peer.answer::<()>(Err(refusal)).await;
        }
    };
    peer.answer(Ok(WatchingNow { watching: true })).await?;
    let (requests, lines) = peer.split();
    let send = async {
        loop {
            match seen.recv().await {
                Ok(hello) if wanted.matches(&hello) => {
                    lines.send(&Notice::Hello(&*hello)).await?;
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    lines.send(&Notice::<()>::Lost(lost)).await?;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    };
    select! {
        sent = send => sent,
        () = requests.closed() => Ok(()),
    }
}
