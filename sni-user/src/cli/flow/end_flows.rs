//! Ending flows: both sides are reset, then the datapath forgets them.

use std::{thread, time::Duration};

use sni_common::contract::{Flow, FlowKey};

use super::{
    reset::{Sender, resets},
    select::only_edge,
};
use crate::{
    cli::{
        CliError, Environment, audit,
        place::Place,
        read, units,
        view::flow::{Pair, Pairs},
    },
    datapath::{Additions, Maps},
};

/// A busy flow moves on between the reading of its numbers and the resets: then again, with new numbers.
const ROUNDS: u32 = 5;
/// For segments on their way through this host when the resets were sent.
const PAUSE: Duration = Duration::from_millis(20);

/// The flows to an Edge, by its name or `#slot`.
pub(in crate::cli) fn of_edge(name: &str, maps: &Maps) -> Result<Vec<Pair>, CliError> {
    let mut tables = read::flows(maps)?;
    only_edge(&mut tables, name, &read::names(maps)?)?;
    Ok(Pairs::new(tables).iter().collect())
}

/// Ends these flows, and says so: here, and in the log of the agent as what came of `command`.
pub(in crate::cli) fn end_noted(
    command: &str,
    flows: &[Pair],
    maps: &mut Maps,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let ended = end(flows, maps, environment);
    let outcome = ended.map(|()| format!("{} ended", units::counted(flows.len(), "flow")));
    audit::noted(place, environment, command, outcome)
}

/// Ends these flows, and says so.
fn end(flows: &[Pair], maps: &mut Maps, environment: &mut Environment<'_>) -> Result<(), CliError> {
    let sender = Sender::open()?;
    let mut unsent = None;
    let mut moving = flows.to_vec();
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
    for flow in flows {
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
