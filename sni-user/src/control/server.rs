//! The agent's side of the control socket.

use std::{
    convert::Infallible, future::Future, io, net::IpAddr, path::Path, sync::Arc, time::Duration,
};

use rustix::process::geteuid;
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
        AgentStatus, Connections, DomainChanged, DomainTable, EdgeChanged, EdgeEnded, Notice,
        Refusal, RefusalKind, Reloaded, Request, RouteAdded, RouteRemoved, WatchingNow,
    },
    seen::{HelloSeen, WatchFilter},
    socket::{ControlError, ControlSocket},
};
use crate::config::{Name, ServerName};

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
        let [writers, readers] = [(); 2].map(|()| Arc::new(Semaphore::new(CLIENTS)));
        let mut clients = JoinSet::new();
        tracing::debug!(path = %self.socket.path().display(), "the control socket is open");
        loop {
            // The tasks of clients that have gone.
            while clients.try_join_next().is_some() {}
            let (stream, who) = match self.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a client of the control socket can't be accepted");
                    sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
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
        };
        Ok((stream, who))
    }
}

/// Who connected, by SO_PEERCRED.
#[derive(Clone, Copy)]
struct Who {
    uid: u32,
    pid: Option<i32>,
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
    /// Held while something is changed.
    changing: Arc<Mutex<()>>,
    _permit: OwnedSemaphorePermit,
}

impl<H: Handler> Client<H> {
    async fn serve(mut self) {
        let outcome = match self.peer.request().await {
            Ok(request) if request.changes() && !self.may_change => {
                let refusal = self.not_allowed();
                self.peer.answer::<()>(Err(refusal)).await
            }
            Ok(request) => self.carry_out(request).await,
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
            let Who { uid, pid } = self.who;
            tracing::info!(uid, pid, ?request, "asked through the control socket");
            Some(changing.lock().await)
        } else {
            None
        };
        let handler = &self.handler;
        match request {
            Request::Status => self.peer.answer(handler.status().await).await,
            Request::Connections { client } => {
                self.peer.answer(Ok(handler.connections(client))).await
            }
            Request::Reload => self.peer.answer(handler.reload().await).await,
            Request::RouteAdd { name, pool } => {
                let outcome = match (parsed(&name), parsed(&pool)) {
                    (Ok(name), Ok(pool)) => handler.add_route(name, pool).await,
                    (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
                };
                self.peer.answer(outcome).await
            }
            Request::RouteRm { name } => {
                let outcome = match parsed(&name) {
                    Ok(name) => handler.remove_route(name).await,
                    Err(refusal) => Err(refusal),
                };
                self.peer.answer(outcome).await
            }
            Request::EdgeDrain { name } => {
                let outcome = match parsed(&name) {
                    Ok(name) => handler.drain_edge(name).await,
                    Err(refusal) => Err(refusal),
                };
                self.peer.answer(outcome).await
            }
            Request::EdgeEnable { name } => {
                let outcome = match parsed(&name) {
                    Ok(name) => handler.enable_edge(name).await,
                    Err(refusal) => Err(refusal),
                };
                self.peer.answer(outcome).await
            }
            Request::EdgeEnd { name } => {
                let outcome = match parsed(&name) {
                    Ok(name) => handler.end_edge(name).await,
                    Err(refusal) => Err(refusal),
                };
                self.peer.answer(outcome).await
            }
            Request::DomainAdd { domain } => {
                self.peer.answer(handler.add_domain(domain).await).await
            }
            Request::DomainRm { sip_domain } => {
                self.peer
                    .answer(handler.remove_domain(sip_domain).await)
                    .await
            }
            Request::Watch { filter } => {
                let seen = handler.watch();
                watch(&mut self.peer, seen, &filter).await
            }
        }
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
