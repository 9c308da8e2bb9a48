//! `snigate flow kill`.

use super::{
    carried, end_flows,
    select::{Target, only_client},
};
use crate::{
    cli::{
        CliError, Environment,
        place::Place,
        read,
        view::flow::{Pair, Pairs},
    },
    datapath::Maps,
};

#[derive(clap::Args, Debug)]
#[group(id = "which", required = true)]
pub(in crate::cli) struct Arguments {
    /// The client's address and port, such as 198.51.100.1:4711 or [2001:db8::1]:4711
    #[arg(value_name = "CLIENT:PORT", conflicts_with_all = ["edge", "all"])]
    client: Option<std::net::SocketAddr>,
    /// The public address and port, where a client uses its port for several
    #[arg(value_name = "VIP:PORT", requires = "client")]
    vip: Option<std::net::SocketAddr>,
    /// All flows to this Edge (its name, or #slot)
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    edge: Option<String>,
    /// All flows
    #[arg(long)]
    all: bool,
}

pub(super) fn run(
    arguments: &Arguments,
    maps: &mut Maps,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let flows = select(arguments, maps, place)?;
    end_flows::end_noted(&arguments.command(), &flows, maps, place, environment)
}

impl Arguments {
    /// As it would be typed.
    fn command(&self) -> String {
        let Self {
            client, vip, edge, ..
        } = self;
        match (client, edge) {
            (Some(client), _) => {
                let vip = vip.map(|vip| format!(" {vip}")).unwrap_or_default();
                format!("flow kill {client}{vip}")
            }
            (None, Some(edge)) => format!("flow kill --edge {edge}"),
            (None, None) => "flow kill --all".to_owned(),
        }
    }
}

fn select(arguments: &Arguments, maps: &Maps, place: &Place) -> Result<Vec<Pair>, CliError> {
    if let Some(edge) = &arguments.edge {
        return end_flows::of_edge(edge, maps);
    }
    let mut tables = read::flows(maps)?;
    let Some(client) = arguments.client else {
        return Ok(Pairs::new(tables).iter().collect());
    };
    let target = Target {
        client,
        vip: arguments.vip,
    };
    only_client(&mut tables, client.ip(), Some(client.port()));
    let flows: Vec<_> = Pairs::new(tables)
        .iter()
        .filter(|flow| target.matches(flow))
        .collect();
    if flows.is_empty() {
        // Without an agent there is nothing that it could carry.
        let carried = carried(place, Some(client.ip())).unwrap_or_default();
        let found = carried
            .connections
            .into_iter()
            .find(|connection| target.is_carried(connection));
        return Err(found.map_or_else(
            || target.missing(),
            |connection| CliError::CarriedByAgent {
                client,
                way: connection.way,
            },
        ));
    }
    Ok(flows)
}
