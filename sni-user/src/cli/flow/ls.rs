//! `snigate flow ls`.

use super::select::{Client, only_client, only_edge};
use crate::{
    cli::{
        CliError, Environment, Output,
        map::note_rest,
        read,
        table::show,
        view::flow::{FlowLine, pair},
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
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let names = read::names(maps)?;
    let mut tables = read::flows(maps)?;
    if let Some(edge) = &arguments.edge {
        only_edge(&mut tables, edge, &names)?;
    }
    if let Some(client) = arguments.client {
        only_client(&mut tables, client.address, client.port);
    }
    let now_ns = (environment.now_ns)();
    let pairs = pair(tables);
    let shown = arguments.limit.unwrap_or(pairs.len());
    let lines: Vec<_> = pairs
        .iter()
        .take(shown)
        .map(|pair| FlowLine::new(pair, &names, now_ns))
        .collect();
    show(environment, arguments.output.json, &lines)?;
    note_rest(environment, lines.len(), pairs.len())
}
