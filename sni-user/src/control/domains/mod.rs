//! Domains that were added by command: each alone in a file of its own, `domains.d/<SIP domain>.toml` beside the main file.
//!
//! A change is made on disk, then the agent reloads; where it refuses, the disk is put back as it was. Files that people write are never
//! rewritten: a domain that is not alone in its file is theirs to change.

mod change;

use std::{
    fmt, fs,
    future::Future,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use self::change::{Change, Undo, sync_directory};
use super::protocol::{DomainChanged, DomainTable, Refusal, RefusalKind, Reloaded};
use crate::config::{Config, HostName, InvalidValue, search};

/// Beside the main file.
const DIRECTORY: &str = "domains.d";

/// Why a domain is not added or removed. Nothing has changed, but for [`DomainError::NotPutBack`].
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// The SIP domain can't be one.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// There is a file of this domain.
    #[error(
        "{file} exists already: change it there, or remove the domain first (`snigate domain rm`)", file = file.display()
    )]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The main file does not include the domains' files.
    #[error(
        "{main} does not include {file}: write `{line}` into its [gateway] table", main = main.display(), file = file.display()
    )]
    NotIncluded {
        /// The main file.
        main: PathBuf,
        /// The file that would have been written.
        file: PathBuf,
        /// What the main file needs.
        line: String,
    },
    /// The main file can't be read.
    #[error("{main} can't be read ({reason}): correct it (`snigate check` helps)", main = main.display())]
    Main {
        /// The main file.
        main: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The domain is not alone in a file of its own.
    #[error(
        "{sip_domain} is defined at {at}, and only a domain that is alone in {file} can be removed by command: remove it there, and `snigate reload`",
        file = file.display()
    )]
    Elsewhere {
        /// The SIP domain.
        sip_domain: String,
        /// Where: file, line and column.
        at: String,
        /// Where it would have to be.
        file: PathBuf,
    },
    /// There is no such domain.
    #[error("there is no domain {sip_domain}: `snigate domain ls` shows what there is")]
    Unknown {
        /// The SIP domain.
        sip_domain: String,
    },
    /// The configuration with the change is not taken.
    #[error(transparent)]
    Refused(Refusal),
    /// The change is not taken, and the disk could not be put back.
    #[error("{refusal}; but {file} could not be put back as it was ({source}): see to it", file = file.display())]
    NotPutBack {
        /// Why the change is not taken.
        refusal: Refusal,
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A refusal of the file system.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl From<DomainError> for Refusal {
    fn from(error: DomainError) -> Self {
        let kind = match &error {
            DomainError::Refused(refusal) => return refusal.clone(),
            DomainError::Invalid(_) => RefusalKind::Malformed,
            DomainError::Exists { .. } | DomainError::Elsewhere { .. } => RefusalKind::Conflict,
            DomainError::NotIncluded { .. } | DomainError::Main { .. } => {
                RefusalKind::Configuration
            }
            DomainError::Unknown { .. } => RefusalKind::NotFound,
            DomainError::NotPutBack { .. } | DomainError::Io { .. } => RefusalKind::Failed,
        };
        let message = error.to_string();
        let findings = match error {
            DomainError::NotPutBack { refusal, .. } => refusal.findings,
            _ => None,
        };
        Self {
            findings,
            ..Self::new(kind, message)
        }
    }
}

/// Writes a domain's file and reloads. Where this is dropped before the reload has ended, the file goes again.
///
/// # Errors
/// When the domain has a file already, the main file does not include it, or the reload refuses.
pub async fn add<R>(
    main: &Path,
    domain: &DomainTable,
    reload: impl FnOnce() -> R,
) -> Result<DomainChanged, DomainError>
where
    R: Future<Output = Result<Reloaded, Refusal>>,
{
    let sip_domain: HostName = domain.sip_domain.parse()?;
    let main = absolute(main)?;
    let (name, domain) = (sip_domain.clone(), domain.clone());
    let change = off_the_runtime(move || written(&main, &name, &domain)).await?;
    conclude(sip_domain, change, reload).await
}

/// Removes a domain's file and reloads. Where this is dropped before the reload has ended, the file comes back.
///
/// # Errors
/// When the domain is not alone in its file, or the reload refuses.
pub async fn remove<R>(
    main: &Path,
    sip_domain: &str,
    reload: impl FnOnce() -> R,
) -> Result<DomainChanged, DomainError>
where
    R: Future<Output = Result<Reloaded, Refusal>>,
{
    let sip_domain: HostName = sip_domain.parse()?;
    let main = absolute(main)?;
    let name = sip_domain.clone();
    let change = off_the_runtime(move || removed(&main, &name)).await?;
    conclude(sip_domain, change, reload).await
}

/// A disk may take its time, and the runtime carries connections.
async fn off_the_runtime(
    change: impl FnOnce() -> Result<Change, DomainError> + Send + 'static,
) -> Result<Change, DomainError> {
    match tokio::task::spawn_blocking(change).await {
        Ok(outcome) => outcome,
        Err(error) => Err(DomainError::Io {
            what: "changing",
            path: DIRECTORY.into(),
            source: io::Error::other(error),
        }),
    }
}

async fn conclude<R>(
    sip_domain: HostName,
    change: Change,
    reload: impl FnOnce() -> R,
) -> Result<DomainChanged, DomainError>
where
    R: Future<Output = Result<Reloaded, Refusal>>,
{
    match reload().await {
        Ok(reloaded) => Ok(DomainChanged {
            sip_domain: sip_domain.to_string(),
            file: change.keep(),
            reloaded,
        }),
        Err(refusal) => {
            let file = change.file.clone();
            Err(match change.undo() {
                Ok(()) => DomainError::Refused(refusal),
                Err(source) => DomainError::NotPutBack {
                    refusal,
                    file,
                    source,
                },
            })
        }
    }
}

/// The whole of a domain's file.
#[derive(Serialize)]
struct Written<'a> {
    domain: [&'a DomainTable; 1],
}

fn written(main: &Path, name: &HostName, domain: &DomainTable) -> Result<Change, DomainError> {
    let file = file_of(main, name);
    let io = |what| {
        let path = file.clone();
        move |source| DomainError::Io { what, path, source }
    };
    let text = toml::to_string(&Written { domain: [domain] })
        .map_err(|error| io("writing")(io::Error::other(error)))?;
    let directory = file.parent().unwrap_or(Path::new("/"));
    let directory_made = match fs::create_dir(directory) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(io("making the directory of")(error)),
    };
    // From here on, whatever is left undone is undone.
    let mut change = Change {
        file: file.clone(),
        undo: Some(Undo::Remove {
            file: false,
            directory: directory_made,
        }),
    };
    match change::write(&file, text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(DomainError::Exists { file });
        }
        outcome => outcome.map_err(io("writing"))?,
    }
    change.undo = Some(Undo::Remove {
        file: true,
        directory: directory_made,
    });
    // After the fact, by the same search as the configuration's own.
    let include = include_of(main)?;
    if !is_included(main, &include, &file) {
        return Err(DomainError::NotIncluded {
            main: main.to_owned(),
            file,
            line: include_line(include),
        });
    }
    Ok(change)
}

