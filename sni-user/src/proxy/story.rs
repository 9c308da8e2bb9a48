//! What is known of a connection so far, and who is told of it: the counters, the log, those who watch, SNI_LEARNED.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use sni_common::contract::{AccountKey, Matched};

use super::{
    Active, Lesson, Progress, Proxy, Target,
    canonical::canonical,
    carried::{Accounts, Entry, Listed},
    hand_off::{NotHandedOff, Terms},
    hello::ClientHello,
    refusal::Refusal,
    relay::{End, Relayed},
    routing::{Decision, Service, Verdict},
    terminate,
};
use crate::{clock::monotonic_ns, connection_log::Line, control::HelloSeen, edges::Edge};

/// A connection's story.
pub(super) struct Story<'a> {
    pub(super) proxy: &'a Proxy,
    /// The configuration that it goes by, until bytes flow.
    pub(super) active: Arc<Active>,
    /// The client: the connection's source, or whom a trusted load balancer names.
    pub(super) source: SocketAddr,
    /// The public address that it came to.
    pub(super) address: SocketAddr,
    hello: Option<ClientHello>,
    /// When the ClientHello was complete.
    heard: Option<SystemTime>,
    decision: Option<Decision>,
    began: Instant,
}

impl<'a> Story<'a> {
    pub(super) fn new(proxy: &'a Proxy, source: SocketAddr, address: SocketAddr) -> Self {
        Self {
            proxy,
            active: proxy.active(),
            source: canonical(source),
            address: canonical(address),
            hello: None,
            heard: None,
            decision: None,
            began: Instant::now(),
        }
    }

    /// Takes what is the active configuration now.
    pub(super) fn begin_again(&mut self) {
        self.active = self.proxy.active();
    }

    /// The service that the connection came to.
    pub(super) fn service(&self) -> Option<Service> {
        self.active.routing.service(self.address).cloned()
    }

    /// Where the ClientHello says that it goes.
    pub(super) fn route(
        &mut self,
        service: &Service,
        hello: ClientHello,
    ) -> Result<Target, Refusal> {
        let verdict = self.active.routing.decide(service, &hello);
        self.proxy.learn(Lesson {
            active: Arc::clone(&self.active),
            ip_set: service.ip_set,
            name: hello.server_name.clone().unwrap_or_default(),
            verdict,
        });
        self.hello = Some(hello);
        self.heard = Some(SystemTime::now());
        self.proxy.measured().hello(self.began.elapsed());
        match verdict {
            Verdict::Goes(decision) => {
                self.decision = Some(decision);
                Ok(decision.target)
            }
            Verdict::WrongProtocol(_) => Err(Refusal::WrongProtocol),
            Verdict::Unknown => Err(Refusal::UnrecognizedName),
        }
    }

