//! `[[domain]]`

use std::path::PathBuf;

use super::{
    acme::{DomainAcmeDraft, Wish},
    edge::roots,
};
use crate::config::{
    decode::{Directory, List, Located, Section},
    diagnostics::Diagnostic,
    location::Location,
    model::{Acme, Domain, PoolRef, Roots, Termination},
    values::{AlpnProtocol, ClientCertificate, HostName, IdentityMode, ServerName},
};

pub(in crate::config) struct DomainDraft {
    pub(in crate::config) at: Location,
    pub(in crate::config) sip_domain: Option<Located<HostName>>,
    /// Written ones, or the default name at the place of the SIP domain.
    pub(in crate::config) names: Vec<Located<ServerName>>,
    pub(in crate::config) alpn: Option<List<AlpnProtocol>>,
    pub(in crate::config) pool: Option<Located<String>>,
    pub(in crate::config) terminate: Option<TerminationDraft>,
}

pub(in crate::config) struct TerminationDraft {
    pub(in crate::config) acme: Option<Located<DomainAcmeDraft>>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    pub(in crate::config) identity: Option<Located<IdentityMode>>,
    client_certificate: ClientCertificate,
    client_roots: Roots,
    client_crls: Vec<PathBuf>,
}

impl DomainDraft {
    pub(super) fn read(mut section: Section<'_>, directory: &Directory) -> Self {
        let sip_domain = section.required::<HostName>("sip_domain", "\"fabrikam.example\"");
        let names = section.non_empty_list::<ServerName>("names", "[\"sip.fabrikam.example\"]");
        let draft = Self {
            at: section.at().clone(),
            names: names_of(&section, sip_domain.as_ref(), names),
            alpn: section.non_empty_list("alpn", "[\"sip\"]"),
            pool: section.required("pool", "\"edges-a\""),
            terminate: termination(&mut section, directory),
            sip_domain,
        };
        section.finish();
        draft
    }

    pub(super) fn build(
        self,
        pool: impl Fn(&str) -> Option<PoolRef>,
        acme: Option<&Acme>,
    ) -> Option<Domain> {
        let sip_domain = self.sip_domain?.value;
        Some(Domain {
            names: self.names.into_iter().map(|name| name.value).collect(),
            alpn: self.alpn.map(List::values).unwrap_or_default(),
            pool: pool(&self.pool?.value)?,
            terminate: match self.terminate {
                Some(draft) => Some(draft.build(&sip_domain, acme)?),
                None => None,
            },
            sip_domain,
        })
    }
}

impl TerminationDraft {
    fn build(self, sip_domain: &HostName, acme: Option<&Acme>) -> Option<Termination> {
        let (certificate, key, acme) = match self.acme {
            Some(draft) => {
                let acme = acme?;
                let file = acme.certificate_file(sip_domain);
                (file.clone(), file, Some(draft.value.build(acme)))
            }
            None => (self.certificate?, self.key?, None),
        };
        Some(Termination {
            certificate,
            key,
            acme,
            client_certificate: self.client_certificate,
            client_roots: self.client_roots,
            client_crls: self.client_crls,
            identity: self
                .identity
                .map_or(IdentityMode::Anonymous, |identity| identity.value),
        })
    }
}

/// Partners look for `sip.<sipdomain>` unless the domain has other names.
fn names_of(
    section: &Section<'_>,
    sip_domain: Option<&Located<HostName>>,
    written: Option<List<ServerName>>,
) -> Vec<Located<ServerName>> {
    if section.has("names") {
        return written.map(|list| list.items).unwrap_or_default();
    }
    let Some(Located { value, at }) = sip_domain else {
        return Vec::new();
    };
    match value.child("sip") {
        Ok(host) => vec![Located {
            value: ServerName::Exact(host),
            at: at.clone(),
        }],
        Err(invalid) => {
            section.report().push(
                Diagnostic::error(at.clone(), invalid.message)
                    .help("name the server names in `names`"),
            );
            Vec::new()
        }
    }
}

fn termination(section: &mut Section<'_>, directory: &Directory) -> Option<TerminationDraft> {
    let client_certificate = section.optional::<ClientCertificate>("client_certificate");
    let acme = section.optional::<Wish>("acme");
    // What is meant is not known, and has been reported.
    let unreadable = section.has("acme") && acme.is_none();
    let acme = acme.and_then(|it| {
        let Wish(wish) = it.value;
        Some(Located {
            value: wish?,
            at: it.at,
        })
    });
    let draft = TerminationDraft {
        acme,
        certificate: section.path("certificate", directory),
        key: section.path("key", directory),
        identity: section.optional("identity"),
        client_certificate: client_certificate
            .as_ref()
            .map_or(ClientCertificate::Optional, |it| it.value),
        client_roots: roots(section, "client_roots", directory).unwrap_or(Roots::System),
        client_crls: section.paths("client_crls", directory),
    };
    let problem = |at: Option<Location>, message: &str, help: &str| {
        let at = at.unwrap_or_else(|| section.at().clone());
        section
            .report()
            .push(Diagnostic::error(at, message).help(help));
    };
    if unreadable {
        return None;
    }
    if draft.acme.is_some() {
        for key in ["certificate", "key"] {
            if let Some(at) = section.key_at(key) {
                let message = format!(
                    "this [[domain]] has both `acme` and `{key}`: with `acme`, the gateway gets the certificate itself"
                );
                problem(Some(at), &message, &format!("leave `{key}` out, or `acme`"));
            }
        }
    } else if !section.has("certificate") {
        if let Some(at) = section.key_at("key") {
            let help = "write `certificate = \"certs/<domain>.pem\"` with the chain, or leave `key` out to pass through";
            problem(
                Some(at),
                "this [[domain]] has a `key` and no `certificate`",
                help,
            );
        }
        for key in [
            "client_certificate",
            "client_roots",
            "client_crls",
            "identity",
        ] {
            if let Some(at) = section.key_at(key) {
                problem(
                    Some(at),
                    &format!(
                        "`{key}` means something only where the gateway ends TLS, and this [[domain]] has no `certificate`"
                    ),
                    &format!(
                        "write `certificate` and `key`, or `acme = true`, or leave `{key}` out to pass through"
                    ),
                );
            }
        }
        return None;
    } else if !section.has("key") {
        let help = "write `key = \"certs/<domain>.key\"` with its private key";
        problem(
            section.key_at("certificate"),
            "this [[domain]] has a `certificate` and no `key`",
            help,
        );
    }
    if let Some(Located {
        value: ClientCertificate::NotRequested,
        at,
    }) = client_certificate
    {
        if draft
            .identity
            .as_ref()
            .is_some_and(|identity| identity.value == IdentityMode::Mirror)
        {
            let message = "`identity = \"mirror\"` has nothing to mirror when partners are not asked for a certificate";
            problem(
                Some(at),
                message,
                "write `client_certificate = \"required\"`",
            );
        }
        for key in ["client_roots", "client_crls"] {
            if let Some(at) = section.key_at(key) {
                let message =
                    format!("`{key}` verify nothing when partners are not asked for a certificate");
                let help =
                    format!("leave `{key}` out, or write `client_certificate = \"optional\"`");
                section
                    .report()
                    .push(Diagnostic::warning(at, message).help(help));
            }
        }
    }
    Some(draft)
}
