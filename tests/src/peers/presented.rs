//! What a client's printed output says about the server's certificate.

use anyhow::{Context as _, Result};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

/// The first certificate in a text, which is the server's own.
#[derive(Clone, Debug)]
pub(super) struct Presented {
    pub(super) subject: String,
    /// Its DNS names.
    pub(super) names: Vec<String>,
}

impl Presented {
    pub(super) fn find(output: &str) -> Result<Self> {
        let pem = Pem::iter_from_buffer(output.as_bytes())
            .next()
            .context("no certificate from the server")??;
        let certificate = pem.parse_x509().context("the server's certificate")?;
        let names = match certificate.subject_alternative_name()? {
            None => Vec::new(),
            Some(extension) => extension
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                })
                .collect(),
        };
        Ok(Self {
            subject: certificate.subject().to_string(),
            names,
        })
    }
}
