//! Reading the files, each once, and remembering them so that they can be watched.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use super::finding::Note;

/// What identifies the content of a file, or of several things together.
pub(super) type Fingerprint = [u8; 32];

/// The SHA-256 of parts, each with its length before it so that no two lists of parts look alike.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Fingerprint {
    let mut context = aws_lc_rs::digest::Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut found = Fingerprint::default();
    found.copy_from_slice(context.finish().as_ref());
    found
}

/// A file's content.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) fingerprint: Fingerprint,
    /// Permission bits.
    mode: u32,
}

/// The files of a configuration.
#[derive(Default)]
pub(super) struct Files {
    read: BTreeMap<PathBuf, Result<Option<Arc<File>>, Note>>,
}

impl Files {
    /// A file that must be there.
    pub(super) fn read(&mut self, path: &Path, what: &str) -> Result<Arc<File>, Note> {
        match self.read_if_there(path)? {
            Some(file) => Ok(file),
            None => Err(Note::error(
                path,
                format!("{what} is not there"),
                "put the file there, or correct its name in the configuration",
            )),
        }
    }

    /// A file that may be missing, and is watched for all the same.
    pub(super) fn read_if_there(&mut self, path: &Path) -> Result<Option<Arc<File>>, Note> {
        if let Some(read) = self.read.get(path) {
            return read.clone();
        }
        let read = match open(path) {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Note::error(
                path,
                format!("the file can't be read: {error}"),
                "let the user that snigate runs as read it",
            )),
        };
        self.read.insert(path.to_owned(), read.clone());
        read
    }

    /// Every file that was asked for, those that are missing too.
    pub(super) fn into_paths(self) -> Vec<PathBuf> {
        self.read.into_keys().collect()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mode = fs::metadata(path)?.mode();
    let bytes = fs::read(path)?;
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    Ok(File {
        path: path.to_owned(),
        bytes,
        fingerprint,
        mode,
    })
}

impl File {
    /// The certificates of a PEM file, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Note> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match found {
            Ok(found) if found.is_empty() => Err(Note::error(
                &self.path,
                "there is no certificate in the file",
                "it must be PEM, with \"-----BEGIN CERTIFICATE-----\"; `openssl x509 -inform DER` turns DER into it",
            )),
            Ok(found) => Ok(found),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// The private key of a PEM file.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, Note> {
        match PrivateKeyDer::from_pem_slice(&self.bytes) {
            Ok(key) => Ok(key),
            Err(pem::Error::NoItemsFound) => {
                // The label of an encrypted PKCS#8 key is none that can be read without its passphrase.
                let encrypted = self.holds(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
                    || self.holds(b"Proc-Type: 4,ENCRYPTED");
                let (message, help) = if encrypted {
                    (
                        "the key is encrypted, and nobody is there to enter its passphrase",
                        "decrypt it with `openssl pkey`, into a file of mode 0600",
                    )
                } else {
                    (
                        "there is no private key in the file",
                        "it must be PEM, with \"-----BEGIN PRIVATE KEY-----\"",
                    )
                };
                Err(Note::error(&self.path, message, help))
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// The revocation lists of a PEM or DER file, at least one.
    pub(super) fn revocation_lists(
        &self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, Note> {
        let found: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&self.bytes).collect();
        match found {
            // Authorities publish them as DER.
            Ok(found) if found.is_empty() && self.bytes.first() == Some(&0x30) => {
                Ok(vec![self.bytes.clone().into()])
            }
            Ok(found) if found.is_empty() => Err(Note::error(
                &self.path,
                "there is no revocation list in the file",
                "it must be DER, or PEM with \"-----BEGIN X509 CRL-----\"",
            )),
            Ok(found) => Ok(found),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// A warning where others than the owner may read a private key.
    pub(super) fn permissions(&self) -> Option<Note> {
        (self.mode & 0o077 != 0).then(|| {
            Note::warning(
                &self.path,
                format!(
                    "the private key is open to others than its owner (mode {:04o})",
                    self.mode & 0o7777
                ),
                format!("`chmod 600 {}`", self.path.display()),
            )
        })
    }

    fn holds(&self, label: &[u8]) -> bool {
        self.bytes
            .windows(label.len())
            .any(|window| window == label)
    }

    fn broken(&self, error: &pem::Error) -> Note {
        let message = match error {
            pem::Error::MissingSectionEnd { .. } => "a PEM section has no end".to_owned(),
            pem::Error::Base64Decode(_) => "a PEM section is not base64".to_owned(),
            // Not in the library's words, which quote the line: it may be one of a key.
            _ => "a PEM section begins wrongly".to_owned(),
        };
        Note::error(
            &self.path,
            message,
            "copy the file again from where it came",
        )
    }
}
