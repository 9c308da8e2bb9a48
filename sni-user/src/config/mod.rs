//! The configuration: read from TOML, checked as a whole, and handed on with every reference resolved.
//!
//! [`Config::load`] reports everything that is wrong at once, each finding with its file, line and column, in one sentence, and
//! with what to write instead. Files that the configuration only names, such as certificates, are not opened here.
//!
//! The way: `include` reads the files, `tables` decode each table by itself with what `decode` offers, `validate` compares the
//! tables with each other, and what is left without an error becomes the [`Config`] of `model`.

mod decode;
mod diagnostics;
mod include;
#[cfg(test)]
mod invariants;
mod location;
mod model;
mod render;
mod scalars;
mod tables;
mod validate;
mod values;
mod wording;

use std::path::{Path, PathBuf};

pub use ipnet::IpNet;

use self::include::Reader;
pub(crate) use self::include::search;
pub use self::{
    diagnostics::{Diagnostic, Diagnostics, Severity},
    location::Location,
    model::{
        Acme, Config, Domain, DomainAcme, Edge, EdgeRef, EdgeTls, Gateway, GatewayCertificate,
        Health, Identity, IpSet, Limits, Member, MirrorCa, Mode, Pool, PoolRef, Roots, Termination,
    },
    values::{
        AlpnProtocol, Balance, Challenge, ClientCertificate, Hook, HostName, IdentityMode,
        InvalidValue, KeyType, Name, Rate, ServerName, SourceMode,
    },
};

pub(crate) use self::{
    diagnostics::Report,
    location::Source,
    model::maglev_identity,
    wording::{list_of, nearest, quoted},
};

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed but probably not meant; there are no errors among them.
    pub warnings: Diagnostics,
    /// The files that it was read from, the main file first.
    pub files: Vec<PathBuf>,
    /// Directories in which a further file would be included.
    pub directories: Vec<PathBuf>,
    /// Where each of its domains is defined, in their order.
    pub domains_at: Vec<Location>,
}

impl Config {
    /// Where the configuration is unless something else is said.
    pub const DEFAULT_PATH: &str = "/etc/snigate/snigate.toml";

    /// Reads a configuration file and the files it includes.
    ///
    /// # Errors
    /// Everything that is wrong with it, warnings among it, if there is at least one error.
    pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
        conclude(Reader::default(), |reader| reader.read_file(path))
    }

    /// Checks a text as if it were in the file `path`; the files it includes are read.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Loaded, Diagnostics> {
        conclude(Reader::default(), |reader| reader.read_text(path, text))
    }
}

fn conclude(mut reader: Reader, read: impl FnOnce(&mut Reader)) -> Result<Loaded, Diagnostics> {
    read(&mut reader);
    let Reader {
        draft,
        files,
        directories,
        report,
    } = reader;
    validate::check(&draft, files.first(), &report);
    let found = report.into_diagnostics();
    if found.errors().next().is_some() {
        return Err(found);
    }
    let domains_at = draft
        .domains
        .iter()
        .map(|domain| domain.at.clone())
        .collect();
    let config = draft
        .build()
        .expect("what cannot be built has been reported as an error");
    let files = files.iter().map(|file| file.path.clone()).collect();
    Ok(Loaded {
        config,
        warnings: found,
        files,
        directories,
        domains_at,
    })
}
