//! The life of a connection: wait for its ClientHello, route it, connect to an Edge, pass it on.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    Proxy, Target,
    connect::{Attempts, Connected, Failed, Hold},
    farewell, hand_off,
    hello::ClientHello,
    pass, peek, proxy_header,
    refusal::Refusal,
    routing::Service,
    story::Story,
    terminate::{self, Peer, Reach, TerminateError},
};
use crate::{
    edges::Edge,
    tls::{EdgeTls, Terminating},
};

/// How long each of the two TLS handshakes of a terminated connection may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A ClientHello that is complete by then is nobody's attack, however many come at once.
const PROMPT: Duration = Duration::from_secs(1);

/// The datapath goes by a new configuration before the agent does: by milliseconds, or a good part of a second where it has a hundred thousand
/// names to clean away.
const CATCH_UP: Duration = Duration::from_millis(50);
const CATCH_UP_STEPS: u32 = 20;

/// What happens to a connection after its ClientHello.
enum Onward {
    /// Every byte goes to this Edge as it came; so many were waiting when the ClientHello was complete.
    Pass(Connected, u32),
    /// Its TLS ends here, as this domain has it, and goes on to one of these Edges.
    Terminate(Arc<Terminating>, Attempts),
}

/// Serves a connection from its first byte to its last.
pub(super) async fn serve(proxy: &Proxy, mut stream: TcpStream, source: SocketAddr) {
    let _open = proxy.enter();
    proxy.count("accepted", 1);
    let Ok(address) = stream.local_addr() else {
        return;
    };
    let mut story = Story::new(proxy, source, address);
    let _used = proxy.use_address(story.address.ip());
    match carry(&mut story, &mut stream).await {
        Ok(Onward::Pass(edge, waiting)) => pass_through(story, stream, edge, waiting).await,
        Ok(Onward::Terminate(domain, attempts)) => {
            // In a place of its own: two TLS sessions take four times what everything else does, and every connection would have room for them.
            Box::pin(end_tls(story, stream, domain, attempts)).await;
        }
        Err(refusal) => {
            story.refused(&refusal);
            farewell::say(stream, refusal.farewell()).await;
        }
    }
}

/// Everything up to the point from which the connection is somebody else's to answer.
async fn carry(story: &mut Story<'_>, stream: &mut TcpStream) -> Result<Onward, Refusal> {
    let service = match story.service() {
        Some(service) => service,
        None => catch_up(story).await?,
    };
    let patience = story.active.config.gateway.hello_timeout;
    let hello = timeout(patience, first_words(story, &service, stream))
        .await
        .unwrap_or(Err(Refusal::HelloTimeout(patience)))?;
    match story.route(&service, hello)? {
        Target::Pool(pool) => {
            let attempts = attempts(story, pool)?;
            pass(story, &service, stream, attempts).await
        }
        Target::Domain(index) => {
            let domain = story.active.config.domains.get(index);
            let domain = domain.ok_or(Refusal::Incoherent("domain"))?;
            let attempts = attempts(story, domain.pool.index())?;
            if domain.terminate.is_none() {
                return pass(story, &service, stream, attempts).await;
            }
            let terminating = story.active.tls.domain(index);
            let terminating = terminating.ok_or_else(|| Refusal::no_certificate(domain))?;
            Ok(Onward::Terminate(Arc::clone(terminating), attempts))
        }
    }
}

/// The service in a configuration that the datapath goes by already, and the agent does not yet.
async fn catch_up(story: &mut Story<'_>) -> Result<Service, Refusal> {
    for _ in 0..CATCH_UP_STEPS {
        sleep(CATCH_UP).await;
        story.begin_again();
        if let Some(service) = story.service() {
            return Ok(service);
        }
    }
    Err(Refusal::NoService)
}

/// Who the client is, and its ClientHello, which stays where it is.
async fn first_words(
    story: &mut Story<'_>,
    service: &Service,
    stream: &mut TcpStream,
) -> Result<ClientHello, Refusal> {
    if service.trusts(story.source.ip()) {
        let client = proxy_header::read(stream).await;
        if let Some(client) = client.map_err(Refusal::ProxyHeader)? {
            story.source = client;
            if Proxy::denies(&story.active, client.ip()) {
                return Err(Refusal::Denied);
            }
        }
    }
    let claim = || story.proxy.claim(&story.active, story.source.ip());
    let prompt = PROMPT.min(story.active.config.gateway.hello_timeout / 2);
    match timeout(prompt, peek::client_hello(stream)).await {
        Ok(Ok(hello)) => Ok(hello),
        Ok(Err(refusal)) => {
            // Whoever speaks another protocol, or nonsense, has not completed a ClientHello either. There is nothing left to be refused.
            drop(claim());
            Err(refusal.into())
        }
        Err(_) => {
            let claim = claim().ok_or(Refusal::HelloBudget)?;
            let hello = peek::client_hello(stream).await?;
            claim.give_back();
            Ok(hello)
        }
    }
}

/// The Edges that a connection may go to.
fn attempts(story: &Story<'_>, pool: usize) -> Result<Attempts, Refusal> {
    let pool = story.active.edges.pool(pool);
    let pool = pool.ok_or(Refusal::Incoherent("pool"))?;
    let attempts = Attempts::new(pool, story.source);
    // At once, and not after a handshake that comes to nothing.
    match attempts.hopeless() {
        Some(nobody) => Err(nobody.into()),
        None => Ok(attempts),
    }
}

