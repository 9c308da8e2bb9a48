//! How a store's parts come from files.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{RootCertStore, pki_types::UnixTime, server::ServerSessionMemoryCache};

use super::{
    chain::{Served, signing_key},
    edge::{EdgeTls, Identity},
    files::{Files, Fingerprint, fingerprint},
    finding::{Concern, Finding, Note},
    mirror::Mirror,
    ocsp::{self, Staple},
    partner::{PartnerVerifier, RevocationLists},
    roots,
    server::{Parts, Terminating},
};
use crate::config::{
    ClientCertificate, Config, Domain, IdentityMode, MirrorCa, Roots, Severity, Termination,
};

/// What was made of files, by their contents: domains share it, and so do one store and the next.
#[derive(Debug, Default)]
pub(super) struct Known {
    served: HashMap<Fingerprint, Arc<Served>>,
    roots: HashMap<Fingerprint, Arc<RootCertStore>>,
    lists: HashMap<Fingerprint, Arc<RevocationLists>>,
    partners: HashMap<Fingerprint, Arc<PartnerVerifier>>,
    mirror: HashMap<Fingerprint, Arc<Mirror>>,
}

/// Reads what each part of a configuration names, and collects what there is to say about it.
pub(super) struct Loader<'a> {
    now: UnixTime,
    previous: Option<&'a Known>,
    pub(super) files: Files,
    pub(super) known: Known,
    /// The system's roots, once they were asked for.
    system: Option<Option<(Arc<RootCertStore>, Fingerprint)>>,
    /// What has been reported: a file that a thousand domains share is reported for the first.
    reported: HashSet<(PathBuf, String)>,
    pub(super) findings: Vec<Finding>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(previous: Option<&'a Known>, now: UnixTime) -> Self {
        Self {
            now,
            previous,
            files: Files::default(),
            known: Known::default(),
            system: None,
            reported: HashSet::new(),
            findings: Vec::new(),
        }
    }

    fn report(&mut self, concern: &Concern, notes: impl IntoIterator<Item = Note>) {
        for note in notes {
            let finding = note.concerning(concern);
            let key = (finding.file.clone(), finding.message.clone());
            if self.reported.insert(key) {
                self.findings.push(finding);
            }
        }
    }

    /// The value, or a report of why there is none.
    fn checked<T>(&mut self, concern: &Concern, result: Result<T, Note>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(note) => {
                self.report(concern, [note]);
                None
            }
        }
    }

    pub(super) fn gateway(&mut self, config: &Config) -> Option<Arc<Served>> {
        let gateway = config.identity.gateway.as_ref()?;
        let concern = Concern::Gateway;
        self.served(&concern, &gateway.certificate, &gateway.key)
    }

    pub(super) fn mirror(&mut self, config: &Config) -> Option<Arc<Mirror>> {
        let MirrorCa {
            certificate,
            key,
            crl_url,
        } = config.identity.mirror.as_ref()?;
        let concern = Concern::MirrorCa;
        let ca = self.served(&concern, certificate, key)?;
        let url = crl_url.as_deref();
        let own = ca.key.cert.iter().map(|der| der.as_ref());
        let id = fingerprint(own.chain([url.unwrap_or_default().as_bytes()]));
        if let Some(mirror) = self.previous.and_then(|known| known.mirror.get(&id)) {
            self.known.mirror.insert(id, mirror.clone());
            return Some(mirror.clone());
        }
        let made = Mirror::new(&ca, url).map(Arc::new).map_err(|reason| {
            Note::error(
                certificate,
                format!("it can't sign mirrored certificates: {reason}"),
                "`snigate ca init` makes one that can",
            )
        });
        let mirror = self.checked(&concern, made)?;
        self.known.mirror.insert(id, mirror.clone());
        Some(mirror)
    }

    fn served(&mut self, concern: &Concern, chain: &Path, key: &Path) -> Option<Arc<Served>> {
        let chain = self.files.read(chain, "the certificate");
        let key = self.files.read(key, "the private key");
        // Both, so that both are reported.
        let (chain, key) = (self.checked(concern, chain), self.checked(concern, key));
        let (chain, key) = match (chain, key) {
            (Some(chain), Some(key)) => (chain, key),
            (chain, key) => {
                let rest = chain.and_then(|chain| chain.certificates().err());
                self.report(concern, rest);
                let rest = key.and_then(|key| signing_key(&key).err());
                self.report(concern, rest);
                return None;
            }
        };
        let path = chain.path.as_os_str().as_encoded_bytes();
        let id = fingerprint([&chain.fingerprint[..], &key.fingerprint, path]);
        let known = self.known.served.get(&id);
        let known = known.or_else(|| self.previous?.served.get(&id)).cloned();
        let served = match known.map_or_else(|| Served::read(&chain, &key).map(Arc::new), Ok) {
            Ok(served) => served,
            Err(notes) => {
                self.report(concern, notes);
                return None;
            }
        };
        self.known.served.insert(id, served.clone());
        let renewal = match concern {
            Concern::MirrorCa => {
                "make another with `snigate ca init` in new files, and have the Edges trust both until this one is no longer used"
            }
            Concern::Domain(_) if chain.path == key.path => {
                "the agent renews it by ACME: `snigate cert ls` says when, and what is in the way"
            }
            _ => "renew it, and put the new one into the same file: it is taken up at once",
        };
        self.report(concern, served.notes(self.now, renewal));
        Some(served)
    }

    /// What ACME has brought so far. Its domain waits for the rest, and keeps no other one from its configuration.
    fn awaited(&mut self, concern: &Concern, file: &Path) -> Option<Arc<Served>> {
        if let Ok(None) = self.files.read_if_there(file) {
            self.report(
                concern,
                [Note::warning(
                    file,
                    "there is no certificate yet, so that partners are refused by a TLS alert",
                    "the agent gets one by ACME; `snigate cert issue` does it at once",
                )],
            );
            return None;
        }
        let found = self.findings.len();
        let served = self.served(concern, file, file);
        for finding in &mut self.findings[found..] {
            finding.severity = Severity::Warning;
        }
        served
    }

    fn roots(
        &mut self,
        concern: &Concern,
        roots: &Roots,
    ) -> Option<(Arc<RootCertStore>, Fingerprint)> {
        let path = match roots {
            Roots::File(path) => path,
            Roots::System => {
                if self.system.is_none() {
                    let loaded = roots::system();
                    let loaded = self.checked(concern, loaded);
                    let interned = loaded.map(|(store, id)| (self.intern_roots(id, store), id));
                    self.system = Some(interned);
                }
                return self.system.clone()?;
            }
        };
        let file = self.files.read(path, "the file of roots");
        let file = self.checked(concern, file)?;
        let id = file.fingerprint;
        if let Some(known) = self.known_roots(id) {
            return Some((known, id));
        }
        let made = roots::from_file(&file);
        let made = self.checked(concern, made)?;
        Some((self.intern_roots(id, made), id))
    }

    fn known_roots(&mut self, id: Fingerprint) -> Option<Arc<RootCertStore>> {
        let known = self.known.roots.get(&id);
        let known = known.or_else(|| self.previous?.roots.get(&id)).cloned()?;
        self.known.roots.insert(id, known.clone());
        Some(known)
    }

    fn intern_roots(&mut self, id: Fingerprint, made: RootCertStore) -> Arc<RootCertStore> {
        if let Some(known) = self.known_roots(id) {
            return known;
        }
        let roots = Arc::new(made);
        self.known.roots.insert(id, roots.clone());
        roots
    }

    fn partners(
        &mut self,
        concern: &Concern,
        termination: &Termination,
    ) -> Option<Arc<PartnerVerifier>> {
        let roots = self.roots(concern, &termination.client_roots);
        let mut lists = Vec::new();
        let mut complete = true;
        for path in &termination.client_crls {
            match self.list(concern, path) {
                Some(list) => lists.push(list),
                None => complete = false,
            }
        }
        let (roots, roots_id) = roots.filter(|_| complete)?;
        let mandatory = termination.client_certificate == ClientCertificate::Required;
        let lists_ids = lists.iter().map(|(_, id)| &id[..]);
        let id = fingerprint(
            [&roots_id[..], &[mandatory.into()]]
                .into_iter()
                .chain(lists_ids),
        );
        let known = self.known.partners.get(&id);
        let known = known.or_else(|| self.previous?.partners.get(&id)).cloned();
        let lists = lists.into_iter().map(|(list, _)| list).collect();
        let partners =
            known.unwrap_or_else(|| Arc::new(PartnerVerifier::new(roots, lists, mandatory)));
        self.known.partners.insert(id, partners.clone());
        Some(partners)
    }

    fn list(
        &mut self,
        concern: &Concern,
        path: &Path,
    ) -> Option<(Arc<RevocationLists>, Fingerprint)> {
        let file = self.files.read(path, "the revocation list");
        let file = self.checked(concern, file)?;
        let id = file.fingerprint;
        let known = self.known.lists.get(&id);
        let known = known.or_else(|| self.previous?.lists.get(&id)).cloned();
        let list = known.map_or_else(|| RevocationLists::read(&file).map(Arc::new), Ok);
        let list = self.checked(concern, list)?;
        self.known.lists.insert(id, list.clone());
        self.report(concern, list.note(path, self.now));
        Some((list, id))
    }

    pub(super) fn parts(
        &mut self,
        domain: &Domain,
        termination: &Termination,
        mirror: Option<&Arc<Mirror>>,
    ) -> Option<Parts> {
        let concern = Concern::Domain(domain.sip_domain.clone());
        let served = match &termination.acme {
            Some(_) => self.awaited(&concern, &termination.certificate),
            None => self.served(&concern, &termination.certificate, &termination.key),
        };
        let partners = match termination.client_certificate {
            ClientCertificate::NotRequested => Some(None),
            _ => self.partners(&concern, termination).map(Some),
        };
        let (served, partners) = served.zip(partners)?;
        let uncovered: Vec<_> = domain
            .names
            .iter()
            .filter(|name| !served.facts.covers(name))
            .map(ToString::to_string)
            .collect();
        if !uncovered.is_empty() {
            self.report(
                &concern,
                [Note::warning(
                    &termination.certificate,
                    format!(
                        "the certificate is not for {}, only for {}",
                        listed(&uncovered),
                        listed(&served.facts.names)
                    ),
                    "partners refuse it there: request one with every name of the domain",
                )],
            );
        }
        let identity = match termination.identity {
            IdentityMode::Anonymous => Identity::Anonymous,
            IdentityMode::Gateway => Identity::Gateway,
            // Without a CA that could be loaded, which is reported already.
            IdentityMode::Mirror => Identity::Mirror(mirror?.clone()),
        };
        Some(Parts {
            staple: self.staple(&concern, &termination.certificate, &served),
            served,
            partners,
            identity,
            alpn: domain.alpn.clone(),
        })
    }

    fn staple(&mut self, concern: &Concern, certificate: &Path, served: &Served) -> Option<Staple> {
        let path = ocsp::path_of(certificate);
        let file = self.files.read_if_there(&path);
        let file = self.checked(concern, file)??;
        let own = served.key.cert.first()?;
        let staple = Staple::read(&file, own);
        let staple = self.checked(concern, staple)?;
        self.report(concern, staple.note(&path, self.now));
        Some(staple)
    }

    pub(super) fn terminating(
        &mut self,
        domain: &Domain,
        parts: Parts,
        sessions: &Arc<ServerSessionMemoryCache>,
    ) -> Option<Arc<Terminating>> {
        let concern = Concern::Domain(domain.sip_domain.clone());
        let file = parts.served.file().to_owned();
        // A configuration's domain has at least one name.
        let name = domain.names.first()?.host();
        let made = Terminating::new(&domain.sip_domain, name, parts, sessions);
        let made = made.map_err(|error| {
            Note::error(
                &file,
                format!("TLS can't be set up with it: {error}"),
                "use an RSA key of 2048 bits or more",
            )
        });
        self.checked(&concern, made).map(Arc::new)
    }

    pub(super) fn edges(
        &mut self,
        config: &Config,
        gateway: Option<&Served>,
    ) -> Vec<Option<Arc<EdgeTls>>> {
        let mut wanted: Vec<_> = config.edges.iter().map(|edge| edge.tls.is_some()).collect();
        for domain in config.domains.iter().filter(|it| it.terminate.is_some()) {
            for member in &config.pool(&domain.pool).members {
                wanted[member.edge.index()] = true;
            }
        }
        let edges = config.edges.iter().zip(wanted);
        edges
            .map(|(edge, wanted)| {
                let concern = Concern::Edge(edge.name.clone());
                let tls = edge.tls.as_ref();
                let roots = tls.map_or(&Roots::System, |tls| &tls.roots);
                let (store, _) = wanted.then(|| self.roots(&concern, roots))??;
                let name = tls.map(|tls| tls.name.clone());
                let made = EdgeTls::new(name, store, gateway.map(|gateway| gateway.key.as_ref()));
                let made = made.map_err(|error| {
                    let file = match roots {
                        Roots::System => Path::new("system"),
                        Roots::File(path) => path,
                    };
                    Note::error(
                        file,
                        format!("it can't be verified: {error}"),
                        "name other roots in its `tls`",
                    )
                });
                self.checked(&concern, made).map(Arc::new)
            })
            .collect()
    }
}

/// The first few, as a sentence has them.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.len() {
        0 => "nothing".to_owned(),
        1..=SHOWN => names.join(", "),
        many => format!("{} and {} more", names[..SHOWN].join(", "), many - SHOWN),
    }
}
