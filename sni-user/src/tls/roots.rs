//! Who may have signed what peers show.

use std::path::Path;

use rustls::{RootCertStore, pki_types::CertificateDer};

use super::{
    files::{File, Files, Fingerprint, fingerprint},
    finding::Note,
};
use crate::config::Roots;

/// The trust anchors that a configuration or a command names.
///
/// # Errors
/// In words: the file can't be used, or the system has none.
pub fn trusted(roots: &Roots) -> Result<RootCertStore, String> {
    let read = || match roots {
        Roots::System => system().map(|(roots, _)| roots),
        Roots::File(path) => from_file(&*Files::default().read(path, "the file of roots")?),
    };
    read().map_err(|note: Note| note.sentence())
}

/// The trust anchors of the operating system.
pub(super) fn system() -> Result<(RootCertStore, Fingerprint), Note> {
    // As in the configuration, and where they are on the systems that snigate is made for.
    let place = Path::new("system");
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some of the system's may be too old to be understood; that is not for the gateway to judge.
    let (added, _) = roots.add_parsable_certificates(found.certs.iter().cloned());
    if added == 0 {
        let reason = found
            .errors
            .first()
            .map_or_else(String::new, |error| format!(" ({error})"));
        return Err(Note::error(
            place,
            format!("the system has no root certificates{reason}"),
            "install the package ca-certificates, or name a file of roots in the configuration",
        ));
    }
    let fingerprint = fingerprint(found.certs.iter().map(|der| der.as_ref()));
    Ok((roots, fingerprint))
}

/// Those of a PEM file: all must be understood, because a root that is left out refuses peers without a reason that anybody would find.
pub(super) fn from_file(file: &File) -> Result<RootCertStore, Note> {
    let mut roots = RootCertStore::empty();
    for (place, der) in (1..).zip(file.certificates()?) {
        add(&mut roots, der).map_err(|reason| {
            Note::error(
                &file.path,
                format!("certificate {place} of the file can't be used as a root: {reason}"),
                "take it out, or replace it by the authority's certificate",
            )
        })?;
    }
    Ok(roots)
}

fn add(roots: &mut RootCertStore, der: CertificateDer<'static>) -> Result<(), String> {
    roots.add(der).map_err(|error| error.to_string())
}
