//! What outlives the process, in the state directory:
//!
//! | path | what |
//! | --- | --- |
//! | `account.key` | the account's private key |
//! | `certs/<SIP domain>.pem` | a certificate with its chain and its key |
//! | `domains/<SIP domain>.json` | its open order, and when to try again |
//! | `domains/<SIP domain>.key` | the key of the open order |
//! | `domains/<SIP domain>.lock` | held while somebody works on it |
//! | `tokens/<token>` | what port 80 answers |
//!
//! Everything is written as a new file and renamed: a reader sees all of it or nothing, and so does whoever comes after a power cut.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{AcmeError, challenge::Published, error::Kind};
use crate::config::{Acme, HostName, KeyType};

/// Read and written by the owner alone.
pub(super) const SECRET: u32 = 0o600;
/// Tokens are told to whoever asks.
pub(super) const PUBLIC: u32 = 0o644;

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    state: PathBuf,
    tokens: PathBuf,
}

/// What is known of a domain besides its certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The order that is open.
    #[serde(default)]
    pub(super) order: Option<OpenOrder>,
    /// Failed attempts in a row, for one kind of reason.
    #[serde(default)]
    pub(super) failures: u32,
    #[serde(default)]
    pub(super) kind: Option<Kind>,
    /// Why the last one has failed.
    #[serde(default)]
    pub(super) error: Option<String>,
    /// No attempt before this second since 1970.
    #[serde(default)]
    pub(super) not_before: u64,
    /// The URL of the order that the certificate came by.
    #[serde(default)]
    pub(super) issued_by: Option<String>,
}

/// An order that is not fulfilled yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OpenOrder {
    pub(super) directory: String,
    pub(super) url: String,
    pub(super) names: Vec<String>,
    pub(super) key_type: String,
    /// What is to be withdrawn at its end.
    #[serde(default)]
    pub(super) published: Vec<Published>,
}

/// Held while a domain's certificate is worked on; by one process, on one gateway.
pub(super) struct Lock(#[expect(dead_code, reason = "closing it releases the lock")] File);

impl Store {
    pub(crate) fn new(acme: &Acme) -> Self {
        Self {
            state: acme.state.clone(),
            tokens: acme.tokens.clone(),
        }
    }

    /// Makes the directories that are not there.
    pub(crate) fn prepare(&self) -> Result<(), AcmeError> {
        let own = ["certs", "domains"].map(|name| (self.state.join(name), 0o700));
        let all = own.into_iter().chain([(self.tokens.clone(), 0o755)]);
        for (directory, mode) in all {
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&directory)
                .map_err(AcmeError::file("making the directory", &directory))?;
        }
        Ok(())
    }

    /// Of a domain; `None` where somebody else works on it.
    pub(super) fn lock(&self, domain: &HostName) -> Result<Option<Lock>, AcmeError> {
        let path = self.of(domain, "lock");
        let failed = |error| AcmeError::file("locking", &path)(error);
        let mut options = OpenOptions::new();
        let options = options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(SECRET);
        let file = options.open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(AcmeError::file("locking", &path)(error.into())),
        }
    }

    /// What is known of a domain; nothing of one that is new.
    pub(super) fn record(&self, domain: &HostName) -> Result<Record, AcmeError> {
        let path = self.of(domain, "json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| AcmeError::file("reading", &path)(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(AcmeError::file("reading", &path)(error)),
        }
    }

    pub(super) fn keep(&self, domain: &HostName, record: &Record) -> Result<(), AcmeError> {
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| AcmeError::Local(error.to_string()))?;
        write(&self.of(domain, "json"), &text, SECRET)
    }

    /// The key of the open order, PEM.
    pub(super) fn order_key(&self, domain: &HostName) -> Result<String, AcmeError> {
        let path = self.of(domain, "key");
        fs::read_to_string(&path).map_err(AcmeError::file("reading", &path))
    }

    pub(super) fn keep_order_key(&self, domain: &HostName, pem: &str) -> Result<(), AcmeError> {
        write(&self.of(domain, "key"), pem.as_bytes(), SECRET)
    }

    pub(super) fn forget_order_key(&self, domain: &HostName) -> Result<(), AcmeError> {
        remove(&self.of(domain, "key"))
    }

    /// The file of a token. It is one: `challenge` has seen to that.
    pub(super) fn token(&self, token: &str) -> PathBuf {
        self.tokens.join(token)
    }

    fn of(&self, domain: &HostName, kind: &str) -> PathBuf {
        self.state.join("domains").join(format!("{domain}.{kind}"))
    }
}

impl OpenOrder {
    /// Whether it is for this.
    pub(super) fn is_for(&self, directory: &str, names: &[String], key_type: KeyType) -> bool {
        self.directory == directory && self.names == names && self.key_type == key_type.to_string()
    }
}

/// Puts a file in the place of the one before.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AcmeError> {
    try_write(path, bytes, mode, true).map_err(AcmeError::file("writing", path))
}

/// Makes a file; `false` where there is one.
pub(super) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, AcmeError> {
    match try_write(path, bytes, mode, false) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(AcmeError::file("creating", path)(error)),
    }
}

fn try_write(path: &Path, bytes: &[u8], mode: u32, replace: bool) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".snigate-")
        .permissions(fs::Permissions::from_mode(SECRET))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    if replace {
        file.persist(path)?;
    } else {
        file.persist_noclobber(path)?;
    }
    File::open(directory)?.sync_all()
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), AcmeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(AcmeError::file("removing", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let place = tempfile::tempdir().expect("a directory");
        let store = Store {
            state: place.path().to_owned(),
            tokens: place.path().join("tokens"),
        };
        store.prepare().expect("directories");
        (place, store)
    }

    #[test]
    fn what_is_kept_comes_back() {
        let (place, store) = store();
        let domain: HostName = "fabrikam.example".parse().unwrap();
        assert_eq!(store.record(&domain).unwrap(), Record::default());
        let record = Record {
            failures: 3,
            error: Some("no".to_owned()),
            not_before: 17,
            ..Record::default()
        };
        store.keep(&domain, &record).unwrap();
        assert_eq!(store.record(&domain).unwrap(), record);
        let file = place.path().join("domains/fabrikam.example.json");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, SECRET);
        fs::write(&file, "{").unwrap();
        let error = store.record(&domain).unwrap_err().to_string();
        assert!(error.contains("fabrikam.example.json"), "{error}");
    }

    #[test]
    fn one_at_a_time() {
        let (_place, store) = store();
        let domain: HostName = "fabrikam.example".parse().unwrap();
        let held = store.lock(&domain).unwrap().expect("nobody has it");
        assert!(store.lock(&domain).unwrap().is_none());
        drop(held);
        assert!(store.lock(&domain).unwrap().is_some());
    }

    #[test]
    fn a_key_that_is_there_is_not_replaced() {
        let (place, _store) = store();
        let file = place.path().join("account.key");
        assert!(create(&file, b"1", SECRET).unwrap());
        assert!(!create(&file, b"2", SECRET).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"1");
        write(&file, b"3", SECRET).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"3");
        let left = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(left, 4, "no temporary file");
    }
}
