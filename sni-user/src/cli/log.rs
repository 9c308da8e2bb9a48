//! `snigate log`: the datapath's diagnostics.

use sni_common::contract::FLAG_LOG;

use super::{CliError, Environment, audit, place::Place};
use crate::datapath::Maps;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Whether the datapath says a word about every packet of a service or flow
    #[arg(value_enum)]
    switch: Switch,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    On,
    Off,
}

pub(super) fn run(
    arguments: &Arguments,
    maps: &mut Maps,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let on = arguments.switch == Switch::On;
    let switched = maps.set_flag(FLAG_LOG, on);
    let outcome = switched.map(|()| "done".to_owned());
    let command = if on { "log on" } else { "log off" };
    audit::noted(place, environment, command, outcome.map_err(CliError::from))?;
    let sentence = if on {
        "The datapath's diagnostics are on; the agent (`snigate run`) prints them under the target `datapath`.\n\
         They cost time for every packet: switch them off again with `snigate log off`."
    } else {
        "The datapath's diagnostics are off."
    };
    writeln!(environment.out, "{sentence}")?;
    Ok(())
}
