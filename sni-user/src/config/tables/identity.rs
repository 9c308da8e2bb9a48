//! `[identity]`

use std::path::PathBuf;

use crate::config::{
    decode::{Directory, Located, Section},
    diagnostics::Diagnostic,
    location::Location,
    model::{GatewayCertificate, Identity, MirrorCa},
    wording::quoted,
};

pub(in crate::config) struct IdentityDraft {
    pub(in crate::config) at: Location,
    pub(in crate::config) has_mirror: bool,
    pub(in crate::config) has_gateway: bool,
    complete: Identity,
}

impl IdentityDraft {
    pub(super) fn read(mut section: Section<'_>, directory: &Directory) -> Self {
        let crl_url = section.optional::<String>("crl_url");
        let ca = pair(&mut section, "ca", "key", directory);
        let gateway = pair(
            &mut section,
            "gateway_certificate",
            "gateway_key",
            directory,
        );
        let (has_mirror, has_gateway) = (section.has("ca"), section.has("gateway_certificate"));
        check_crl(&section, crl_url.as_ref(), has_mirror);
        let draft = Self {
            at: section.at().clone(),
            has_mirror,
            has_gateway,
            complete: Identity {
                mirror: ca.map(|(certificate, key)| MirrorCa {
                    certificate,
                    key,
                    crl_url: crl_url.map(|url| url.value),
                }),
                gateway: gateway.map(|(certificate, key)| GatewayCertificate { certificate, key }),
            },
        };
        section.finish();
        draft
    }

    pub(super) fn build(self) -> Identity {
        self.complete
    }
}

/// A certificate and its key: both or neither.
fn pair(
    section: &mut Section<'_>,
    certificate: &'static str,
    key: &'static str,
    directory: &Directory,
) -> Option<(PathBuf, PathBuf)> {
    let files = (
        section.path(certificate, directory),
        section.path(key, directory),
    );
    for (there, missing) in [(certificate, key), (key, certificate)] {
        if let (Some(at), false) = (section.key_at(there), section.has(missing)) {
            section.report().push(
                Diagnostic::error(at, format!("[identity] has `{there}` and no `{missing}`")).help(
                    format!("write `{missing}`; `snigate ca init` makes both files"),
                ),
            );
        }
    }
    files.0.zip(files.1)
}

fn check_crl(section: &Section<'_>, crl_url: Option<&Located<String>>, has_ca: bool) {
    let report = section.report();
    let Some(Located { value, at }) = crl_url else {
        if let (Some(at), false) = (section.key_at("ca"), section.has("crl_url")) {
            let message =
                "an Edge that checks revocation refuses mirrored certificates without a `crl_url`";
            report.push(
                Diagnostic::warning(at, message)
                    .help("write `crl_url = \"http://<an address of the gateway>/mirror.crl\"`"),
            );
        }
        return;
    };
    if !has_ca {
        report.push(
            Diagnostic::error(at.clone(), "[identity] has a `crl_url` and no `ca`")
                .help("write `ca` and `key`, or leave `crl_url` out"),
        );
    }
    // Plain HTTP on purpose: verifying a TLS certificate to fetch a revocation list could need that list (RFC 5280 section 8).
    if !url::Url::parse(value).is_ok_and(|url| url.scheme() == "http" && url.has_host()) {
        report.push(
            Diagnostic::error(
                at.clone(),
                format!("`crl_url`: {} is not an http URL", quoted(value)),
            )
            .help("write \"http://<an address of the gateway>/mirror.crl\""),
        );
    }
}
