//! `[acme]`

use std::{path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::edge::roots;
use crate::config::{
    decode::{Decode, Directory, Input, List, Located, Section},
    diagnostics::{Diagnostic, Report},
    location::Location,
    model::{Acme, DomainAcme, Roots},
    values::{Challenge, KeyType},
    wording::quoted,
};

/// The shortest certificates that authorities give out are for six days.
const RENEW_BEFORE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3600)..=Duration::from_secs(365 * 86_400);

pub(in crate::config) struct AcmeDraft {
    pub(in crate::config) at: Location,
    pub(in crate::config) challenge: Challenge,
    pub(in crate::config) has_dns_hook: bool,
    directory: Option<Located<String>>,
    contact: Option<List<String>>,
    account_key: Option<PathBuf>,
    state: PathBuf,
    tokens: Option<PathBuf>,
    roots: Roots,
    key_type: KeyType,
    dns_hook: Option<PathBuf>,
    http_hook: Option<PathBuf>,
    renew_before: Option<Duration>,
}

impl AcmeDraft {
    pub(super) fn read(mut section: Section<'_>, directory: &Directory) -> Self {
        let report = section.report();
        let url = section.required::<String>(
            "directory",
            "\"https://acme-v02.api.letsencrypt.org/directory\"",
        );
        check_directory(url.as_ref(), report);
        let contact = section.list::<String>("contact");
        check_contact(contact.as_ref(), report);
        let draft = Self {
            at: section.at().clone(),
            directory: url,
            contact,
            account_key: section.path("account_key", directory),
            state: section
                .path("state", directory)
                .unwrap_or_else(|| Acme::DEFAULT_STATE.into()),
            tokens: section.path("tokens", directory),
            roots: roots(&mut section, "roots", directory).unwrap_or(Roots::System),
            challenge: section.value("challenge").unwrap_or(Challenge::Http01),
            key_type: section.value("key_type").unwrap_or(KeyType::Rsa2048),
            has_dns_hook: section.has("dns_hook"),
            dns_hook: section.path("dns_hook", directory),
            http_hook: section.path("http_hook", directory),
            renew_before: section.duration("renew_before", RENEW_BEFORE, ""),
        };
        section.finish();
        draft
    }

    pub(super) fn build(self) -> Option<Acme> {
        let state = self.state;
        Some(Acme {
            directory: self.directory?.value,
            contact: self.contact.map(List::values).unwrap_or_default(),
            account_key: self
                .account_key
                .unwrap_or_else(|| state.join("account.key")),
            tokens: self.tokens.unwrap_or_else(|| state.join("tokens")),
            state,
            roots: self.roots,
            challenge: self.challenge,
            key_type: self.key_type,
            dns_hook: self.dns_hook,
            http_hook: self.http_hook,
            renew_before: self.renew_before,
        })
    }
}

/// The account's signatures protect requests, and nothing protects answers but TLS (RFC 8555 section 6.1).
fn check_directory(url: Option<&Located<String>>, report: &Report) {
    if let Some(Located { value, at }) = url
        && !url::Url::parse(value).is_ok_and(|url| url.scheme() == "https" && url.has_host())
    {
        let message = format!("`directory`: {} is not an https URL", quoted(value));
        report.push(
            Diagnostic::error(at.clone(), message)
                .help("write the URL of the authority's directory, such as \"https://acme-v02.api.letsencrypt.org/directory\""),
        );
    }
}

fn check_contact(contact: Option<&List<String>>, report: &Report) {
    for Located { value, at } in contact.iter().flat_map(|list| &list.items) {
        if url::Url::parse(value).is_err() {
            let message = format!("`contact`: {} is not a URL", quoted(value));
            let help = match value.contains('@') {
                true => format!("write {}", quoted(&format!("mailto:{value}"))),
                false => "write such as \"mailto:certificates@hoster.example\"".to_owned(),
            };
            report.push(Diagnostic::error(at.clone(), message).help(help));
        }
    }
}

/// `acme` of a `[[domain]]`: whether, and what is otherwise than [acme] has it.
pub(in crate::config) struct DomainAcmeDraft {
    pub(in crate::config) challenge: Option<Challenge>,
    key_type: Option<KeyType>,
}

impl DomainAcmeDraft {
    pub(super) fn build(self, acme: &Acme) -> DomainAcme {
        DomainAcme {
            challenge: self.challenge.unwrap_or(acme.challenge),
            key_type: self.key_type.unwrap_or(acme.key_type),
        }
    }

    pub(in crate::config) fn is_as(&self, other: &Self) -> bool {
        self.challenge == other.challenge && self.key_type == other.key_type
    }
}

/// `acme = false` is as if it were not written.
pub(super) struct Wish(pub(super) Option<DomainAcmeDraft>);

impl Decode for Wish {
    fn decode(input: &Input<'_>) -> Option<Self> {
        match input.value {
            DeValue::Boolean(wanted) => Some(Self(wanted.then_some(DomainAcmeDraft {
                challenge: None,
                key_type: None,
            }))),
            DeValue::Table(_) => {
                let mut section = Section::of("`acme` of [[domain]]", input)?;
                let draft = DomainAcmeDraft {
                    challenge: section.value("challenge"),
                    key_type: section.value("key_type"),
                };
                section.finish();
                Some(Self(Some(draft)))
            }
            _ => {
                input.mismatch(
                    "true or a table",
                    "write `acme = true`, or `acme = { challenge = \"dns-01\" }`",
                );
                None
            }
        }
    }
}
