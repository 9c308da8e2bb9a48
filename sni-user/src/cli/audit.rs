//! What commands do by themselves, on the pinned maps, told to the agent: its log is where one looks for who has done what.

use super::{CliError, Environment, ask::patiently, place::Place};
use crate::control::{Client, ClientError};

/// Has the agent's log say what came of a command, and hands on its failure. Where no agent runs there is no such log.
pub(super) fn noted(
    place: &Place,
    environment: &mut Environment<'_>,
    command: &str,
    outcome: Result<String, CliError>,
) -> Result<(), CliError> {
    let words = match &outcome {
        Ok(done) => done.clone(),
        Err(error) => format!("failed: {error}"),
    };
    let noted = patiently(place, async |agent: Client| {
        agent.note(command, &words).await
    });
    match noted {
        Ok(()) | Err(CliError::Control(ClientError::NoAgent { .. })) => {}
        Err(error) => writeln!(
            environment.err,
            "snigate: the log of the agent does not have this command: {error}"
        )?,
    }
    outcome.map(drop)
}
