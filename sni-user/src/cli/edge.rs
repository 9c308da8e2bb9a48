//! `snigate edge`.

use super::{CliError, Environment, Output, read, table::show, view::edge};
use crate::datapath::Maps;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List the Edges with their state, their pools and their flows
    ///
    /// TOTAL and the bytes are those of all connections since the datapath was loaded, ended ones included. Of what the agent carries itself, the last
    /// second may be missing. An Edge that is not the one before at its address, or sees another source, begins anew.
    Ls(Output),
}

pub(super) fn run(
    verb: &Verb,
    maps: &Maps,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let Verb::Ls(output) = verb;
    let names = read::names(maps)?;
    let pools = read::pools_of(maps, names.generation)?;
    let (edges, flows, accounts) = (
        read::edges(maps)?,
        read::flows(maps)?,
        read::accounts(maps)?,
    );
    let lines = edge::lines(&edges, &pools, &flows, &accounts, &names);
    show(environment, output.json, &lines)
}
