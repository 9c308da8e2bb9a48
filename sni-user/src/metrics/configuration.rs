//! What the agent goes by, and where the datapath is.

use std::time::Duration;

use super::{Exposition, ExpositionError, Family};
use crate::{config::Config, datapath::Attached};

pub(super) const FAMILIES: &[&Family] = &[
    &GENERATION,
    &AGE,
    &REFUSED,
    &ITEMS,
    &ATTACHED,
    &BINDING,
    &BUILD,
];

const GENERATION: Family = Family::gauge(
    "snigate_configuration_generation",
    &[],
    "Number of the configuration that the datapath goes by; each one that is activated has the next.",
);
const AGE: Family = Family::gauge(
    "snigate_configuration_age_seconds",
    &[],
    "Time since the configuration was activated.",
);
const REFUSED: Family = Family::gauge(
    "snigate_configuration_refused",
    &[],
    "1 while the last attempt to replace the configuration was refused: the files are not what is active.",
);
const ITEMS: Family = Family::gauge(
    "snigate_configuration_items",
    &["kind"],
    "What the configuration has: Edges, pools, IP sets, domains, server names, terminated domains.",
);
const ATTACHED: Family = Family::gauge(
    "snigate_attached",
    &["interface", "hook"],
    "1 for each interface that the datapath is attached to.",
);
const BINDING: Family = Family::gauge(
    "snigate_binding",
    &[],
    "Whether the datapath binds connections to Edges by itself; not there where no IP set wants it.",
);
const BUILD: Family = Family::gauge(
    "snigate_build_info",
    &["version"],
    "1, with the version of the agent.",
);

/// The state of the agent.
#[derive(Debug)]
pub(crate) struct State<'a> {
    pub(crate) config: &'a Config,
    pub(crate) generation: u32,
    pub(crate) age: Duration,
    pub(crate) refused: bool,
    pub(crate) attached: Vec<Attached>,
    /// None where it is not wanted.
    pub(crate) binds: Option<bool>,
}

/// Adds it.
pub(crate) fn expose(to: &Exposition, state: &State<'_>) -> Result<(), ExpositionError> {
    to.single(&GENERATION, f64::from(state.generation))?;
    to.single(&AGE, state.age.as_secs_f64())?;
    to.single(&REFUSED, u8::from(state.refused).into())?;
    let items = to.family(&ITEMS)?;
    for (kind, count) in items_of(state.config) {
        items.add(&[kind], count as f64);
    }
    let attached = to.family(&ATTACHED)?;
    for it in &state.attached {
        attached.add(&[&it.interface, it.mode.name()], 1.0);
    }
    if let Some(binds) = state.binds {
        to.single(&BINDING, u8::from(binds).into())?;
    }
    to.family(&BUILD)?.add(&[env!("CARGO_PKG_VERSION")], 1.0);
    Ok(())
}

fn items_of(config: &Config) -> [(&'static str, usize); 6] {
    let domains = &config.domains;
    let names = domains.iter().map(|domain| domain.names.len()).sum();
    let terminated = domains.iter().filter(|it| it.terminate.is_some());
    [
        ("edges", config.edges.len()),
        ("pools", config.pools.len()),
        ("ip-sets", config.ip_sets.len()),
        ("domains", domains.len()),
        ("names", names),
        ("terminated", terminated.count()),
    ]
}
