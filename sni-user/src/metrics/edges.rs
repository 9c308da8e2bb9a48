//! Edges and pools.

use sni_common::contract::EdgeState;

use super::{Exposition, ExpositionError, Family};
use crate::config::Config;

pub(super) const FAMILIES: &[&Family] = &[&STATE, &POOLS, &FAILURES];

const STATE: Family = Family::gauge(
    "snigate_edge_state",
    &["edge", "state"],
    "1 for the state that an Edge is in (up, draining, down), 0 for the others, as the datapath goes by it.",
);
const POOLS: Family = Family::gauge(
    "snigate_pool_edges",
    &["pool", "state"],
    "Edges of a pool by their state; none that is up means that its connections are refused.",
);
pub(super) const FAILURES: Family = Family::counter(
    "snigate_edge_connect_failures_total",
    &["edge"],
    "Attempts of the agent to connect to an Edge that have failed.",
);

/// Adds the states of the configured Edges, which are in the configuration's order.
pub(crate) fn expose(
    to: &Exposition,
    config: &Config,
    states: &[EdgeState],
) -> Result<(), ExpositionError> {
    let edges = to.family(&STATE)?;
    for (edge, is) in config.edges.iter().zip(states) {
        for state in EdgeState::ALL {
            let value = u8::from(state == is).into();
            edges.add(&[edge.name.as_str(), state.name()], value);
        }
    }
    let pools = to.family(&POOLS)?;
    for pool in &config.pools {
        let members = pool.members.iter();
        let members: Vec<_> = members
            .filter_map(|member| states.get(member.edge.index()))
            .collect();
        for state in EdgeState::ALL {
            let count = members.iter().filter(|is| **is == state).count();
            pools.add(&[pool.name.as_str(), state.name()], count as f64);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CONFIG: &str = r#"
[gateway]
interfaces = ["wan0"]
[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"
[[edge]]
name = "edge-b"
address = "203.0.113.11:5061"
[[pool]]
name = "edges"
edges = ["edge-a", "edge-b"]
[[pool]]
name = "rest"
edges = ["edge-b"]
"#;

    #[test]
    fn each_edge_is_in_one_state() {
        let config = Config::parse(Path::new("/snigate.toml"), CONFIG);
        let config = config.unwrap_or_else(|found| panic!("{found}")).config;
        let exposition = Exposition::new();
        let states = [EdgeState::Up, EdgeState::Down];
        expose(&exposition, &config, &states).unwrap();
        let text = exposition.text().unwrap();
        for line in [
            "snigate_edge_state{edge=\"edge-a\",state=\"up\"} 1",
            "snigate_edge_state{edge=\"edge-a\",state=\"down\"} 0",
            "snigate_edge_state{edge=\"edge-b\",state=\"down\"} 1",
            "snigate_pool_edges{pool=\"edges\",state=\"up\"} 1",
            "snigate_pool_edges{pool=\"edges\",state=\"down\"} 1",
            "snigate_pool_edges{pool=\"rest\",state=\"up\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
    }
}
