//! Which certificates a configuration asks the authority for.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use crate::{
    config::{Challenge, Config, DomainAcme, HostName, KeyType, ServerName},
    tls::Facts,
};

/// A certificate that the authority is to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The SIP domain, which its files are called after.
    pub(crate) sip_domain: HostName,
    /// What it must be for, each once.
    pub(crate) names: Vec<ServerName>,
    /// How they are proven.
    pub(crate) challenge: Challenge,
    /// What key it is for.
    pub(crate) key_type: KeyType,
    /// Where it lies with its key.
    pub(crate) file: PathBuf,
}

impl Wanted {
    /// The names, as orders have them.
    pub(super) fn identifiers(&self) -> Vec<String> {
        self.names.iter().map(ToString::to_string).collect()
    }

    /// The certificate that is there, if it is for all names.
    pub(super) fn there(&self) -> Option<Facts> {
        let facts = facts(&self.file)?;
        self.names
            .iter()
            .all(|name| facts.covers(name))
            .then_some(facts)
    }
}

/// What a PEM file's first certificate says.
fn facts(file: &Path) -> Option<Facts> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let der = CertificateDer::from_pem_file(file).ok()?;
    Facts::of(&der).ok()
}

/// Every certificate that the configuration asks for, in its order. Tables of one SIP domain, told apart by `alpn`, share one.
pub(crate) fn wanted(config: &Config) -> Vec<Wanted> {
    let mut places: HashMap<&HostName, usize> = HashMap::new();
    let mut found: Vec<Wanted> = Vec::new();
    for domain in &config.domains {
        let Some(termination) = &domain.terminate else {
            continue;
        };
        let Some(DomainAcme {
            challenge,
            key_type,
        }) = termination.acme
        else {
            continue;
        };
        let place = *places.entry(&domain.sip_domain).or_insert_with(|| {
            found.push(Wanted {
                sip_domain: domain.sip_domain.clone(),
                names: Vec::new(),
                challenge,
                key_type,
                file: termination.certificate.clone(),
            });
            found.len() - 1
        });
        for name in &domain.names {
            if !found[place].names.contains(name) {
                found[place].names.push(name.clone());
            }
        }
    }
    found
}
