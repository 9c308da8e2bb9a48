//! Certificates by ACME, while the agent runs: has them seen to, and tokens answered at port 80 of inspected addresses.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use crate::{
    acme::{
        Counts, Store, Worker,
        responder::{PORT, Responder, Tokens},
    },
    config::{Challenge, Config, DomainAcme, Mode},
};

/// Both, for as long as it lives.
pub(super) struct Certificates {
    worker: Worker,
    responder: Responder,
}

impl Certificates {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        Self {
            worker: Worker::new(Arc::clone(counts)),
            responder: Responder::new(Arc::clone(counts)),
        }
    }

    /// What is answered at port 80, for a server that has it already.
    pub(super) fn tokens(&self) -> Arc<Tokens> {
        self.responder.tokens()
    }

    /// Makes the directories, before anybody listens for changes there.
    pub(super) fn prepare(config: &Config) {
        if let Some(acme) = &config.acme
            && let Err(error) = Store::new(acme).prepare()
        {
            tracing::error!(%error, "certificates can't be got by ACME: `state` and `tokens` of [acme] have to be directories that the gateway may write in");
        }
    }

    /// Leaves port 80 to another server for a moment.
    pub(super) async fn make_room(&mut self) {
        self.responder.make_room().await;
    }

    /// Goes by the configuration from now on. `taken` is where another server has port 80, and answers tokens itself.
    pub(super) async fn follow(&mut self, config: &Config, taken: impl Fn(IpAddr) -> bool) {
        let tokens = config.acme.as_ref().filter(|_| wants_port(config));
        let tokens = tokens.map(|acme| acme.tokens.as_path());
        let mut addresses = inspected(config);
        addresses.retain(|address| !taken(*address));
        self.responder.follow(tokens, addresses).await;
        self.worker.follow(config);
    }

    /// Waits until a certificate has changed.
    pub(super) async fn changed(&self) {
        self.worker.changed().await;
    }
}

/// Whether any domain is proven at port 80.
fn wants_port(config: &Config) -> bool {
    let wishes = config.domains.iter().filter_map(|it| it.terminate.as_ref());
    let mut wishes = wishes.filter_map(|it| it.acme.as_ref());
    wishes.any(|DomainAcme { challenge, .. }| *challenge == Challenge::Http01)
}

/// Addresses with an inspected port whose port 80 is not the datapath's.
fn inspected(config: &Config) -> HashSet<IpAddr> {
    let has_port = config
        .ip_sets
        .iter()
        .filter(|set| set.ports.contains(&PORT));
    let taken: HashSet<_> = has_port.flat_map(|set| &set.addresses).collect();
    let sets = config.ip_sets.iter();
    let inspected = sets.filter(|set| matches!(set.mode, Mode::Inspect { .. }));
    let addresses = inspected.flat_map(|set| &set.addresses);
    addresses
        .filter(|it| !taken.contains(it))
        .copied()
        .collect()
}
