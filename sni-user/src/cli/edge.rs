//! `snigate edge`.

mod drain;

use super::{
    CliError, Environment, Output,
    ask::{ask, patiently},
    place::Place,
    read,
    table::show,
    view::edge,
};
use crate::{
    control::{Client, EdgeChanged},
    datapath::Maps,
};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List the Edges with their state, their pools and their flows
    ///
    /// TOTAL and the bytes are those of all connections since the datapath was loaded, ended ones included. Of what the agent carries itself, the last
    /// second may be missing. An Edge that is not the one before at its address, or sees another source, begins anew. Why an Edge is not up, the running
    /// agent tells.
    Ls(Output),
    /// Give an Edge no new connections; those that it has live on
    ///
    /// That holds, whatever checks say, until `edge enable`, the end of the datapath (`snigate detach`, or an orderly end of the agent without --leave), or
    /// until the Edge leaves the configuration. A restart of the agent does not change it.
    Drain(drain::Arguments),
    /// Let the checks of a drained Edge decide again whether it gets new connections
    Enable {
        /// The Edge's name
        name: String,
    },
}

pub(super) fn run(
    verb: &Verb,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    match verb {
        Verb::Ls(output) => list(*output, &super::maps(place)?, place, environment),
        Verb::Drain(arguments) => drain::run(arguments, place, environment),
        Verb::Enable { name } => {
            let enabled = ask(place, environment, async |agent| {
                agent.enable_edge(name).await
            })?;
            writeln!(environment.out, "{}", enabled_sentence(&enabled))?;
            Ok(())
        }
    }
}

fn list(
    output: Output,
    maps: &Maps,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let names = read::names(maps)?;
    let pools = read::pools_of(maps, names.generation)?;
    let (edges, flows, accounts) = (
        read::edges(maps)?,
        read::flows(maps)?,
        read::accounts(maps)?,
    );
    // Without an agent, the datapath goes by what the last one has found.
    let known = patiently(place, Client::status).map_or_else(|_| Vec::new(), |agent| agent.edges);
    let lines = edge::lines(&edges, &pools, &flows, &accounts, &names, &known);
    show(environment, output.json, &lines)?;
    let trouble: Vec<_> = lines.iter().filter_map(edge::EdgeLine::trouble).collect();
    if !output.json && !trouble.is_empty() {
        writeln!(environment.out)?;
        show(environment, false, trouble)?;
    }
    Ok(())
}

fn enabled_sentence(enabled: &EdgeChanged) -> String {
    let EdgeChanged { name, state, .. } = enabled;
    match (&**state, enabled.changed) {
        ("up", true) => format!("{name} gets new connections again"),
        (_, true) => {
            format!("{name} is drained no longer, but it is {state}: `snigate edge ls` tells why")
        }
        (_, false) => format!("{name} was not drained, and is {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enabling_says_what_it_has_come_to() {
        let sentence = |state: &str, changed| {
            enabled_sentence(&EdgeChanged {
                name: "edge-a".into(),
                address: "203.0.113.10:5061".parse().unwrap(),
                state: state.into(),
                changed,
                without: Vec::new(),
            })
        };
        assert_eq!(sentence("up", true), "edge-a gets new connections again");
        assert!(sentence("down", true).contains("but it is down"));
        assert_eq!(sentence("up", false), "edge-a was not drained, and is up");
    }
}
