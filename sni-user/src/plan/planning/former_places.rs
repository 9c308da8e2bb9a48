//! A former plan, with what is looked up in it.

use std::collections::HashMap;

use crate::plan::{
    SipDomain,
    former::{Former, FormerCertificate},
};

/// Certificates of a former plan, of which there may be none.
pub(super) struct FormerPlaces<'a> {
    certificates: &'a [FormerCertificate],
    by_name: HashMap<&'a str, &'a FormerCertificate>,
    by_domain: HashMap<&'a str, usize>,
}

impl<'a> FormerPlaces<'a> {
    pub(super) fn new(former: Option<&'a Former>) -> Self {
        let certificates = former.map_or(&[][..], |it| &it.certificates);
        let domains = certificates.iter().enumerate().flat_map(|(place, it)| {
            let domains = it.domains.iter();
            domains.map(move |domain| (domain.as_str(), place))
        });
        Self {
            certificates,
            by_name: certificates
                .iter()
                .map(|it| (it.name.as_str(), it))
                .collect(),
            by_domain: domains.collect(),
        }
    }

    pub(super) fn certificates(&self) -> &'a [FormerCertificate] {
        self.certificates
    }

    /// The certificate of this name.
    pub(super) fn named(&self, name: &str) -> Option<&'a FormerCertificate> {
        self.by_name.get(name).copied()
    }

    /// The position of the certificate that has this domain.
    pub(super) fn place_of(&self, domain: &SipDomain) -> Option<usize> {
        self.by_domain.get(domain.as_str()).copied()
    }

    /// The certificate that has this domain.
    pub(super) fn of(&self, domain: &SipDomain) -> Option<&'a FormerCertificate> {
        self.place_of(domain).map(|place| &self.certificates[place])
    }
}
