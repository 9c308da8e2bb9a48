//! Domains: their names, where they go, and where they are defined.

use serde::Serialize;

use crate::{
    cli::table::{Column, Row},
    config::{Domain, Location},
};

/// A line of `domain ls`.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct DomainLine<'a> {
    #[serde(flatten)]
    domain: &'a Domain,
    file: String,
    line: Option<usize>,
}

impl<'a> DomainLine<'a> {
    pub(in crate::cli) fn new(domain: &'a Domain, at: &Location) -> Self {
        Self {
            domain,
            file: at.path().display().to_string(),
            line: at.line(),
        }
    }
}

impl Row for DomainLine<'_> {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("SIP DOMAIN"),
        Column::wrapping("NAMES"),
        Column::wrapping("POOL"),
        Column::left("TLS"),
        Column::wrapping("DEFINED AT").spare(1),
    ];

    fn cells(&self) -> Vec<String> {
        let domain = self.domain;
        let mut names: Vec<_> = domain.names.iter().map(ToString::to_string).collect();
        if !domain.alpn.is_empty() {
            let protocols: Vec<_> = domain.alpn.iter().map(AsRef::as_ref).collect();
            names.push(format!("(with {})", protocols.join(" or ")));
        }
        let tls = match &domain.terminate {
            Some(_) => "terminated",
            None => "passed",
        };
        vec![
            domain.sip_domain.to_string(),
            names.join(" "),
            domain.pool.name().to_string(),
            tls.into(),
            match self.line {
                Some(line) => format!("{}:{line}", self.file),
                None => self.file.clone(),
            },
        ]
    }
}
