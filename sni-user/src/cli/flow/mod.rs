//! `snigate flow`.

pub(super) mod end_flows;
mod kill;
mod ls;
mod reset;
mod select;
mod show;

pub(super) use self::select::unknown_edge;

use std::net::IpAddr;

use sni_common::contract::FlowKey;

use super::{CliError, Environment, ask, place::Place};
use crate::{
    control::{CarriedConnection, Client, Connections},
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
        Verb::Show(arguments) => show::run(arguments, maps, place, environment),
        Verb::Kill(arguments) => kill::run(arguments, maps, place, environment),
    }
}

/// The connections that the agent carries itself, all or those of one client.
fn carried(place: &Place, client: Option<IpAddr>) -> Result<Connections, CliError> {
    ask::patiently(place, async |agent: Client| agent.connections(client).await)
}

/// Whether it has been handed off meanwhile, or is about to be.
pub(super) fn is_in_datapath(connection: &CarriedConnection, maps: &Maps) -> bool {
    maps.has_flow(&FlowKey {
        source: connection.client.ip().into(),
        destination: connection.vip.ip().into(),
        source_port_be: connection.client.port().to_be(),
        destination_port_be: connection.vip.port().to_be(),
    })
}
