//! `snigate flow ls`.

use super::{
    carried, is_in_datapath,
    select::{Client, only_client, only_edge},
};
use crate::{
    cli::{
        CliError, Environment, Output,
        map::note_rest,
        place::Place,
        read,
        table::show,
        units,
        view::flow::{FlowLine, Pairs},
    },
    datapath::Maps,
};

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// Only flows to this Edge (its name, or #slot)
    #[arg(long, value_name = "NAME")]
    edge: Option<String>,
    /// Only flows of this client, at any port or at one
    #[arg(long, value_name = "ADDR[:PORT]")]
    client: Option<Client>,
    /// Show this many flows at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(
    arguments: &Arguments,
    maps: &Maps,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let (names, routes) = (read::names(maps)?, read::route_names(maps)?);
    // Before the tables: what is handed off in between is listed all the same.
    let carried = carried(place, arguments.client.map(|client| client.address));
    let mut tables = read::flows(maps)?;
    if let Some(edge) = &arguments.edge {
        only_edge(&mut tables, edge, &names)?;
    }
    if let Some(client) = arguments.client {
        only_client(&mut tables, client.address, client.port);
    }
    let now_ns = (environment.now_ns)();
    let flows = Pairs::new(tables);
    let (mut connections, untold) = match carried {
        Ok(carried) => {
            let untold = carried.of - carried.connections.len();
            (carried.connections, untold)
        }
        Err(error) => {
            writeln!(
                environment.err,
                "(only the datapath's flows are shown, not those that the agent carries: {error})"
            )?;
            (Vec::new(), 0)
        }
    };
    connections.retain(|connection| {
        let by_edge = arguments.edge.as_ref();
        let by_client = arguments.client;
        by_edge.is_none_or(|edge| *edge == connection.edge)
            && by_client.is_none_or(|client| client.includes(connection.client))
            && !is_in_datapath(connection, maps)
    });
    let all = flows.len() + connections.len();
    let shown = arguments.limit.unwrap_or(all).min(all);
    let carried = connections
        .into_iter()
        .map(|connection| FlowLine::carried(connection, &names, &routes));
    let lines = flows
        .iter()
        .map(|flow| FlowLine::new(&flow, &names, &routes, now_ns))
        .chain(carried)
        .take(shown);
    show(environment, arguments.output.json, lines)?;
    note_rest(environment, shown, all)?;
    if untold > 0 {
        writeln!(
            environment.err,
            "({} more that the agent carries are not told)",
            units::count(untold as u64)
        )?;
    }
    Ok(())
}
