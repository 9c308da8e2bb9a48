//! What an earlier plan has decided: kept in a file, so that a later one moves nothing.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{Certificate, Mode, Plan};
use crate::config::Name;

/// A plan as it is kept. Names are as in the certificates; who edits them by hand gets mistakes reported by the next plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Former {
    /// Of this format.
    version: u32,
    /// By which rule certificates were made.
    pub(super) mode: Mode,
    /// In the order of their slots.
    pub(super) certificates: Vec<FormerCertificate>,
}

/// A certificate of an earlier plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FormerCertificate {
    #[serde(deserialize_with = "name")]
    pub(super) name: Name,
    /// Which of the public addresses and Edges are its own, from 0.
    pub(super) slot: usize,
    pub(super) common_name: String,
    /// Names that are in every certificate, as they were.
    pub(super) names: Vec<String>,
    /// Its SIP domains.
    pub(super) domains: Vec<String>,
}

/// Why a former plan can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FormerError {
    /// It is no such file.
    #[error("it is not what `snigate plan --state` writes: {0}")]
    Format(#[from] serde_json::Error),
    /// Another version of the format.
    #[error(
        "it has version {found} of the format, and this snigate knows version {}: plan with the snigate that wrote it",
        Former::VERSION
    )]
    Version {
        /// Which.
        found: u32,
    },
}

impl Former {
    const VERSION: u32 = 1;

    /// Reads what [`Former::text`] has written.
    ///
    /// # Errors
    /// It was something else.
    pub fn parse(text: &str) -> Result<Self, FormerError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version != Self::VERSION {
            return Err(FormerError::Version { found: version });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// What is kept of a plan.
    pub fn of(plan: &Plan) -> Self {
        let certificate = |it: &Certificate| FormerCertificate {
            name: it.name.clone(),
            slot: it.slot,
            common_name: it.common_name.to_string(),
            names: it.shared_names.iter().map(ToString::to_string).collect(),
            domains: it.domains.iter().map(ToString::to_string).collect(),
        };
        Self {
            version: Self::VERSION,
            mode: plan.mode,
            certificates: plan.certificates.iter().map(certificate).collect(),
        }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("text and numbers");
        text.push('\n');
        text
    }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}
