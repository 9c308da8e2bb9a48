//! Which domain goes into which certificate.

mod certificate;
mod former_places;
mod naming;
mod place;

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use self::former_places::FormerPlaces;
use super::{
    Apart, Federation, Former, List, Listed, Mode, SipDomain, Terms,
    packing::{self, Bin, Capacity, Item},
    san,
};
use crate::config::{Diagnostic, Diagnostics, HostName, InvalidValue, Name, Report};

/// Certificates for all domains of a list.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By which rule.
    pub mode: Mode,
    /// In the order of their slots.
    pub certificates: Vec<Certificate>,
    /// All domains, in alphabetical order.
    pub placements: Vec<Placement>,
    /// A number that no plan for this list is below.
    pub lower_bound: usize,
    /// Former certificates that nothing is left of.
    pub dropped: Vec<Name>,
    pub(super) items: Vec<Item>,
    pub(super) bins: Vec<Bin>,
    pub(super) names: Names,
}

/// What the numbers in items stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) customers: Vec<String>,
    pub(super) groups: Vec<String>,
}

/// A certificate of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// What it is called; also its files.
    pub name: Name,
    /// Which of the public addresses and Edges are its own, from 0.
    pub slot: usize,
    /// At most 64 bytes, and one of its names.
    pub common_name: HostName,
    /// Names that every certificate has.
    #[serde(skip)]
    pub shared_names: Vec<HostName>,
    /// Its domains, in alphabetical order.
    pub domains: Vec<SipDomain>,
    /// Bytes of the subjectAltName extension.
    pub san_bytes: usize,
    /// Whether it has to be issued.
    pub issue: Issue,
    /// How many names it has that its former one has not.
    pub gains: usize,
    /// How many names the former one has that nobody needs any more.
    pub loses: usize,
}

impl Certificate {
    /// Its alternative names, those that every certificate has first.
    pub fn names(&self) -> impl Iterator<Item = HostName> {
        let domains = self.domains.iter().map(SipDomain::federation_name);
        self.shared_names.iter().cloned().chain(domains)
    }
}

/// Whether a certificate has to be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Issue {
    /// For the first time.
    New,
    /// Again: it has new names.
    Again,
    /// It may be issued again without the names that nobody needs.
    Trim,
    /// It stays as it is.
    No,
}

impl Issue {
    /// Whether the CA has work.
    pub fn is_needed(self) -> bool {
        matches!(self, Self::New | Self::Again)
    }
}

/// Where a domain is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The domain.
    pub domain: SipDomain,
    /// Whose it is.
    pub customer: String,
    /// How partners find it.
    pub federation: Federation,
    /// Its certificate, as a position in [`Plan::certificates`]; `None` where it needs no name of its own.
    pub certificate: Option<usize>,
    /// Why.
    pub reason: Reason,
    /// Its place among the items, where it has one.
    pub(super) item: Option<usize>,
}

/// Why a domain is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The former plan has it there.
    Kept,
    /// The list says so.
    Listed,
    /// A certificate that was there had room.
    Joined,
    /// No certificate that was there took it.
    Packed,
    /// Partners use the provider's name.
    Provider,
    /// Every certificate has its name.
    Everywhere,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No domain fits.
    #[error(transparent)]
    Terms(#[from] InvalidValue),
    /// The former plan went by another rule.
    #[error(
        "the former plan is {}: plan in the same way, or with another --state", match .0 {
            Mode::San => "of shared certificates, and this one of certificates per customer",
            Mode::PerCustomer => "of certificates per customer, and this one of shared ones: --per-customer is missing",
        }
    )]
    OtherMode(Mode),
    /// The list asks for what the terms don't allow.
    #[error("{} of the list can't be planned", .0.len())]
    List(Diagnostics),
}

impl Reason {
    /// Whether every certificate has the name.
    pub(super) fn is_everywhere(self) -> bool {
        self == Self::Everywhere
    }
}

impl Plan {
    /// Plans certificates for a list, and keeps what an earlier plan has decided.
    ///
    /// # Errors
    /// The list asks for what the terms don't allow, each with its line; or terms and former plan are wrong themselves.
    pub fn new(list: &List, former: Option<&Former>, terms: &Terms) -> Result<Self, PlanError> {
        if let Some(former) = former.filter(|former| former.mode != terms.mode) {
            return Err(PlanError::OtherMode(former.mode));
        }
        let capacity = terms.capacity()?;
        let report = Report::default();
        let plan = Planning::new(list, former, terms, (&report, capacity)).finish();
        let found = report.into_diagnostics();
        match plan {
            Some(plan) if found.is_empty() => Ok(plan),
            _ => Err(PlanError::List(found)),
        }
    }

