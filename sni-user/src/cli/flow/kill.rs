//! `snigate flow kill`.

use std::{thread, time::Duration};

use sni_common::contract::{Flow, FlowKey};

use super::{
    carried,
    reset::{Sender, resets},
    select::{Target, only_client, only_edge},
};
use crate::{
    cli::{
        CliError, Environment,
        place::Place,
        read, units,
        view::flow::{Pair, Pairs},
    },
    datapath::{Additions, Maps},
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

/// A busy flow moves on between the reading of its numbers and the resets: then again, with new numbers.
const ROUNDS: u32 = 5;
/// For segments on their way through this host when the resets were sent.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn run(
    arguments: &Arguments,
    maps: &mut Maps,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let flows = select(arguments, maps, place)?;
    let sender = Sender::open()?;
    let mut unsent = None;
    let mut moving = flows.clone();
    for _ in 0..ROUNDS {
        for reset in moving.iter().flat_map(resets) {
            if let Err(error) = sender.send(&reset) {
                unsent.get_or_insert(error);
            }
        }
        thread::sleep(PAUSE);
        moving = moving.iter().filter_map(|flow| moved(flow, maps)).collect();
        if moving.is_empty() {
            break;
        }
    }
    // Only now: what a side answers to a reset that it did not take must find its way to the other, or the datapath would take the
    // flow up again in mid-stream.
    let mut additions = Additions::default();
    for flow in &flows {
        forget(flow, maps, &mut additions);
    }
    let accounted = maps.account_for_command(&mut additions);

    writeln!(
        environment.out,
        "{} ended",
        units::counted(flows.len(), "flow")
    )?;
    if !moving.is_empty() {
        let still = units::counted(moving.len(), "flow");
        writeln!(
            environment.err,
            "snigate: {still} carried packets to the end; those that come back (`snigate flow ls`) have to be ended again"
        )?;
    }
    unsent.map_or(Ok(()), Err)?;
    Ok(accounted?)
}

fn select(arguments: &Arguments, maps: &Maps, place: &Place) -> Result<Vec<Pair>, CliError> {
    let mut tables = read::flows(maps)?;
    if let Some(edge) = &arguments.edge {
        only_edge(&mut tables, edge, &read::names(maps)?)?;
    }
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

/// The flow as it is now, if it has carried packets since.
fn moved(flow: &Pair, maps: &Maps) -> Option<Pair> {
    let now = Pair {
        to_edge: entry(&flow.client_key, maps),
        to_client: entry(&flow.edge_key, maps),
        ..*flow
    };
    let packets = |flow: &Pair| flow.entries().map(|entry| entry.packets).sum::<u64>();
    (packets(&now) > packets(flow)).then_some(now)
}

fn entry(key: &FlowKey, maps: &Maps) -> Option<Flow> {
    maps.flows
        .get(key, 0)
        .or_else(|_| maps.half_open.get(key, 0))
        .ok()
}

fn forget(flow: &Pair, maps: &mut Maps, additions: &mut Additions) {
    for key in [&flow.client_key, &flow.edge_key] {
        // A flow is in one of the two, and may have left it by itself.
        maps.remove_flow(key, additions);
        let _ = maps.half_open.remove(key);
    }
    // Of one that the datapath has bound and no Edge has answered, the client is known there as well.
    let _ = maps.pending.remove(&flow.client_key);
    let _ = maps.hellos.remove(&flow.client_key);
}
