//! What the agent tells Prometheus.
//!
//! A file for each group: what its families are called, what they mean, and how they are filled from what there is at a scrape. [`FAMILIES`] are all of
//! them; docs/metrics.md has the same list, and a test that says so. What only happens, and is nowhere to be read afterwards, is kept in `Measured`.
//!
//! Labels have values of this program (a reason, a way, a map), or names of Edges, pools and interfaces, which the configuration bounds. Never those of
//! domains, IP sets and partners: there may be a hundred thousand, and each would cost the monitoring more than it tells. `snigate route ls` has them.
//!
//! The crate `prometheus` tells the samples of a family apart by a hash of their values in a row, without anything in between. So a name comes first, and
//! behind it one of a few words of which none is the end of another's sample.

pub(crate) mod acme;
pub(crate) mod certificates;
pub(crate) mod configuration;
pub(crate) mod connections;
pub(crate) mod datapath;
pub(crate) mod edges;
mod exposition;
mod family;
mod measured;
pub(crate) mod process;
pub(crate) mod tables;

pub(crate) use self::{
    exposition::{Exposition, ExpositionError},
    measured::Measured,
};
pub use self::{
    family::{Family, Kind},
    measured::Peer,
};

/// Every family of metrics that there is. Those that have nothing to say are left out of an exposition: certificates where there are none, the
/// datapath's time where nobody has it measured.
pub const FAMILIES: &[&[&Family]] = &[
    connections::FAMILIES,
    datapath::FAMILIES,
    edges::FAMILIES,
    tables::FAMILIES,
    configuration::FAMILIES,
    certificates::FAMILIES,
    acme::FAMILIES,
    process::FAMILIES,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_family_has_one_name_and_a_sentence() {
        let all: Vec<_> = FAMILIES.iter().copied().flatten().collect();
        let names: HashSet<_> = all.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), all.len());
        for family in all {
            let Family {
                name, help, kind, ..
            } = family;
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                *kind == Kind::Counter,
                "{name}: counters, and nothing else, end in _total"
            );
            let ours = name.starts_with("snigate_") || name.starts_with("process_");
            assert!(ours, "{name}");
        }
    }
}