fn removed(main: &Path, name: &HostName) -> Result<Change, DomainError> {
    let file = file_of(main, name);
    let io = |what| {
        let path = file.clone();
        move |source| DomainError::Io { what, path, source }
    };
    match change::read(&file) {
        Ok(Some(content)) if is_only(&content, name) => {}
        Ok(_) => return Err(not_removable(main, name, file)),
        Err(error) => return Err(io("reading")(error)),
    }
    let aside = change::set_aside(&file).map_err(io("removing"))?;
    let change = Change {
        file: file.clone(),
        undo: Some(Undo::Restore(aside)),
    };
    sync_directory(&file).map_err(io("removing"))?;
    Ok(change)
}

/// Where the domain is, if not alone in its file.
fn not_removable(main: &Path, name: &HostName, file: PathBuf) -> DomainError {
    let loaded = match Config::load(main) {
        Ok(loaded) => loaded,
        Err(found) => return DomainError::Refused(Refusal::configuration(main, &found)),
    };
    let mut domains = loaded.config.domains.iter().zip(&loaded.domains_at);
    match domains.find(|(domain, _)| domain.sip_domain == *name) {
        Some((_, at)) => DomainError::Elsewhere {
            sip_domain: name.to_string(),
            at: at.to_string(),
            file,
        },
        None => DomainError::Unknown {
            sip_domain: name.to_string(),
        },
    }
}

/// Whether it defines this domain and nothing else.
fn is_only(content: &[u8], name: &HostName) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        domain: Vec<Domain>,
    }
    #[derive(Deserialize)]
    struct Domain {
        sip_domain: String,
    }
    let Ok(File { domain }) = toml::from_slice(content) else {
        return false;
    };
    let [Domain { sip_domain }] = &domain[..] else {
        return false;
    };
    sip_domain
        .parse::<HostName>()
        .is_ok_and(|found| found == *name)
}

fn absolute(main: &Path) -> Result<PathBuf, DomainError> {
    std::path::absolute(main).map_err(|source| DomainError::Io {
        what: "finding",
        path: main.to_owned(),
        source,
    })
}

fn file_of(main: &Path, name: &HostName) -> PathBuf {
    let directory = main.parent().unwrap_or(Path::new("/"));
    directory.join(DIRECTORY).join(format!("{name}.toml"))
}

/// The patterns of a main file, whatever else is wrong with it.
fn include_of(main: &Path) -> Result<Vec<String>, DomainError> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        gateway: Gateway,
    }
    #[derive(Default, Deserialize)]
    struct Gateway {
        #[serde(default)]
        include: Vec<String>,
    }
    let unreadable = |reason: &dyn fmt::Display| DomainError::Main {
        main: main.to_owned(),
        reason: reason.to_string(),
    };
    let text = fs::read_to_string(main).map_err(|error| unreadable(&error))?;
    let file: File = toml::from_str(&text).map_err(|error| unreadable(&error.message()))?;
    Ok(file.gateway.include)
}

fn is_included(main: &Path, include: &[String], file: &Path) -> bool {
    let Some(directory) = main.parent().and_then(Path::to_str) else {
        return false;
    };
    let Ok(file) = file.canonicalize() else {
        return false;
    };
    include.iter().any(|pattern| {
        let pattern = Path::new(&glob::Pattern::escape(directory)).join(pattern);
        let Some(Ok(mut found)) = pattern.to_str().map(search) else {
            return false;
        };
        found.any(|path| path.is_ok_and(|path| path.canonicalize().is_ok_and(|path| path == file)))
    })
}

/// The line that a main file needs, with what it includes already.
fn include_line(mut include: Vec<String>) -> String {
    include.push(format!("{DIRECTORY}/*.toml"));
    format!("include = {}", toml::Value::from(include))
}

#[cfg(test)]
mod tests;
