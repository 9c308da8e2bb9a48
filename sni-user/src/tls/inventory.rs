//! Every certificate that a configuration names, whether or not it can be used.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{certificate::Facts, chain::Served, files::Files, finding::Note};
use crate::config::{Config, MirrorCa};

/// A certificate of the configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// What it is for.
    pub purpose: Purpose,
    /// The SIP domains it is for, in the configuration's order.
    pub domains: Vec<String>,
    /// The file with it and its chain.
    pub file: PathBuf,
    /// `None` where it can't be read.
    #[serde(flatten)]
    pub facts: Option<Facts>,
    /// Why it can't be used; also where its facts can be read.
    pub problem: Option<String>,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Shown to partners.
    Domain,
    /// Shown to Edges.
    Gateway,
    /// Signs what mirrors partners.
    MirrorCa,
}

impl Purpose {
    /// As it is serialized.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Gateway => "gateway",
            Self::MirrorCa => "mirror-ca",
        }
    }
}

/// Reads every certificate: those of domains first, each once however many domains share it.
pub fn inventory(config: &Config) -> Vec<Kept> {
    let mut files = Files::default();
    let mut places: BTreeMap<(&Path, &Path), usize> = BTreeMap::new();
    let mut found: Vec<Kept> = Vec::new();
    for domain in &config.domains {
        let Some(termination) = &domain.terminate else {
            continue;
        };
        let pair = (&*termination.certificate, &*termination.key);
        let place = *places.entry(pair).or_insert_with(|| {
            found.push(read(&mut files, Purpose::Domain, pair.0, pair.1));
            found.len() - 1
        });
        found[place].domains.push(domain.sip_domain.to_string());
    }
    if let Some(gateway) = &config.identity.gateway {
        let purpose = Purpose::Gateway;
        found.push(read(
            &mut files,
            purpose,
            &gateway.certificate,
            &gateway.key,
        ));
    }
    found.extend(config.identity.mirror.as_ref().map(mirror_ca));
    found
}

/// Reads the certificate of the private CA.
pub fn mirror_ca(ca: &MirrorCa) -> Kept {
    let mut files = Files::default();
    read(&mut files, Purpose::MirrorCa, &ca.certificate, &ca.key)
}

fn read(files: &mut Files, purpose: Purpose, chain: &Path, key: &Path) -> Kept {
    let (facts, problem) = match facts(files, chain, key) {
        Ok(found) => found,
        Err(note) => (None, Some(note.sentence())),
    };
    Kept {
        purpose,
        domains: Vec::new(),
        file: chain.to_owned(),
        facts,
        problem,
    }
}

/// The facts, and what is wrong with it all the same.
fn facts(
    files: &mut Files,
    chain: &Path,
    key: &Path,
) -> Result<(Option<Facts>, Option<String>), Note> {
    let chain = files.read(chain, "the certificate")?;
    // The first is the one that is meant, unless the key says otherwise.
    let first = chain.certificates()?.into_iter().next();
    let first = first.and_then(|der| Facts::of(&der).ok());
    let key = match files.read(key, "the private key") {
        Ok(key) => key,
        Err(note) => return Ok((first, Some(note.sentence()))),
    };
    Ok(match Served::read(&chain, &key) {
        Ok(served) => (Some(served.facts), None),
        Err(notes) => {
            let error = notes.into_iter().find(Note::is_error);
            (first, error.map(|note| note.sentence()))
        }
    })
}
