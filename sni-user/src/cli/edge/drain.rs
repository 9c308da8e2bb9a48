//! `snigate edge drain`.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    cli::{
        CliError, Environment,
        ask::{ask, patiently},
        flow::{end_flows, is_in_datapath},
        place::Place,
        units,
        view::flow::{FlowState, Pair},
    },
    control::{Client, EdgeChanged},
    datapath::Maps,
};

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The Edge's name
    name: String,
    /// Watch the number of its connections fall, until none is left
    #[arg(long)]
    watch: bool,
    /// Watch for this long, such as 30m or 2h, then reset what is left
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
}

/// How often the connections are counted, where that is quick.
const PAUSE: Duration = Duration::from_secs(1);
/// With millions of flows, counting takes this part of the time at most.
const PAUSE_PER_COUNT: u32 = 4;

pub(super) fn run(
    arguments: &Arguments,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let name = &arguments.name;
    // First, so that nothing is changed by whoever may not look.
    let mut maps = crate::cli::maps(place)?;
    let began = Instant::now();
    let drained = ask(place, environment, async |agent| {
        agent.drain_edge(name).await
    })?;
    let mut left = count(&drained, &maps, place)?;
    tell(&drained, left, environment)?;
    if !arguments.watch && arguments.deadline.is_none() {
        return Ok(());
    }
    let end = arguments.deadline.map(|deadline| began + deadline);
    while left > 0 {
        let counting = Instant::now();
        if end.is_some_and(|end| counting >= end) {
            return reset(&drained, &mut maps, place, environment);
        }
        let now = count(&drained, &maps, place)?;
        if now != left {
            writeln!(
                environment.out,
                "{} left",
                units::counted(now, "connection")
            )?;
            environment.out.flush()?;
            left = now;
        }
        let pause = PAUSE.max(counting.elapsed() * PAUSE_PER_COUNT);
        thread::sleep(end.map_or(pause, |end| {
            pause.min(end.saturating_duration_since(Instant::now()))
        }));
    }
    Ok(())
}

fn tell(
    drained: &EdgeChanged,
    left: usize,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let name = &drained.name;
    let since = if drained.changed { "" } else { " as before" };
    writeln!(
        environment.out,
        "{name} gets no new connections{since}; it has {}",
        units::counted(left, "connection")
    )?;
    for pool in &drained.without {
        writeln!(
            environment.err,
            "the pool {pool} has no Edge left that is up: its clients are refused until one is, or `snigate edge enable {name}`"
        )?;
    }
    environment.out.flush()?;
    Ok(())
}

/// The connections that the Edge has: flows of the datapath, half-open ones included, and those that the agent carries itself.
fn count(drained: &EdgeChanged, maps: &Maps, place: &Place) -> Result<usize, CliError> {
    let flows = living(&drained.name, maps)?.len();
    // Without an agent there are none; what is being handed off is counted once.
    let carried = patiently(place, async |agent: Client| agent.connections(None).await);
    let carried = carried.map_or_else(|_| Vec::new(), |carried| carried.connections);
    let its = carried
        .iter()
        .filter(|it| it.edge_address == drained.address && !is_in_datapath(it, maps));
    Ok(flows + its.count())
}

/// The Edge's flows but for those that have ended and only wait for the sweep.
fn living(name: &str, maps: &Maps) -> Result<Vec<Pair>, CliError> {
    let mut flows = end_flows::of_edge(name, maps)?;
    flows.retain(|flow| !matches!(flow.state(), FlowState::Closed | FlowState::Reset));
    Ok(flows)
}

/// The deadline has come: both sides of every connection are told.
fn reset(
    drained: &EdgeChanged,
    maps: &mut Maps,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    // The agent's first: what it is handing off then stays where it is.
    let ended = ask(place, environment, async |agent| {
        agent.end_edge(&drained.name).await
    })?;
    writeln!(
        environment.out,
        "the deadline has come; {} of the agent's ended",
        units::counted(ended.connections, "connection")
    )?;
    let flows = living(&drained.name, maps)?;
    let command = format!("edge drain {}: flows of the datapath", drained.name);
    end_flows::end_noted(&command, &flows, maps, place, environment)
}