    /// How many certificates have to be issued.
    pub fn to_issue(&self) -> usize {
        self.certificates
            .iter()
            .filter(|it| it.issue.is_needed())
            .count()
    }
}

struct Planning<'a> {
    terms: &'a Terms,
    former: FormerPlaces<'a>,
    report: &'a Report,
    capacity: Capacity,
    /// In alphabetical order, so that the order of the list makes no difference.
    listed: Vec<&'a Listed>,
    /// Of those that need a name.
    items: Vec<Item>,
    /// Item to listed.
    owners: Vec<usize>,
    names: Names,
    reasons: Vec<Reason>,
}

impl<'a> Planning<'a> {
    fn new(
        list: &'a List,
        former: Option<&'a Former>,
        terms: &'a Terms,
        (report, capacity): (&'a Report, Capacity),
    ) -> Self {
        let mut listed: Vec<_> = list.domains.iter().collect();
        listed.sort_by(|one, other| one.domain.cmp(&other.domain));
        let mut this = Self {
            terms,
            former: FormerPlaces::new(former),
            report,
            capacity,
            items: Vec::new(),
            owners: Vec::new(),
            names: Names::default(),
            reasons: vec![Reason::Packed; listed.len()],
            listed,
        };
        this.make_items();
        this
    }

    fn make_items(&mut self) {
        let numbered = |words: BTreeSet<&str>| -> (Vec<String>, HashMap<String, usize>) {
            let words: Vec<_> = words.into_iter().map(str::to_owned).collect();
            let numbers = words.iter().cloned().zip(0..).collect();
            (words, numbers)
        };
        let customers = self.listed.iter().map(|it| &*it.customer).collect();
        let (customer_names, customers) = numbered(customers);
        let groups = self.listed.iter().flat_map(|it| &it.apart.groups);
        let (group_names, groups) = numbered(groups.map(|group| &**group).collect());
        self.names = Names {
            customers: customer_names,
            groups: group_names,
        };
        for (place, listed) in self.listed.iter().enumerate() {
            let name = listed.domain.federation_name();
            if listed.federation != Federation::Open {
                self.reasons[place] = Reason::Provider;
                continue;
            }
            if self.terms.names_in_all().contains(&name) {
                self.reasons[place] = Reason::Everywhere;
                continue;
            }
            let Apart { alone, groups: of } = &listed.apart;
            self.owners.push(place);
            self.items.push(Item {
                bytes: san::name_bytes(&name),
                customer: customers[&*listed.customer],
                alone: *alone || self.terms.mode == Mode::PerCustomer,
                apart: of.iter().map(|group| groups[&**group]).collect(),
            });
        }
    }

    fn finish(mut self) -> Option<Plan> {
        let fits = self.all_fit_alone();
        if !self.provider_has_a_name() || !fits {
            return None;
        }
        let (mut kept, left) = self.keep();
        let left = self.join(&mut kept, &left);
        let fresh = packing::pack(&self.items, &left, self.capacity);
        let all: Vec<_> = (0..self.items.len()).collect();
        let lower_bound = packing::lower_bound(&self.items, &all, self.capacity);
        self.name(kept, fresh, lower_bound)
    }

    /// Says which of the names is too large for any certificate.
    fn all_fit_alone(&self) -> bool {
        let mut fit = true;
        for (item, owner) in self.items.iter().zip(&self.owners) {
            if item.bytes > self.capacity.bytes {
                let listed = self.listed[*owner];
                let message = format!(
                    "the name of {} takes {} bytes, and a certificate has room for {}",
                    listed.domain, item.bytes, self.capacity.bytes
                );
                self.report
                    .push(Diagnostic::error(listed.at.clone(), message).help(
                        "write a higher --san-bytes, or `explicit` into the column `federation`",
                    ));
                fit = false;
            }
        }
        fit
    }

    fn provider_has_a_name(&self) -> bool {
        let using = self.reasons.iter().position(|it| *it == Reason::Provider);
        let (Some(place), []) = (using, self.terms.shared_names.as_slice()) else {
            return true;
        };
        let listed = self.listed[place];
        let message = format!(
            "partners reach {} by the provider's name, and there is none",
            listed.domain
        );
        self.report.push(
            Diagnostic::error(listed.at.clone(), message)
                .help("write the name that the Edge has in every certificate, such as `--name edge.hoster.example`"),
        );
        false
    }
}

#[cfg(test)]
mod tests;
