//! The life of a connection: wait for its ClientHello, route it, connect to an Edge, pass it on.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use super::{
    Proxy, Target,
    connect::{Attempts, Connected},
    farewell,
    hello::ClientHello,
    peek, proxy_header,
    refusal::Refusal,
    relay,
    routing::Service,
    socket,
    story::Story,
    terminate::{self, Patience, Reach, TerminateError},
};

use crate::{
    edges::{Edge, Entered},
    tls::EdgeTls,
};

/// How long each of the two TLS handshakes of a terminated connection may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What happens to a connection after its ClientHello.
enum Onward {
    /// Every byte goes to this Edge as it came.
    Pass(Connected),
    /// Its TLS ends here, with the certificate of this domain.
    Terminate(usize),
}

/// Serves a connection from its first byte to its last.
pub(super) async fn serve(proxy: &Proxy, mut stream: TcpStream, source: SocketAddr) {
    let _open = proxy.enter();
    proxy.count("accepted", 1);
    let Ok(address) = stream.local_addr() else {
        return;
    };
    let mut story = Story::new(proxy, source, address);
    match carry(&mut story, &mut stream).await {
        Ok(Onward::Pass(edge)) => pass_through(&story, stream, edge).await,
        Ok(Onward::Terminate(domain)) => {
            if let Err(refusal) = end_tls(&story, stream, domain).await {
                story.refused(&refusal);
            }
        }
        Err(refusal) => {
            story.refused(&refusal);
            farewell::say(stream, refusal.farewell()).await;
        }
    }
}

/// Everything up to the point from which the connection is somebody else's to answer.
async fn carry(story: &mut Story<'_>, stream: &mut TcpStream) -> Result<Onward, Refusal> {
    socket::for_federation(stream).map_err(Refusal::Socket)?;
    let service = story.service()?;
    let patience = story.active.config.gateway.hello_timeout;
    let hello = timeout(patience, first_words(story, &service, stream))
        .await
        .unwrap_or(Err(Refusal::HelloTimeout(patience)))?;
    let pool = match story.route(&service, hello)? {
        Target::Pool(pool) => pool,
        Target::Domain(index) => {
            let domain = story.active.config.domains.get(index);
            let domain = domain.ok_or(Refusal::NoService)?;
            if domain.terminate.is_some() {
                return Ok(Onward::Terminate(index));
            }
            domain.pool.index()
        }
    };
    let mut attempts = attempts(story, pool)?;
    let connected = reach(story, &mut attempts).await?;
    Ok(Onward::Pass(connected))
}

/// Who the client is, and its ClientHello, which stays where it is.
async fn first_words(
    story: &mut Story<'_>,
    service: &Service,
    stream: &mut TcpStream,
) -> Result<ClientHello, Refusal> {
    if service.trusts(story.source.ip()) {
        let client = proxy_header::read(stream).await;
        let client = client.map_err(Refusal::ProxyHeader)?;
        story.source = client.unwrap_or(story.source);
    }
    let claim = story.proxy.claim(&story.active, story.source.ip());
    let claim = claim.ok_or(Refusal::HelloBudget)?;
    // Whoever speaks another protocol, or nonsense, has not completed a ClientHello either.
    let hello = peek::client_hello(stream).await?;
    claim.give_back();
    Ok(hello)
}

/// The Edges that a connection may go to.
fn attempts<'a>(story: &Story<'a>, pool: usize) -> Result<Attempts<'a>, Refusal> {
    let pool = story.active.edges.pool(pool).ok_or(Refusal::NoService)?;
    Ok(Attempts::new(pool, story.source, story.proxy.steered()))
}

/// Connects to the next Edge that answers, and tells it who the client is if it wants to know.
async fn reach(story: &Story<'_>, attempts: &mut Attempts<'_>) -> Result<Connected, Refusal> {
    let before = attempts.failed().len();
    let mut connected = attempts.next().await?;
    story.failed_over(&attempts.failed()[before..], &connected.edge);
    if connected.edge.config.proxy_protocol {
        let written = proxy_header::write(&mut connected.stream, story.source, story.address);
        written.await.map_err(|reason| Refusal::EdgeBroken {
            edge: connected.edge.config.name.to_string(),
            reason,
        })?;
    }
    Ok(connected)
}

/// Every byte, the ClientHello first, until both sides have closed.
async fn pass_through(story: &Story<'_>, client: TcpStream, edge: Connected) {
    story.carrying("passed", &edge.edge);
    let idle = story.active.config.gateway.idle_timeout;
    let relayed = relay::relay(client, edge.stream, idle).await;
    story.passed(&edge.edge, &relayed);
    drop(edge.entered);
}

/// TLS with the partner, TLS with the Edge, and what they say to each other in between.
async fn end_tls(story: &Story<'_>, client: TcpStream, index: usize) -> Result<(), Refusal> {
    let active = &story.active;
    let domain = active.tls.domain(index).ok_or(Refusal::NoService)?;
    let pool = active.config.domains[index].pool.index();
    let gateway = &active.config.gateway;
    let patience = Patience {
        handshake: HANDSHAKE,
        idle: gateway.idle_timeout,
    };
    let mut edges = Candidates {
        story,
        attempts: attempts(story, pool)?,
    };
    let server_name = story.server_name();
    let (relayed, (edge, _entered)) =
        terminate::terminate(client, domain, server_name, patience, &mut edges)
            .await
            .map_err(|error| match error {
                // The reason itself, not that there was one.
                TerminateError::NoEdge(reason) => match reason.downcast::<Refusal>() {
                    Ok(refusal) => *refusal,
                    Err(reason) => TerminateError::NoEdge(reason).into(),
                },
                other => other.into(),
            })?;
    story.terminated(&edge, &relayed);
    Ok(())
}

/// The Edges of a terminated connection.
struct Candidates<'a> {
    story: &'a Story<'a>,
    attempts: Attempts<'a>,
}

impl Reach for Candidates<'_> {
    /// The guard counts the connection.
    type Tag = (Arc<Edge>, Entered);

    async fn reach(
        &mut self,
    ) -> Result<(TcpStream, Arc<EdgeTls>, Self::Tag), Box<dyn Error + Send + Sync>> {
        let connected = reach(self.story, &mut self.attempts).await?;
        let edge = connected.edge;
        let tls = self.story.active.tls.edge(edge.index);
        let tls = Arc::clone(tls.ok_or(Refusal::NoService)?);
        Ok((connected.stream, tls, (edge, connected.entered)))
    }

    fn established(&self, (edge, _): &Self::Tag) {
        self.story.carrying("terminated", edge);
    }
}
