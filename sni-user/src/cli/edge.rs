//! `snigate edge`.

use super::{CliError, Environment, Output, read, table::show, view::edge};
use crate::datapath::Maps;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List the Edges with their state, their pools and their flows
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
    let lines = edge::lines(&read::edges(maps)?, &pools, &read::flows(maps)?, &names);
    show(environment, output.json, &lines)
}
