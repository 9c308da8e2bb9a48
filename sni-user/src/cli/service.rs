//! `snigate service`.

use super::{CliError, Environment, Output, read, table::show, view::service};
use crate::datapath::Maps;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List the services of the active configuration
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
    let lines = service::lines(&read::services(maps)?, &pools, &read::edges(maps)?, &names);
    show(environment, output.json, &lines)
}
