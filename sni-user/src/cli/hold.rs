//! `snigate hold`: the process that keeps the listening socket for the next agent. The agent starts it; people don't.

use std::{ffi::OsString, io, os::fd::AsFd as _, time::Duration};

use clap::ValueEnum as _;

use super::{
    CliError, Environment,
    run::{LogFormat, start_log},
};
use crate::hold;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// How long to wait for the next agent
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    patience: Duration,
    /// How log lines look
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

/// What comes after the program's name.
pub(super) fn arguments(patience: Duration, log_format: LogFormat) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "hold".into(),
        "--patience".into(),
        humantime::format_duration(patience).to_string().into(),
    ];
    if let Some(format) = log_format.to_possible_value() {
        arguments.extend(["--log-format".into(), format.get_name().into()]);
    }
    arguments
}

pub(super) fn run(
    arguments: &Arguments,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    start_log(arguments.log_format, environment.colour)?;
    // The agent's end of the line is on standard input.
    let line = io::stdin().as_fd().try_clone_to_owned();
    line.and_then(|line| hold::hold(line, arguments.patience))
        .map_err(CliError::Hold)
}
