//! What a plan has to keep to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{SipDomain, packing::Capacity, san};
use crate::config::{HostName, InvalidValue};

/// Which names may share a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// As many as it holds; the public address decides which certificate partners see.
    #[default]
    San,
    /// Those of one customer; the server name decides.
    PerCustomer,
}

/// What a plan has to keep to.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Which names may share a certificate.
    pub mode: Mode,
    /// The most bytes of the subjectAltName extension, as a whole and DER-encoded.
    pub san_bytes: usize,
    /// The most names of a certificate.
    pub names_per_certificate: usize,
    /// The Edge's own names, by which partners know the provider. Shared certificates have them all, and the first as common name.
    pub shared_names: Vec<HostName>,
    /// Whether former certificates are forgotten.
    pub repack: bool,
    /// Domains whose former certificate is forgotten.
    pub moved: BTreeSet<SipDomain>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            mode: Mode::San,
            san_bytes: Self::SAN_BYTES,
            names_per_certificate: Self::NAMES,
            shared_names: Vec::new(),
            repack: false,
            moved: BTreeSet::new(),
        }
    }
}

impl Terms {
    /// What hosters plan with.
    pub const SAN_BYTES: usize = 1024;
    /// What CAs allow at most.
    pub const NAMES: usize = 250;
    /// The longest common name (RFC 5280 appendix A.1, `ub-common-name`).
    pub const COMMON_NAME: usize = 64;

    /// Names that every certificate has. A customer's own has none: there the Edge keeps a certificate of its own.
    pub(super) fn names_in_all(&self) -> &[HostName] {
        match self.mode {
            Mode::San => &self.shared_names,
            Mode::PerCustomer => &[],
        }
    }

    /// What is left for the domains.
    pub(super) fn capacity(&self) -> Result<Capacity, InvalidValue> {
        let in_all = self.names_in_all();
        let shared: usize = in_all.iter().map(san::name_bytes).sum();
        let room = san::room(self.san_bytes).and_then(|room| room.checked_sub(shared));
        let names = self.names_per_certificate.checked_sub(in_all.len());
        match (room, names) {
            (Some(bytes @ 1..), Some(names @ 1..)) => Ok(Capacity { bytes, names }),
            _ => Err(InvalidValue::new(
                format!(
                    "a certificate with {} bytes of alternative names and {} names has no room for a domain beside the names that all have",
                    self.san_bytes, self.names_per_certificate
                ),
                "write a higher --san-bytes or --names-per-certificate, or fewer --name",
            )),
        }
    }
}
