//! What a row asks of the flow tables.

use anyhow::{Result, ensure};
use snigate_tests::packets::Flows;

/// Both tables are empty.
pub(crate) fn no_flows(flows: &Flows) -> Result<()> {
    ensure!(flows.established.is_empty() && flows.half_open.is_empty());
    Ok(())
}

/// As many flows in each table.
pub(crate) fn counted(
    established: usize,
    half_open: usize,
) -> impl Fn(&Flows) -> Result<()> + Send + Sync {
    move |flows| {
        ensure!(
            flows.established.len() == established && flows.half_open.len() == half_open,
            "not {established} established and {half_open} half-open flows"
        );
        Ok(())
    }
}

/// One established flow, with these state bits toward the Edge and toward the client.
pub(crate) fn states(to_edge: u8, to_client: u8) -> impl Fn(&Flows) -> Result<()> + Send + Sync {
    move |flows| {
        ensure!(
            flows.established.len() == 1
                && flows.established[0].to_edge.state == to_edge
                && flows.established[0].to_client.state == to_client,
            "not one established flow in states {to_edge:#x} and {to_client:#x}"
        );
        Ok(())
    }
}