    /// The server name that the client asked for.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.hello.as_ref()?.server_name.as_deref()
    }

    /// An Edge has answered where others, each with its reason, have not.
    pub(super) fn failed_over(&self, failed: &[String], edge: &Edge) {
        for failed in failed {
            if let Some(unsaid) = self.proxy.note("edge-failed-over") {
                tracing::warn!(failed, edge = %edge.config.name, unsaid, "an Edge could not be used, the next one of its pool was");
            }
        }
    }

    fn list(&self, way: &'static str, edge: &Arc<Edge>, progress: &Arc<Progress>) -> Listed<'a> {
        self.proxy.carried().enter(Entry {
            client: self.source,
            address: self.address,
            server_name: self.server_name().map(str::to_owned),
            route: self.decision.map_or(0, |decision| decision.route),
            ip_set: self.ip_set(),
            edge: Arc::clone(edge),
            way: if way == "passed" { "relayed" } else { way },
            began: self.began,
            progress: Arc::clone(progress),
            accounts: self.accounts(edge).unwrap_or_default(),
        })
    }

    /// The IP set of the public address.
    fn ip_set(&self) -> Option<String> {
        let service = self.active.routing.service(self.address)?;
        let ip_set = self.active.config.ip_sets.get(service.ip_set)?;
        Some(ip_set.name.to_string())
    }

    /// The accounts of a connection to this Edge.
    fn accounts(&self, edge: &Edge) -> Option<Accounts> {
        let numbers = &self.active.numbers;
        let ip_set = self.active.routing.service(self.address)?.ip_set;
        let route = self.decision.map_or(0, |decision| decision.route);
        Some(Accounts::new(
            *numbers.edges.get(edge.index)?,
            AccountKey::route(route, *numbers.ip_sets.get(ip_set)?),
        ))
    }

    /// Bytes begin to flow, passed through or terminated. What is not needed from here on is let go: a connection lives for days, and
    /// configurations come and go.
    pub(super) fn carried(self, way: &'static str, edge: Arc<Edge>) -> Carried<'a> {
        self.proxy.count(way, 1);
        let relays = way != "passed";
        if relays {
            self.proxy.measured().opened(way);
        }
        let progress = Arc::default();
        self.show(|| format!("{way} to {}", edge.config.name));
        Carried {
            proxy: self.proxy,
            source: self.source,
            address: self.address,
            server_name: self.server_name().map(str::to_owned),
            ip_set: self.ip_set(),
            route: self.decision.map_or(0, |decision| decision.route),
            relays,
            listed: Some(self.list(way, &edge, &progress)),
            progress,
            edge,
            began: self.began,
        }
    }

    /// It is not carried.
    pub(super) fn refused(&self, refusal: &Refusal) {
        let reason = refusal.name();
        let measured = self.proxy.measured();
        measured.refused(reason);
        if refusal.is_of_hello() {
            measured.no_hello(reason);
        }
        if let Some(unsaid) = self.proxy.note(reason) {
            let ip_set = self.ip_set();
            let line = Line {
                client: self.source,
                address: self.address,
                server_name: self.server_name(),
                ip_set: ip_set.as_deref(),
                edge: None,
                way: "refused",
                result: reason,
                to_edge: 0,
                to_client: 0,
                lasted: self.began.elapsed(),
                unsaid,
            };
            line.refused(refusal, refusal.is_ours());
        }
        self.show(|| format!("refused: {reason}"));
    }

    /// Tells those who watch.
    fn show(&self, result: impl FnOnce() -> String) {
        self.proxy.show(|| {
            let hello = self.hello.as_ref();
            HelloSeen {
                at: self.heard.unwrap_or_else(SystemTime::now),
                source: self.source,
                address: self.address,
                server_name: self.server_name().map(str::to_owned),
                version: hello.map(|hello| version(hello.newest_version())),
                alpn: hello.map_or_else(Vec::new, |hello| {
                    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
                    hello.alpn.iter().map(text).collect()
                }),
                ja4: hello.map(|hello| hello.ja4.to_string()),
                post_quantum: hello.is_some_and(|hello| hello.post_quantum),
                ech: hello.is_some_and(|hello| hello.ech),
                route: self.destination(),
                matched: hello.map(|_| {
                    let decision = self.decision.map(|decision| decision.matched);
                    decision.unwrap_or(Matched::Nothing)
                }),
                result: result(),
            }
        });
    }

    /// Where the routes send it, in a word.
    fn destination(&self) -> Option<String> {
        self.active.destination(self.decision?.target)
    }
}

/// A connection that is carried: what its end is told with.
pub(super) struct Carried<'a> {
    pub(super) proxy: &'a Proxy,
    source: SocketAddr,
    address: SocketAddr,
    server_name: Option<String>,
    ip_set: Option<String>,
    /// The number of the name that decided.
    route: u64,
    /// Whether the agent has begun to carry it by itself; not while it may yet be handed off before that.
    relays: bool,
    pub(super) progress: Arc<Progress>,
    /// None after a hand-off.
    listed: Option<Listed<'a>>,
    edge: Arc<Edge>,
    began: Instant,
}

