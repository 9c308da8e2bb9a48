//! `snigate reload`.

use std::time::Duration;

use super::{
    CliError, Environment,
    ask::ask,
    place::Place,
    units::{count, counted, duration},
};
use crate::control::{Client, Reloaded};

pub(super) fn run(place: &Place, environment: &mut Environment<'_>) -> Result<(), CliError> {
    let reloaded = ask(place, environment, Client::reload)?;
    tell(&reloaded, environment)
}

/// What is active now.
pub(super) fn tell(reloaded: &Reloaded, environment: &mut Environment<'_>) -> Result<(), CliError> {
    for warning in &reloaded.warnings {
        writeln!(environment.err, "{warning}")?;
    }
    writeln!(
        environment.out,
        "configuration active after {}: generation {}, from {}",
        duration(Duration::from_micros(reloaded.took_us)),
        reloaded.generation,
        counted(reloaded.files, "file"),
    )?;
    writeln!(
        environment.out,
        "{}, {} in {}, {} with {} ({} terminated here)",
        counted(reloaded.ip_sets, "IP set"),
        counted(reloaded.edges, "Edge"),
        counted(reloaded.pools, "pool"),
        counted(reloaded.domains, "domain"),
        counted(reloaded.names, "name"),
        count(reloaded.terminated as u64),
    )?;
    Ok(())
}
