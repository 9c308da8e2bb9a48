//! `snigate detach`: what an agent has left goes.

use super::{CliError, Environment, ask::runtime, place::Place};
use crate::agent;

pub(super) fn run(place: &Place, environment: &mut Environment<'_>) -> Result<(), CliError> {
    let (pin_path, control) = (place.pin_path()?, place.control()?);
    runtime()?.block_on(agent::detach(&pin_path, &control))?;
    writeln!(
        environment.out,
        "detached: nothing of the datapath is left at {}",
        pin_path.display()
    )?;
    Ok(())
}
