//! `snigate check`.

mod dns;
mod host;

use std::path::Path;

use serde::Serialize;

use self::host::{Finding, Outcome};
use super::{
    CliError, Environment, Output,
    place::Place,
    table::{Column, Row, show, write_json},
    units::counted,
};
use crate::config::{Config, Diagnostics, IpSet, Loaded, Mode};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Look at the configuration only, not at this host
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    dns: dns::Arguments,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    valid: bool,
    diagnostics: &'a Diagnostics,
    /// `None` where the configuration is wrong, or with `--offline`.
    host: Option<&'a [Finding]>,
    /// As the gateway understands it, defaults filled in; `None` where it is wrong.
    config: Option<&'a Config>,
}

pub(super) fn run(
    arguments: &Arguments,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let file = place.config();
    let loaded = Config::load(file);
    let (diagnostics, config) = match &loaded {
        Ok(loaded) => (&loaded.warnings, Some(&loaded.config)),
        Err(diagnostics) => (diagnostics, None),
    };
    let host = match config {
        Some(config) if arguments.dns.wanted() => {
            let json = arguments.output.json;
            return dns::run(&arguments.dns, json, file, config, diagnostics, environment);
        }
        Some(config) if !arguments.offline => Some(look_at_host(config)?),
        _ => None,
    };
    if arguments.output.json {
        let valid = config.is_some();
        let host = host.as_deref();
        write_json(
            environment,
            &Report {
                file,
                valid,
                diagnostics,
                host,
                config,
            },
        )?;
    } else {
        write!(
            environment.err,
            "{}",
            diagnostics.render(environment.colour)
        )?;
        if let Ok(loaded) = &loaded {
            summarize(file, loaded, environment)?;
        }
        if let Some(findings) = &host {
            writeln!(environment.out)?;
            show(environment, false, findings)?;
        }
    }
    let mut findings = host.iter().flatten();
    if config.is_none() || findings.any(|finding| finding.result == Outcome::Error) {
        return Err(CliError::Reported);
    }
    Ok(())
}

fn look_at_host(config: &Config) -> Result<Vec<Finding>, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    Ok(runtime.block_on(host::findings(config)))
}

/// What the configuration means.
fn summarize(
    file: &Path,
    loaded: &Loaded,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let config = &loaded.config;
    let names: usize = config.domains.iter().map(|domain| domain.names.len()).sum();
    let terminated = config
        .domains
        .iter()
        .filter(|domain| domain.terminate.is_some())
        .count();
    let from = match loaded.files.len() {
        1 => String::new(),
        files => format!(", with {}", counted(files - 1, "included file")),
    };
    writeln!(environment.out, "{}{from} is right:", file.display())?;
    writeln!(
        environment.out,
        "{} in {}, {} with {} ({terminated} terminated here)\n",
        counted(config.edges.len(), "Edge"),
        counted(config.pools.len(), "pool"),
        counted(config.domains.len(), "domain"),
        counted(names, "name"),
    )?;
    let lines: Vec<_> = config.ip_sets.iter().map(IpSetLine::new).collect();
    show(environment, false, &lines)
}

/// What an IP set means.
#[derive(Serialize)]
struct IpSetLine {
    name: String,
    addresses: Vec<String>,
    ports: Vec<String>,
    treatment: String,
}

impl IpSetLine {
    fn new(set: &IpSet) -> Self {
        Self {
            name: set.name.to_string(),
            addresses: set.addresses.iter().map(ToString::to_string).collect(),
            ports: set.ports.iter().map(ToString::to_string).collect(),
            treatment: match &set.mode {
                Mode::Steer { pool } => format!("steered to {}", pool.name()),
                Mode::Inspect {
                    default: Some(pool),
                    ..
                } => {
                    format!("by server name, else to {}", pool.name())
                }
                Mode::Inspect { default: None, .. } => "by server name, else refused".into(),
            },
        }
    }
}

impl Row for IpSetLine {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("IP SET"),
        Column::wrapping("ADDRESSES"),
        Column::wrapping("PORTS"),
        Column::wrapping("CONNECTIONS GO"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.addresses.join(" "),
            self.ports.join(" "),
            self.treatment.clone(),
        ]
    }
}
