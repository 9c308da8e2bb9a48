//! `snigate status`.

use std::time::Duration;

use serde::Serialize;
use sni_common::contract::{ABI_VERSION, Direction, Flow, FlowKey};

use super::{
    CliError, Environment, Output, ask, map,
    place::Place,
    read,
    table::{show, write_json},
    units,
    view::status::{self, AgentCounterLine, FillLine, Status},
};
use crate::{
    control::{AgentStatus, Client},
    datapath::{DatapathError, Maps, attached_interfaces},
};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Also show counters and drop reasons that are zero
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(
    arguments: &Arguments,
    maps: Result<Maps, CliError>,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let agent = agent(place);
    let maps = match (maps, &agent) {
        (Ok(maps), _) => maps,
        // The group that may ask the agent may not open the maps.
        (Err(error @ CliError::Datapath(DatapathError::Privileges { .. })), Ok(agent)) => {
            return tell_agent(agent, &error, arguments, environment);
        }
        (Err(error), _) => return Err(error),
    };
    let maps = &maps;
    let stats = maps.stats()?;
    let flows = read::flows(maps)?;
    let lines = map::lines(maps, &flows)?;
    let max_entries = lines.iter().find(|line| line.kind.name == "FLOWS");
    let status = Status {
        pin_path: maps.pin_path().to_owned(),
        // `Maps::open` takes no other.
        abi: ABI_VERSION,
        generation: maps.generation()?,
        interfaces: status::interfaces(attached_interfaces(maps.pin_path())?, agent.as_ref().ok()),
        flags: status::flags(maps.flags()?),
        edges: edges(maps, agent.as_ref().ok())?,
        announced: maps.announced()?.map(Into::into),
        max_flows: max_entries.map_or(0, |line| line.kind.max_entries / 2),
        flows: count(&flows.established),
        half_open: count(&flows.half_open),
        maps: lines,
        counters: status::counters(&stats)
            .iter()
            .map(|line| (line.counter, line.value))
            .collect(),
        drops: status::drops(&stats),
        listener: maps.listeners.cookie()?.is_some(),
        agent: agent.as_ref().ok().cloned(),
    };
    if arguments.output.json {
        return write_json(environment, &status);
    }

    summarize(&status, environment)?;
    let agent_counters = match &agent {
        Ok(agent) => {
            summarize_agent(agent, false, environment)?;
            status::agent_counters(agent, arguments.all)
        }
        Err(error) => {
            writeln!(environment.out, "{:<12} {error}", "agent")?;
            if status.listener {
                writeln!(
                    environment.out,
                    "{:<12} kept for the next agent: connections to inspected addresses wait for it",
                    "listener"
                )?;
            }
            Vec::new()
        }
    };
    tell_trouble(&status.edges, environment)?;
    let filling: Vec<_> = status
        .maps
        .iter()
        .filter(|line| line.entries.is_some())
        .map(FillLine)
        .collect();
    writeln!(environment.out)?;
    show(environment, false, &filling)?;
    let mut counters = status::counters(&stats);
    counters.retain(|line| arguments.all || line.value > 0);
    if !counters.is_empty() {
        writeln!(environment.out)?;
        show(environment, false, &counters)?;
    }
    if !agent_counters.is_empty() {
        writeln!(environment.out)?;
        show::<AgentCounterLine>(environment, false, agent_counters)?;
    }
    let mut drops = status.drops;
    drops.retain(|line| arguments.all || line.packets > 0);
    if !drops.is_empty() {
        writeln!(environment.out)?;
        show(environment, false, &drops)?;
    }
    Ok(())
}

