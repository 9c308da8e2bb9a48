//! `snigate watch`.

use std::net::IpAddr;

use tokio::{select, signal};

use super::{CliError, Environment, ask::runtime, place::Place, units, view::hello};
use crate::{
    config::IpNet,
    control::{Client, Notice, WatchFilter, Watching},
};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Only server names that fit this pattern, with * and ?
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    name: Option<String>,
    /// Only clients of this prefix or address
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    source: Option<IpNet>,
    /// Write a JSON object per line instead of text
    #[arg(long)]
    json: bool,
}

fn pattern(text: &str) -> Result<String, String> {
    match glob::Pattern::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| {
        "write a prefix, such as 192.0.2.0/24 or 2001:db8::/32, or an address".to_owned()
    })
}

pub(super) fn run(
    arguments: &Arguments,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let socket = place.control()?;
    let filter = WatchFilter {
        name: arguments.name.clone(),
        source: arguments.source,
    };
    runtime()?.block_on(async {
        let watching = Client::connect(&socket).await?.watch(filter).await?;
        if !arguments.json {
            writeln!(environment.out, "{}", hello::header())?;
            environment.out.flush()?;
        }
        select! {
            shown = show(watching, arguments.json, environment) => shown,
            interrupted = signal::ctrl_c() => interrupted.map_err(CliError::Runtime),
        }
    })
}

/// Until the agent ends. Every line goes out at once: whoever reads may be a program.
async fn show(
    mut watching: Watching,
    json: bool,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    while let Some(notice) = watching.next().await? {
        match &notice {
            Notice::Hello(seen) if json => write_line(environment, seen)?,
            Notice::Lost(_) if json => write_line(environment, &notice)?,
            Notice::Hello(seen) => writeln!(environment.out, "{}", hello::line(seen))?,
            Notice::Lost(lost) => writeln!(
                environment.err,
                "({} more came faster than this was read)",
                units::count(*lost)
            )?,
        }
        environment.out.flush()?;
    }
    writeln!(environment.err, "the agent has ended")?;
    Ok(())
}

fn write_line(
    environment: &mut Environment<'_>,
    value: &impl serde::Serialize,
) -> Result<(), CliError> {
    serde_json::to_writer(&mut *environment.out, value).map_err(std::io::Error::from)?;
    writeln!(environment.out)?;
    Ok(())
}
