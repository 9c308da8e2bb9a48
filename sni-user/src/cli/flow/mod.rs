//! `snigate flow`.

mod kill;
mod ls;
mod reset;
mod select;
mod show;

use super::{CliError, Environment, ask, place::Place};
use crate::{
    control::{Client, Connections},
    datapath::Maps,
};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List the flows: one line per client connection
    Ls(ls::Arguments),
    /// Show all that is known of a flow
    Show(show::Arguments),
    /// End flows: reset both sides, then forget
    Kill(kill::Arguments),
}

pub(super) fn run(
    verb: &Verb,
    maps: &mut Maps,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    match verb {
        Verb::Ls(arguments) => ls::run(arguments, maps, place, environment),
        Verb::Show(arguments) => show::run(arguments, maps, environment),
        Verb::Kill(arguments) => kill::run(arguments, maps, place, environment),
    }
}

/// The connections that the agent carries itself.
fn carried(place: &Place) -> Result<Connections, CliError> {
    ask::patiently(place, Client::connections)
}
