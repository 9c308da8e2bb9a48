//! A certificate of the plan beside the one that is there.

use std::collections::BTreeSet;

use super::{Certificate, Issue, Planning};
use crate::{
    config::{Diagnostic, HostName, Name},
    plan::{Listed, SipDomain, Terms, former::FormerCertificate, packing::Bin, san},
};

impl Planning<'_> {
    /// What is to be issued; `None` where there is no common name, which is reported.
    pub(super) fn certificate(&self, name: &Name, slot: usize, bin: &Bin) -> Option<Certificate> {
        let mut items = bin.items().to_vec();
        items.sort_unstable();
        let listed: Vec<_> = items
            .iter()
            .map(|item| self.listed[self.owners[*item]])
            .collect();
        let domains: Vec<_> = listed.iter().map(|it| it.domain.clone()).collect();
        let shared_names = self.terms.names_in_all().to_vec();
        let shared_bytes: usize = shared_names.iter().map(san::name_bytes).sum();
        let former = self.former.named(name.as_str());
        let Some(common_name) = self.common_name(former, &domains) else {
            self.no_common_name(listed.first()?);
            return None;
        };
        let mut certificate = Certificate {
            name: name.clone(),
            slot,
            common_name,
            san_bytes: san::extension_bytes(bin.bytes() + shared_bytes),
            shared_names,
            domains,
            issue: Issue::New,
            gains: 0,
            loses: 0,
        };
        self.compare(&mut certificate, &listed);
        Some(certificate)
    }

    /// The first of the names that all certificates have; else the former one, where it is still a name of this certificate; else the first that fits.
    fn common_name(
        &self,
        former: Option<&FormerCertificate>,
        domains: &[SipDomain],
    ) -> Option<HostName> {
        let fits = |name: &HostName| name.as_str().len() <= Terms::COMMON_NAME;
        let shared = self.terms.names_in_all().iter().find(|name| fits(name));
        let names = || domains.iter().map(SipDomain::federation_name).filter(fits);
        let was = |name: &HostName| former.is_some_and(|it| it.common_name == name.as_str());
        shared
            .cloned()
            .or_else(|| names().find(was))
            .or_else(|| names().next())
    }

    fn no_common_name(&self, listed: &Listed) {
        let message = format!(
            "no name of the certificate of {} has at most {} bytes, as its common name must",
            listed.domain,
            Terms::COMMON_NAME
        );
        self.report.push(
            Diagnostic::error(listed.at.clone(), message)
                .help("write a short name that every certificate is to have, such as `--name edge.hoster.example`"),
        );
    }

    /// Says what is new in a certificate, and what is gone.
    fn compare(&self, certificate: &mut Certificate, listed: &[&Listed]) {
        let now: BTreeSet<_> = certificate.names().map(|name| name.to_string()).collect();
        let former = self.former.named(certificate.name.as_str());
        let known: Vec<_> = listed
            .iter()
            .filter(|it| self.is_known_in(it, &certificate.name))
            .map(|it| it.domain.federation_name().to_string())
            .collect();
        if former.is_none() && known.is_empty() {
            certificate.gains = now.len();
            return;
        }
        // Who names a certificate in the list has put the Edge's own names into it.
        let shared = certificate.shared_names.iter().map(ToString::to_string);
        let mut before: BTreeSet<_> = match former {
            Some(former) => names_of(former).collect(),
            None => shared.collect(),
        };
        before.extend(known);
        certificate.gains = now.difference(&before).count();
        certificate.loses = before.difference(&now).count();
        // A common name that nobody needs any more may stay until the next issue.
        let renamed = former
            .map(|it| it.common_name.as_str())
            .is_some_and(|was| was != certificate.common_name.as_str() && now.contains(was));
        certificate.issue = match (certificate.gains, certificate.loses) {
            (0, 0) if !renamed => Issue::No,
            (0, _) if !renamed => Issue::Trim,
            _ => Issue::Again,
        };
    }

    /// Whether the list says that a certificate has a domain of which no former plan knows better.
    fn is_known_in(&self, listed: &Listed, name: &Name) -> bool {
        !self.terms.repack
            && listed.certificate.as_ref() == Some(name)
            && self.former.of(&listed.domain).is_none()
    }
}

fn names_of(former: &FormerCertificate) -> impl Iterator<Item = String> {
    let domains = former.domains.iter().map(|domain| format!("sip.{domain}"));
    former.names.iter().cloned().chain(domains)
}
