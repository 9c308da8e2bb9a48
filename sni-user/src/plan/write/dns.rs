//! The records of a plan.

use super::Writing;
use crate::plan::{Record, address_records, records};

impl Writing<'_> {
    /// The records of all domains that partners look up, and of the provider's name, which others use.
    pub fn records(&self) -> Vec<Record> {
        let Self { plan, site, terms } = self;
        let mut all = Vec::new();
        let provider = site.provider_addresses(plan);
        for placement in &plan.placements {
            let addresses = match placement.certificate {
                Some(certificate) => site.way(plan, &plan.certificates[certificate]).addresses,
                None if placement.reason.is_everywhere() => provider.clone(),
                None => continue,
            };
            let target = placement.domain.federation_name();
            all.extend(records(&placement.domain, &target, &addresses));
        }
        for name in &terms.shared_names {
            let known = all.iter().any(|record| record.owner == name.as_str());
            if !known {
                all.extend(address_records(name, &provider));
            }
        }
        all
    }
}
