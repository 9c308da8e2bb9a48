//! ACME: that domains with `acme` can be proven in the way that they are to be.

use std::collections::{HashMap, hash_map::Entry};

use crate::config::{
    decode::Located,
    diagnostics::{Diagnostic, Report},
    location::Location,
    tables::{AcmeDraft, DomainAcmeDraft, DomainDraft, Draft},
    values::Challenge,
    wording::quoted,
};

pub(super) fn check(draft: &Draft, report: &Report) {
    let domains: Vec<_> = draft.domains.iter().filter_map(wish).collect();
    match (&draft.acme, domains.first()) {
        (None, Some((_, wish))) if !draft.incomplete => report.push(
            Diagnostic::error(
                wish.at.clone(),
                "this [[domain]] has `acme`, and there is no [acme] table",
            )
            .help("write [acme] with `directory = \"https://acme-v02.api.letsencrypt.org/directory\"`"),
        ),
        (Some(acme), None) if !draft.incomplete => report.push(
            Diagnostic::warning(acme.at.clone(), "no [[domain]] has `acme`, so that [acme] is for nothing")
                .help("write `acme = true` into a [[domain]] instead of `certificate` and `key`, or leave [acme] out"),
        ),
        (Some(acme), Some(_)) => provable(acme, &domains, report),
        _ => {}
    }
    of_one_mind(&domains, report);
}

type Wishing<'a> = (&'a DomainDraft, &'a Located<DomainAcmeDraft>);

fn wish(domain: &DomainDraft) -> Option<Wishing<'_>> {
    Some((domain, domain.terminate.as_ref()?.acme.as_ref()?))
}

fn provable(acme: &AcmeDraft, domains: &[Wishing<'_>], report: &Report) {
    let challenge = |wish: &DomainAcmeDraft| wish.challenge.unwrap_or(acme.challenge);
    let by_dns = domains
        .iter()
        .find(|(_, wish)| challenge(&wish.value) == Challenge::Dns01);
    if let Some((_, wish)) = by_dns
        && !acme.has_dns_hook
    {
        report.push(
            Diagnostic::error(
                acme.at.clone(),
                "a domain is proven by DNS-01, and [acme] has no `dns_hook` that would set the record",
            )
            .related(&wish.at, "this one")
            .help("write `dns_hook = \"/usr/share/snigate/acme-nsupdate\"`, or a program of your own"),
        );
    }
    for (domain, wish) in domains {
        if challenge(&wish.value) != Challenge::Http01 {
            continue;
        }
        for name in domain.names.iter().filter(|name| name.value.is_wildcard()) {
            let message = format!(
                "{} can't be proven by HTTP-01: authorities give wildcards for DNS-01 only",
                quoted(&name.value.to_string())
            );
            report.push(
                Diagnostic::error(name.at.clone(), message)
                    .related(&wish.at, "its certificate comes by ACME")
                    .help("write `acme = { challenge = \"dns-01\" }`"),
            );
        }
    }
}

/// The tables of one SIP domain, told apart by `alpn`, share its certificate.
fn of_one_mind(domains: &[Wishing<'_>], report: &Report) {
    let mut first: HashMap<&str, (&DomainAcmeDraft, &Location)> = HashMap::new();
    for (domain, Located { value, at }) in domains {
        let Some(sip_domain) = &domain.sip_domain else {
            continue;
        };
        match first.entry(sip_domain.value.as_str()) {
            Entry::Vacant(slot) => {
                slot.insert((value, at));
            }
            Entry::Occupied(known) => {
                let (other, there) = known.get();
                if !value.is_as(other) {
                    let message = format!(
                        "the [[domain]] tables of {} share one certificate, and want it in different ways",
                        quoted(sip_domain.value.as_str())
                    );
                    report.push(
                        Diagnostic::error(at.clone(), message)
                            .related(there, "the first is here")
                            .help("write the same `acme` into both"),
                    );
                }
            }
        }
    }
}
