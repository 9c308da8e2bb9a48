//! `snigate run`: the agent in the foreground.

use std::{io, time::Duration};

use tracing_subscriber::EnvFilter;

use super::{CliError, Environment, hold, place::Place};
use crate::agent::{self, AgentError, RunOptions};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Leave everything in place when the agent ends, for the next one: flows and steering go on, and connections to inspected addresses
    /// wait. `snigate detach` removes it
    #[arg(long)]
    leave: bool,
    /// Remove what is pinned first, of whatever version; its flows are cut off
    #[arg(long)]
    fresh: bool,
    /// How long connections to inspected addresses wait for the next agent when this one has ended, other than in good order, before
    /// they are refused; where systemd runs the agent, they wait for as long as it does
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", default_value = "2m")]
    patience: Duration,
    /// How log lines look
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(super) enum LogFormat {
    /// For people
    Human,
    /// One JSON object per line
    Json,
}

pub(super) fn run(
    arguments: &Arguments,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    if place.pin_path_argument().is_some() {
        return Err(CliError::Usage(
            "`snigate run` pins where the configuration says: set `gateway.pin_path` there, and leave out --pin-path and SNIGATE_PIN_PATH"
                .into(),
        ));
    }
    let log_format = arguments.log_format;
    start_log(log_format, environment.colour)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let options = RunOptions {
        config: place.config().to_owned(),
        leave: arguments.leave,
        fresh: arguments.fresh,
        holder: hold::arguments(arguments.patience, log_format),
    };
    match runtime.block_on(agent::run(options)) {
        // Such findings are more than a sentence: each shows its place in the file.
        Err(AgentError::Configuration(diagnostics)) => {
            write!(
                environment.err,
                "{}",
                diagnostics.render(environment.colour)
            )?;
            Err(CliError::Reported)
        }
        outcome => Ok(outcome?),
    }
}

/// Logs go to standard error, at the levels that RUST_LOG names, else at `info`; coloured where people read them as they come.
pub(super) fn start_log(format: LogFormat, colour: bool) -> Result<(), CliError> {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env()
        .map_err(|error| CliError::Usage(format!("RUST_LOG can't be understood: {error}")))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        // It would be told on standard error, which can't be written to just then: a panic, where a line is lost.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    match format {
        LogFormat::Human => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    }
    .map_err(CliError::Log)
}
