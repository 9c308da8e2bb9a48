//! Programs that run in a lab's directory.

use std::{
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{Lab, Topology, gateway::binary, output_within};

/// Long enough for ten thousand domains by a debug build on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// Runs a program in the directory of the lab, with words for arguments.
pub(crate) fn run(lab: &Lab, program: &str, arguments: &str) -> Result<Output> {
    let mut command = match program {
        "snigate" => Command::new(binary()?),
        _ => Command::new(program),
    };
    command
        .args(arguments.split_whitespace())
        .current_dir(lab.dir())
        .env_remove("COLUMNS");
    output_within(&mut command, TIMEOUT)
}

/// The same for one that succeeds: what it has written to standard output.
pub(crate) fn ok(lab: &Lab, program: &str, arguments: &str) -> Result<String> {
    let output = run(lab, program, arguments)?;
    ensure!(output.status.success(), "{program} {arguments}: {output:?}");
    String::from_utf8(output.stdout).context("UTF-8")
}

/// The same for one that fails with a status: what it has written to standard error.
pub(crate) fn fails(lab: &Lab, program: &str, arguments: &str, status: i32) -> Result<String> {
    let output = run(lab, program, arguments)?;
    ensure!(
        output.status.code() == Some(status),
        "{program} {arguments}: {output:?}"
    );
    String::from_utf8(output.stderr).context("UTF-8")
}