/// An Edge for a connection that is passed through. What is handed off must not exceed what the client takes.
async fn pass(
    story: &Story<'_>,
    service: &Service,
    client: &TcpStream,
    attempts: Attempts,
) -> Result<Onward, Refusal> {
    let segment_size = service
        .hand_off
        .then(|| hand_off::segment_size(client).ok());
    let mut attempts = attempts.with_segment_size(segment_size.flatten());
    let waiting = hand_off::unread(client).unwrap_or_default();
    Ok(Onward::Pass(reach(story, &mut attempts).await?, waiting))
}

/// Connects to the next Edge that answers, and tells it who the client is if it wants to know.
async fn reach(story: &Story<'_>, attempts: &mut Attempts) -> Result<Connected, Refusal> {
    let before = attempts.failed().len();
    let mut connected = attempts.next(story.proxy).await?;
    let failed = attempts.failed()[before..].iter().map(Failed::sentence);
    story.failed_over(&failed.collect::<Vec<_>>(), &connected.edge);
    if connected.edge.config.proxy_protocol {
        let written = proxy_header::write(&mut connected.stream, story.source, story.address);
        written.await.map_err(|reason| Refusal::EdgeBroken {
            edge: connected.edge.config.name.to_string(),
            reason,
        })?;
    }
    Ok(connected)
}

/// Every byte, the ClientHello first: by the datapath, when it takes the connection, else by the relay, until both sides have closed.
async fn pass_through(story: Story<'_>, client: TcpStream, connected: Connected, waiting: u32) {
    let idle = story.active.config.gateway.idle_timeout;
    let Connected { stream, edge, hold } = connected;
    let mut carried = story.carried("passed", Arc::clone(&edge));
    tokio::select! {
        () = pass::through(&mut carried, client, (stream, hold), waiting, idle) => {}
        // Both sockets are closed with what is unread, as when the agent ends.
        () = edge.ended() => carried.proxy.count("drained", 1),
    }
}

/// TLS with the partner, TLS with the Edge, and what they say to each other in between.
async fn end_tls(
    story: Story<'_>,
    client: TcpStream,
    domain: Arc<Terminating>,
    attempts: Attempts,
) {
    let idle = story.active.config.gateway.idle_timeout;
    let mut edges = Candidates {
        story: &story,
        attempts,
        failed: Vec::new(),
    };
    let server_name = story.server_name();
    // Likewise, for as long as the handshakes take.
    let established = terminate::establish(client, &domain, server_name, HANDSHAKE, &mut edges);
    let established = Box::pin(established).await;
    // Let go of what a connection that lives for days does not need.
    let Candidates { failed, .. } = edges;
    drop(domain);
    let (session, (edge, hold)) = match established {
        Ok(established) => established,
        Err(error) => return story.refused(&reason(error, &failed)),
    };
    story.failed_over(&failed, &edge);
    let carried = story.carried("terminated", Arc::clone(&edge));
    tokio::select! {
        relayed = session.relay(idle, &carried.progress) => carried.terminated(&relayed),
        () = edge.ended() => carried.proxy.count("drained", 1),
    }
    drop(hold);
}

/// Why there was no Edge, rather than that there was none; and of which Edges it is true.
fn reason(error: TerminateError, failed: &[String]) -> Refusal {
    match error {
        TerminateError::NoEdge(reason) => match reason.downcast::<Refusal>() {
            Ok(refusal) => *refusal,
            Err(reason) => TerminateError::NoEdge(reason).into(),
        },
        reason if !failed.is_empty() => Refusal::NoHandshake {
            reason,
            tried: failed.join("; "),
        },
        other => other.into(),
    }
}

/// The Edges of a terminated connection.
struct Candidates<'a> {
    story: &'a Story<'a>,
    attempts: Attempts,
    /// Those whose handshakes have failed, and why.
    failed: Vec<String>,
}

impl Reach for Candidates<'_> {
    type Tag = (Arc<Edge>, Hold);

    async fn reach(
        &mut self,
    ) -> Result<(TcpStream, Arc<EdgeTls>, Self::Tag), Box<dyn Error + Send + Sync>> {
        let connected = reach(self.story, &mut self.attempts).await?;
        let edge = connected.edge;
        let tls = self.story.active.tls.edge(edge.index);
        let tls = Arc::clone(tls.ok_or(Refusal::Incoherent("roots of an Edge"))?);
        Ok((connected.stream, tls, (edge, connected.hold)))
    }

    fn failed(&mut self, (edge, _): Self::Tag, error: &TerminateError) {
        let config = &edge.config;
        let sentence = format!("{} ({}): {error}", config.name, config.address);
        self.failed.push(sentence);
    }

    fn shook_hands(&mut self, with: Peer, took: Duration, completed: bool) {
        let measured = self.story.proxy.measured();
        measured.handshake(with, took, completed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl Fn(&'static Proxy, TcpStream, SocketAddr) -> F) -> usize {
        size_of::<F>()
    }

    /// A connection that is passed through lives for days, thousands at a time.
    #[test]
    fn a_connection_without_tls_of_ours_takes_no_room_for_it() {
        let bytes = size(serve);
        assert!(bytes <= 6 << 10, "{bytes} bytes for each connection");
    }
}