fn summarize(state: &Status, environment: &mut Environment<'_>) -> Result<(), CliError> {
    let interfaces = if state.interfaces.is_empty() {
        "nothing: no packet passes through the datapath".into()
    } else {
        let lines: Vec<_> = state.interfaces.iter().map(ToString::to_string).collect();
        // Each in a line of its own, below the first.
        lines.join(&format!("\n{:<12} ", ""))
    };
    let generation = match state.generation {
        0 => "none: nothing is steered before the first configuration".into(),
        generation => generation.to_string(),
    };
    let flows = format!(
        "{} of {} ({}), and {} half-open",
        units::count(state.flows as u64),
        units::count(state.max_flows.into()),
        units::share(state.flows as u64, state.max_flows.into()),
        units::count(state.half_open as u64),
    );
    let diagnostics = if state.flags.contains(&"log") {
        "on"
    } else {
        "off"
    };
    for (what, value) in [
        (
            "pinned",
            format!("{}, ABI {}", state.pin_path.display(), state.abi),
        ),
        ("attached", interfaces),
        ("generation", generation),
        ("flows", flows),
        ("edges", status::states(&state.edges)),
        (
            "binding",
            status::binding(state.announced, state.agent.as_ref()),
        ),
        ("diagnostics", diagnostics.into()),
    ] {
        writeln!(environment.out, "{what:<12} {value}")?;
    }
    Ok(())
}

/// Which Edges get no new connections, and why.
fn tell_trouble(
    edges: &[status::EdgeLine],
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let trouble = status::trouble(edges);
    if !trouble.is_empty() {
        writeln!(environment.out)?;
        show(environment, false, trouble)?;
    }
    Ok(())
}

/// The agent's part alone, and on standard error why the rest is missing.
fn tell_agent(
    agent: &AgentStatus,
    error: &CliError,
    arguments: &Arguments,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    writeln!(environment.err, "only the agent is shown: {error}")?;
    if arguments.output.json {
        return write_json(environment, &AgentAlone { agent });
    }
    summarize_agent(agent, true, environment)?;
    tell_trouble(&status::known_edges(&agent.edges), environment)?;
    let counters = status::agent_counters(agent, arguments.all);
    if !counters.is_empty() {
        writeln!(environment.out)?;
        show::<AgentCounterLine>(environment, false, counters)?;
    }
    Ok(())
}

/// What is left of a [`Status`] without the maps.
#[derive(Serialize)]
struct AgentAlone<'a> {
    agent: &'a AgentStatus,
}

/// What the agent says of itself; without one, that there is none.
fn agent(place: &Place) -> Result<AgentStatus, CliError> {
    ask::patiently(place, Client::status)
}

/// `alone`: without the part of the maps, which has something of the agent's.
fn summarize_agent(
    agent: &AgentStatus,
    alone: bool,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let ms = |ms| units::duration(Duration::from_millis(ms));
    let configuration = &agent.configuration;
    let mut lines = vec![
        (
            "agent",
            format!(
                "{}, process {}, for {}",
                agent.version,
                agent.pid,
                ms(agent.uptime_ms)
            ),
        ),
        ("connections", units::count(agent.connections)),
        (
            "configured",
            format!(
                "{}, active for {}",
                configuration.file.display(),
                ms(configuration.age_ms)
            ),
        ),
    ];
    if alone {
        lines.push(("edges", status::states(&status::known_edges(&agent.edges))));
        lines.push(("binding", status::binding(None, Some(agent))));
    }
    if let Some(refused) = &configuration.refused {
        let at = humantime::format_rfc3339_seconds(refused.at);
        lines.push(("refused", format!("at {at}: {}", refused.why)));
    }
    for (what, value) in lines {
        writeln!(environment.out, "{what:<12} {value}")?;
    }
    Ok(())
}

/// The Edges that the active configuration uses.
fn edges(maps: &Maps, agent: Option<&AgentStatus>) -> Result<Vec<status::EdgeLine>, CliError> {
    let names = read::names(maps)?;
    let pools = read::pools_of(maps, names.generation)?;
    let known = agent.map_or(&[][..], |agent| &agent.edges);
    Ok(status::edges(&pools, &read::edges(maps)?, &names, known))
}

/// Each flow counts once, by the entry of its client's packets.
fn count(entries: &[(FlowKey, Flow)]) -> usize {
    entries
        .iter()
        .filter(|(_, flow)| flow.direction == Direction::ToEdge as u8)
        .count()
}
