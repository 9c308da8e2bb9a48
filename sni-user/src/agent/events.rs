//! What the datapath tells the agent.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use sni_common::{
    contract::{DropReason, Event, EventKind, HelloEvent, LabelKind},
    token_bucket::TokenBucket,
};

use tokio::sync::mpsc;

use crate::{
    clock::monotonic_ns,
    datapath::{DatapathError, EventStream, Maps, Told, endpoint},
    neighbours::NextHopAddress,
    proxy::Proxy,
};

/// Lines about one reason in a second, at most. The datapath samples, but a flood's sample is a flood, too.
const LINES_PER_SECOND: u32 = 10;

/// Next hops that wait to be resolved. In a flood of packets to new ones, the datapath asks again.
const WANTED: usize = 1024;

/// Takes events as they come, and keeps the log readable.
pub(super) struct Events {
    proxy: Arc<Proxy>,
    maps: Maps,
    wanted: mpsc::Sender<NextHopAddress>,
    budgets: HashMap<u32, TokenBucket>,
}

impl Events {
    /// And the next hops that the datapath needs.
    pub(super) fn new(proxy: Arc<Proxy>, maps: Maps) -> (Self, mpsc::Receiver<NextHopAddress>) {
        let (wanted, receiver) = mpsc::channel(WANTED);
        let this = Self {
            proxy,
            maps,
            wanted,
            budgets: HashMap::new(),
        };
        (this, receiver)
    }

    /// Takes events until they can't be read: a task of its own, because hand-offs wait for some of them, and the agent's loop may be busy with a
    /// new configuration.
    pub(super) async fn run(mut self, mut stream: EventStream) -> DatapathError {
        loop {
            if let Err(error) = stream.next(|told| self.take(&told)).await {
                return error;
            }
        }
    }

    fn take(&mut self, told: &Told) {
        match told {
            Told::Event(event) => self.take_event(event),
            Told::Hello(hello) => self.take_hello(hello),
        }
    }

    /// A connection that no agent sees.
    fn take_hello(&self, hello: &HelloEvent) {
        let edge = hello.event.edge;
        let label = |kind, number| {
            self.maps
                .label(kind, 0, number)
                .unwrap_or_else(|| format!("#{number}"))
        };
        let edge = label(LabelKind::Edge, edge);
        self.proxy.bound(hello, &edge);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let key = &hello.event.key;
            let source = endpoint(key.source, key.source_port_be);
            let address = endpoint(key.destination, key.destination_port_be);
            let ip_set = label(LabelKind::IpSet, hello.ip_set);
            tracing::debug!(%source, %address, server_name = %hello.name, ip_set, edge, "bound");
        }
    }

    fn take_event(&mut self, event: &Event) {
        let key = &event.key;
        let (source, destination) = (IpAddr::from(key.source), IpAddr::from(key.destination));
        let (source_port, destination_port) = (
            u16::from_be(key.source_port_be),
            u16::from_be(key.destination_port_be),
        );
        match EventKind::try_from(event.kind) {
            Ok(EventKind::NeighbourWanted) => {
                let _ = self.wanted.try_send((event.ifindex, destination));
            }
            Ok(EventKind::SocketAcked) => self.proxy.wake(key),
            Ok(EventKind::Dropped) if !self.may_say(event.reason) => {}
            Ok(EventKind::Dropped) => {
                let reason = DropReason::try_from(event.reason);
                let (name, sentence) = reason.map_or(
                    ("unknown", "A reason that this version does not know."),
                    |reason| (reason.name(), reason.sentence()),
                );
                tracing::warn!(reason = name, %source, source_port, %destination, destination_port, "dropped (sampled): {sentence}");
            }
            Ok(kind) if tracing::enabled!(tracing::Level::DEBUG) => {
                let edge = self
                    .maps
                    .label(LabelKind::Edge, 0, event.edge)
                    .unwrap_or_default();
                tracing::debug!(%kind, %source, source_port, %destination, destination_port, edge, "flow");
            }
            Ok(_) => {}
            Err(unknown) => {
                tracing::warn!(%unknown, "an event of a kind that this version does not know")
            }
        }
    }

    fn may_say(&mut self, reason: u32) -> bool {
        // Reasons are few, but this side of the boundary can't know that.
        if self.budgets.len() > 64 {
            self.budgets.clear();
        }
        let now = monotonic_ns();
        let bucket = self.budgets.entry(reason).or_default();
        bucket.take(now, LINES_PER_SECOND * 1000, LINES_PER_SECOND)
    }
}
