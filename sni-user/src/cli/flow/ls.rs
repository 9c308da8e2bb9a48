//! `snigate flow ls`.

use super::select::{Client, only_client, only_edge};
use crate::{
    cli::{
        CliError, Environment, Output,
        map::note_rest,
        read,
        table::show,
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
    let flows = Pairs::new(tables);
    let shown = arguments.limit.unwrap_or(flows.len()).min(flows.len());
    let lines = flows
        .iter()
        .take(shown)
        .map(|flow| FlowLine::new(&flow, &names, now_ns));
    show(environment, arguments.output.json, lines)?;
    note_rest(environment, shown, flows.len())
}
