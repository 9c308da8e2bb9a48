//! The private CA behind mirrored identities.

use std::path::PathBuf;

use serde::Serialize;

use super::cert::CertLine;

/// What `ca show` shows.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct Ca {
    pub(in crate::cli) certificate: CertLine,
    pub(in crate::cli) key_file: PathBuf,
    pub(in crate::cli) crl_url: Option<String>,
    /// SIP domains whose partners are mirrored.
    pub(in crate::cli) domains: Vec<String>,
}

impl Ca {
    /// Whether it can't be used.
    pub(in crate::cli) fn is_broken(&self) -> bool {
        self.certificate.is_broken()
    }

    /// Each with what it is.
    pub(in crate::cli) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = self.certificate.facts();
        lines.push(("key file", self.key_file.display().to_string()));
        let url = self.crl_url.as_deref().unwrap_or("none");
        lines.push(("CRL", url.to_owned()));
        let domains = match self.domains.as_slice() {
            [] => "no domain".to_owned(),
            domains => domains.join(" "),
        };
        lines.push(("mirrors for", domains));
        lines
    }
}
