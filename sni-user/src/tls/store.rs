//! A configuration's files, loaded as a whole.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use rustls::{pki_types::UnixTime, server::ServerSessionMemoryCache};

use super::{
    chain::Served,
    edge::EdgeTls,
    finding::Finding,
    inventory::Purpose,
    loader::{Known, Loader},
    mirror::Mirror,
    server::Terminating,
};
use crate::config::Config;

/// Sessions of all domains that are kept for clients without tickets.
const SESSIONS: usize = 20_000;

/// Everything about TLS that a configuration's files come to.
#[derive(Debug)]
pub struct Store {
    domains: Vec<Option<Arc<Terminating>>>,
    edges: Vec<Option<Arc<EdgeTls>>>,
    gateway: Option<Arc<Served>>,
    mirror: Option<Arc<Mirror>>,
    files: Vec<PathBuf>,
    known: Known,
    sessions: Arc<ServerSessionMemoryCache>,
}

/// When a certificate in use is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// What it is for.
    pub purpose: Purpose,
    /// From when on.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
}

impl Store {
    /// Loads the files of a configuration. What has not changed since `previous` is taken from there, so that sessions and mirrored
    /// certificates outlive a reload, and a reload among ten thousand domains costs little more than reading the files.
    ///
    /// Returns the store, and what is allowed but probably not meant.
    ///
    /// # Errors
    /// Everything that is wrong, warnings among it, if there is at least one error.
    pub fn load(
        config: &Config,
        previous: Option<&Self>,
    ) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let sessions = previous.map_or_else(
            || ServerSessionMemoryCache::new(SESSIONS),
            |previous| previous.sessions.clone(),
        );
        let known = previous.map(|previous| &previous.known);
        let mut loader = Loader::new(known, UnixTime::now());
        let gateway = loader.gateway(config);
        let mirror = loader.mirror(config);
        let old: HashMap<_, Vec<_>> = previous.map(Self::by_domain).unwrap_or_default();
        let domains: Vec<_> = config
            .domains
            .iter()
            .map(|domain| {
                let parts = loader.parts(domain, domain.terminate.as_ref()?, mirror.as_ref())?;
                let kept = old.get(domain.sip_domain.as_str()).and_then(|old| {
                    // Two domains of one name have different `alpn`, and so not the same parts.
                    old.iter().find(|old| {
                        old.parts().are_the_same(&parts) && old.name() == domain.names[0].host()
                    })
                });
                match kept {
                    Some(kept) => Some(Arc::clone(kept)),
                    None => loader.terminating(domain, parts, &sessions),
                }
            })
            .collect();
        let edges = loader.edges(config, gateway.as_deref());
        let Loader {
            files,
            known,
            findings,
            ..
        } = loader;
        if findings.iter().any(Finding::is_error) {
            return Err(findings);
        }
        let store = Self {
            domains,
            edges,
            gateway,
            mirror,
            files: files.into_paths(),
            known,
            sessions,
        };
        Ok((store, findings))
    }

    /// How a domain's TLS ends, by its place in the configuration; `None` where it is passed through.
    pub fn domain(&self, index: usize) -> Option<&Arc<Terminating>> {
        self.domains.get(index)?.as_ref()
    }

    /// How an Edge is verified, by its place in the configuration; `None` for those that no terminated domain reaches and that have no
    /// `tls`.
    pub fn edge(&self, index: usize) -> Option<&Arc<EdgeTls>> {
        self.edges.get(index)?.as_ref()
    }

    /// The private CA, where there is one.
    pub fn mirror(&self) -> Option<&Arc<Mirror>> {
        self.mirror.as_ref()
    }

    /// When each certificate in use is valid, once however many domains share it.
    pub fn lifetimes(&self) -> Vec<Lifetime> {
        let mut seen = HashSet::new();
        let domains = self.domains.iter().flatten();
        let domains = domains.map(|domain| &domain.parts().served);
        let domains = domains.filter(|served| seen.insert(Arc::as_ptr(served)));
        let of = |purpose, (not_before, not_after)| Lifetime {
            purpose,
            not_before,
            not_after,
        };
        let facts = |served: &Served| (served.facts.not_before, served.facts.not_after);
        let mut all: Vec<_> = domains
            .map(|served| of(Purpose::Domain, facts(served)))
            .collect();
        let gateway = self.gateway.as_deref();
        all.extend(gateway.map(|served| of(Purpose::Gateway, facts(served))));
        let mirror = self.mirror.as_deref();
        all.extend(mirror.map(|mirror| of(Purpose::MirrorCa, mirror.validity())));
        all
    }

    /// The files that a change of makes a reload worth while; some need not exist.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn by_domain(&self) -> HashMap<&str, Vec<&Arc<Terminating>>> {
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for domain in self.domains.iter().flatten() {
            found
                .entry(domain.sip_domain().as_str())
                .or_default()
                .push(domain);
        }
        found
    }
}
