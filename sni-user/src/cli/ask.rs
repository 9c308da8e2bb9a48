//! Asking the running agent.

use std::time::Duration;

use tokio::time::timeout;

use super::{CliError, Environment, place::Place};
use crate::control::{Client, ClientError};

/// Has a client ask something of the agent; what is wrong with a configuration is shown as `check` shows it.
pub(super) fn ask<T>(
    place: &Place,
    environment: &mut Environment<'_>,
    question: impl AsyncFnOnce(Client) -> Result<T, ClientError>,
) -> Result<T, CliError> {
    let socket = place.control()?;
    let answer = runtime()?.block_on(async {
        let client = Client::connect(&socket).await?;
        question(client).await
    });
    if let Err(ClientError::Refused(refusal)) = &answer
        && let Some(findings) = &refusal.findings
    {
        write!(environment.err, "{}", findings.rendered)?;
    }
    Ok(answer?)
}

/// How long an agent may take to tell of itself: what the maps say must not wait for one that hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Has a client ask something that only adds to what the maps say.
pub(super) fn patiently<T>(
    place: &Place,
    question: impl AsyncFnOnce(Client) -> Result<T, ClientError>,
) -> Result<T, CliError> {
    let socket = place.control()?;
    let answer = runtime()?.block_on(async {
        let asked = async { question(Client::connect(&socket).await?).await };
        timeout(PATIENCE, asked).await
    });
    match answer {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CliError::Silent { socket }),
    }
}

/// A command has one thing to wait for.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
}
