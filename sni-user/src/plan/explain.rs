//! Why a domain is where it is, in sentences.

use std::net::IpAddr;

use super::{Issue, Placement, Plan, Reason, Writing, packing::Refusal};

impl Writing<'_> {
    /// What the plan decides about a domain, and why: a sentence a line.
    pub fn explain(&self, placement: &Placement) -> Vec<String> {
        let mut lines = vec![self.why(placement)];
        lines.extend(self.plan.refusals(placement));
        if let Some(certificate) = placement.certificate {
            lines.extend(self.certificate_and_way(certificate));
        } else {
            lines.push(self.without_certificate(placement));
        }
        lines
    }

    fn why(&self, placement: &Placement) -> String {
        let plan = self.plan;
        let Placement { domain, reason, .. } = placement;
        let home = placement.certificate.map(|it| &plan.certificates[it]);
        let home = home.map_or("", |it| it.name.as_str());
        match reason {
            Reason::Kept => format!("{domain} is in {home}, where the former plan has it"),
            Reason::Listed => format!("{domain} is in {home}, because the list says so"),
            Reason::Joined => {
                format!("{domain} is new in {home}, which was there and had room for its name")
            }
            Reason::Packed if plan.mode == super::Mode::PerCustomer => {
                format!("{domain} is in {home}, its customer's own certificate")
            }
            Reason::Packed => format!(
                "{domain} is in {home}: with all that are new it was packed into as few certificates as were found"
            ),
            Reason::Provider => format!(
                "{domain} needs no name in a certificate: its federation is `{}`, and partners use the provider's name",
                placement.federation.word()
            ),
            Reason::Everywhere => {
                format!("{domain} needs no room: every certificate has its name")
            }
        }
    }

    fn certificate_and_way(&self, certificate: usize) -> Vec<String> {
        let certificate = &self.plan.certificates[certificate];
        let terms = self.terms;
        let way = self.site.way(self.plan, certificate);
        let issue = match certificate.issue {
            Issue::New => "it has to be issued".to_owned(),
            Issue::Again => format!("it has to be issued again, for {} new", certificate.gains),
            Issue::Trim => "it may be issued again to drop names that nobody needs".to_owned(),
            Issue::No => "it stays as it is".to_owned(),
        };
        let mut lines = vec![format!(
            "{}: {} of {} bytes of alternative names, {} of {} names; {issue}",
            certificate.name,
            certificate.san_bytes,
            terms.san_bytes,
            certificate.names().count(),
            terms.names_per_certificate,
        )];
        if !way.addresses.is_empty() {
            let chosen = match way.by_name {
                true => "the server name",
                false => "the address",
            };
            let edges = way
                .edges
                .map_or("an Edge that is yet to come", |it| it.name.as_str());
            lines.push(format!(
                "partners connect to {}, where {chosen} leads to {edges}",
                listed(&way.addresses)
            ));
        }
        lines
    }

    fn without_certificate(&self, placement: &Placement) -> String {
        let addresses = self.site.provider_addresses(self.plan);
        let name = match (placement.reason.is_everywhere(), self.provider_name()) {
            (false, Some(provider)) => provider.to_string(),
            _ => placement.domain.federation_name().to_string(),
        };
        match addresses.as_slice() {
            [] => format!("partners connect by the name {name}"),
            addresses => format!(
                "partners connect by the name {name} to {}",
                listed(addresses)
            ),
        }
    }
}

impl Plan {
    /// Which certificates can't have it because of who is there.
    fn refusals(&self, placement: &Placement) -> Vec<String> {
        /// More would hide the rest.
        const SHOWN: usize = 3;
        let (Some(item), Some(home)) = (placement.item, placement.certificate) else {
            return Vec::new();
        };
        if self.mode == super::Mode::PerCustomer {
            return Vec::new();
        }
        let item = &self.items[item];
        let others = self.certificates.iter().zip(&self.bins).enumerate();
        let mut lines: Vec<_> = others
            .filter(|(place, _)| *place != home)
            .filter_map(|(_, (certificate, bin))| {
                let name = &certificate.name;
                match bin.tolerates(&self.items, item).err()? {
                    Refusal::Apart { group, customer } => Some(format!(
                        "it can't be in {name} because of {}: both are of the group {}",
                        self.names.customers[customer], self.names.groups[group]
                    )),
                    Refusal::Alone => Some(format!(
                        "it can't be in {name}: its customer, or the one that is there, shares with nobody"
                    )),
                    Refusal::Bytes | Refusal::Names => None,
                }
            })
            .collect();
        if let Some(more) = lines.len().checked_sub(SHOWN + 1) {
            lines.truncate(SHOWN);
            lines.push(format!("nor, for the like, in {} more", more + 1));
        }
        lines
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}