impl Carried<'_> {
    /// What the datapath is to call it, by the active configuration.
    pub(super) fn terms(&self) -> Result<Terms, NotHandedOff> {
        let active = self.proxy.active();
        let service = active.routing.service(self.address);
        let service = service.ok_or(NotHandedOff::Unconfigured)?;
        if !service.hand_off {
            return Err(NotHandedOff::Off);
        }
        let is_ours = |edge: &&Arc<Edge>| {
            (&edge.config.name, edge.config.address)
                == (&self.edge.config.name, self.edge.config.address)
        };
        let edge = active.edges.iter().find(is_ours);
        let slot = edge.and_then(|edge| active.numbers.edges.get(edge.index));
        let ip_set = active.numbers.ip_sets.get(service.ip_set);
        match (slot, ip_set) {
            (Some(slot), Some(ip_set)) => Ok(Terms {
                ip_set: *ip_set,
                route: self.route,
                edge: *slot,
                began: self.began,
            }),
            _ => Err(NotHandedOff::Unconfigured),
        }
    }

    /// It is the datapath's from here on, which has not seen so many bytes that were passed.
    pub(super) fn handed_off(&mut self, passed: &Relayed, unseen: (u64, u64)) {
        if let Some(listed) = self.listed.take() {
            listed.hand_off(unseen);
        }
        self.proxy.measured().opened("handed-off");
        self.counted("handed-off");
        self.add_bytes(passed.to_edge, passed.to_client);
        tracing::debug!(source = %self.source, address = %self.address, server_name = self.server_name, edge = %self.edge.config.name, "handed off");
    }

    /// It stays in the relay, for now.
    pub(super) fn kept(&mut self, why: &NotHandedOff) {
        let reason = why.name();
        self.proxy.measured().kept(reason);
        self.relayed();
        let Some(unsaid) = self.proxy.note(reason) else {
            return;
        };
        let (source, edge) = (self.source, &self.edge.config.name);
        if why.is_ours() {
            tracing::warn!(reason, %source, %edge, unsaid, "a connection is not handed off to the datapath: {why}");
        } else {
            tracing::debug!(reason, %source, %edge, unsaid, "a connection is not handed off to the datapath: {why}");
        }
    }

    /// The agent carries it, at least for now.
    fn relayed(&mut self) {
        if !std::mem::replace(&mut self.relays, true) {
            self.proxy.measured().opened("relayed");
        }
    }

    /// A connection that was passed through is over.
    pub(super) fn passed(&mut self, relayed: &Relayed) {
        let end = match relayed.end {
            End::Closed | End::Paused => "closed",
            End::Reset => "reset",
            End::Idle => "idle",
        };
        // Not yet where it was reset in the middle of its first hand-off.
        self.relayed();
        self.measure_end("relayed", end);
        self.counted(end);
        self.ended("relayed", (relayed.to_edge, relayed.to_client), end);
    }

    /// A connection whose TLS ended here is over.
    pub(super) fn terminated(&self, relayed: &terminate::Relayed) {
        let end = match &relayed.end {
            terminate::End::Complete => self.counted("closed"),
            terminate::End::Idle => self.counted("idle"),
            terminate::End::Partner(error) => {
                tracing::debug!(source = %self.source, %error, "the partner's connection failed");
                self.counted("reset")
            }
            // Among them the Edge's refusal of a certificate, which in TLS 1.3 comes after the handshake.
            terminate::End::Edge(error) => {
                let reason = error.name();
                if let Some(unsaid) = self.proxy.note(reason) {
                    let (source, server_name) = (self.source, &self.server_name);
                    tracing::warn!(reason, %source, server_name, edge = %self.edge.config.name, unsaid, "the Edge's connection failed: {error}");
                }
                reason
            }
        };
        self.measure_end("terminated", end);
        self.ended("terminated", (relayed.to_edge, relayed.to_partner), end);
    }

    fn measure_end(&self, way: &str, result: &str) {
        self.proxy.measured().ended(self.route != 0, way, result);
    }

    fn counted(&self, end: &'static str) -> &'static str {
        self.proxy.count(end, 1);
        end
    }

    fn add_bytes(&self, to_edge: u64, to_client: u64) {
        self.proxy.count("bytes-to-edge", to_edge);
        self.proxy.count("bytes-to-client", to_client);
    }

    fn ended(&self, way: &str, (to_edge, to_client): (u64, u64), result: &str) {
        self.add_bytes(to_edge, to_client);
        let Some(unsaid) = self.proxy.log().may_say(monotonic_ns()) else {
            return;
        };
        let line = Line {
            client: self.source,
            address: self.address,
            server_name: self.server_name.as_deref(),
            ip_set: self.ip_set.as_deref(),
            edge: Some(self.edge.config.name.as_str()),
            way,
            result,
            to_edge,
            to_client,
            lasted: self.began.elapsed(),
            unsaid,
        };
        line.ended();
    }
}

/// A version in the words of people.
fn version(number: u16) -> String {
    match number {
        0x0301 => "1.0".to_owned(),
        0x0302 => "1.1".to_owned(),
        0x0303 => "1.2".to_owned(),
        0x0304 => "1.3".to_owned(),
        other => format!("{other:#06x}"),
    }
}
