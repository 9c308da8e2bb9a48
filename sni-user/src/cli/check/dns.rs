//! `snigate check --dns`: what a partner would see.

use std::{
    cell::Cell,
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    cli::{
        CliError, Environment,
        table::{Column, Row, show, write_json},
        units::counted,
    },
    config::{Config, Diagnostics, HostName, Roots},
    federation::{self, Examined, Finding, Kind, Options, Report, Severity, Summary},
};

/// What of it can be chosen.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "What partners see")]
// The group that clap makes would have the name of the command's own arguments.
#[group(skip)]
pub(super) struct Arguments {
    /// Look at the domains as partners do, from here and not at this host: DNS records, connections, certificates
    ///
    /// Run it where packets come to the gateway as those of partners: not on the gateway itself.
    #[arg(long, conflicts_with = "offline")]
    dns: bool,
    /// Only this SIP domain, which need not be in the configuration; may be repeated
    #[arg(long, value_name = "NAME", requires = "dns")]
    domain: Vec<HostName>,
    /// DNS server to ask [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDR[:PORT]", requires = "dns", value_parser = server)]
    resolver: Option<SocketAddr>,
    /// Domains at once
    #[arg(long, value_name = "NUMBER", requires = "dns", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// New connections per second; the gateway takes `syn_per_source` of one source
    #[arg(long, value_name = "NUMBER", requires = "dns", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// What one question, connection or answer may take
    #[arg(long, value_name = "TIME", requires = "dns", default_value = "5s", value_parser = positive)]
    timeout: Duration,
    /// What the whole check may take
    #[arg(long, value_name = "TIME", requires = "dns", default_value = "1h", value_parser = positive)]
    deadline: Duration,
    /// How early the end of a certificate is a finding
    #[arg(long, value_name = "TIME", requires = "dns", default_value = "30d", value_parser = humantime::parse_duration)]
    soon: Duration,
    /// PEM file with the roots that partners trust [default: the system's]
    #[arg(long, value_name = "FILE", requires = "dns")]
    roots: Option<PathBuf>,
    /// The name in CAA records of the authority in use, such as letsencrypt.org; may be repeated [default: known for many]
    #[arg(long, value_name = "NAME", requires = "dns")]
    caa: Vec<String>,
    /// Findings of this name are not reported; may be repeated
    #[arg(long, value_name = "ID", requires = "dns", value_parser = kind)]
    ignore: Vec<Kind>,
    /// Fail also where there are warnings only
    #[arg(long, requires = "dns")]
    strict: bool,
}

fn server(text: &str) -> Result<SocketAddr, String> {
    const DNS: u16 = 53;
    let address = text.parse::<IpAddr>();
    let with_port = || text.parse::<SocketAddr>();
    match address {
        Ok(address) => Ok(SocketAddr::new(address, DNS)),
        Err(_) => with_port().map_err(|_| {
            "write an address such as 192.0.2.53, 192.0.2.53:5300 or [2001:db8::53]:5300".to_owned()
        }),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        return Err("write a time such as 5s".to_owned());
    }
    Ok(duration)
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::of(text)
        .ok_or_else(|| "there is no such finding; docs/dns-check.md has all of them".to_owned())
}

impl Arguments {
    pub(super) fn wanted(&self) -> bool {
        self.dns
    }

    fn options(&self) -> Options {
        Options {
            resolver: self.resolver,
            concurrency: self.concurrency.into(),
            rate: self.rate,
            timeout: self.timeout,
            deadline: self.deadline,
            soon: self.soon,
            roots: self.roots.clone().map_or(Roots::System, Roots::File),
            caa: self
                .caa
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            ignored: self.ignore.clone(),
        }
    }

    /// The domains, each once.
    fn domains(&self, config: &Config) -> Vec<HostName> {
        let mut domains = self.domain.clone();
        if domains.is_empty() {
            domains = config
                .domains
                .iter()
                .map(|it| it.sip_domain.clone())
                .collect();
        }
        let mut seen = HashSet::new();
        domains.retain(|domain| seen.insert(domain.clone()));
        domains
    }
}

#[derive(Serialize)]
struct Json<'a> {
    file: &'a Path,
    diagnostics: &'a Diagnostics,
    dns: &'a Report,
}

/// Checks the domains of a configuration, about which there is nothing to say but `diagnostics`.
pub(super) fn run(
    arguments: &Arguments,
    json: bool,
    file: &Path,
    config: &Config,
    diagnostics: &Diagnostics,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let report = look(config, arguments)?;
    if json {
        let dns = &report;
        write_json(
            environment,
            &Json {
                file,
                diagnostics,
                dns,
            },
        )?;
    } else {
        write!(
            environment.err,
            "{}",
            diagnostics.render(environment.colour)
        )?;
        let lines: Vec<_> = report.domains.iter().flat_map(lines).collect();
        if !lines.is_empty() {
            show(environment, false, lines)?;
            writeln!(environment.out)?;
        }
        writeln!(environment.out, "{}", summary(&report))?;
    }
    let Summary {
        errors, warnings, ..
    } = report.summary;
    if errors > 0 || (arguments.strict && warnings > 0) {
        return Err(CliError::Reported);
    }
    Ok(())
}

fn look(config: &Config, arguments: &Arguments) -> Result<Report, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let domains = arguments.domains(config);
    if domains.is_empty() {
        // A check of nothing would always be a good one.
        let sentence = "the configuration has no [[domain]]: name SIP domains with --domain";
        return Err(CliError::Usage(sentence.to_owned()));
    }
    let bar = bar(domains.len());
    let faulty = Cell::new(0);
    let done = |examined: &Examined| {
        faulty.set(faulty.get() + usize::from(examined.has(Severity::Error)));
        bar.set_message(faulty.get().to_string());
        bar.inc(1);
    };
    let options = arguments.options();
    let report = runtime.block_on(federation::check(config, domains, &options, done));
    bar.finish_and_clear();
    Ok(report?)
}

/// On standard error, where that is a terminal.
fn bar(domains: usize) -> ProgressBar {
    let bar = ProgressBar::new(domains as u64);
    let template = "{wide_bar} {pos} of {len} domains, {msg} with errors, {eta} left";
    // A template of the program's own is right, and without it the bar would be only plainer.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message("0");
    bar
}

fn summary(report: &Report) -> String {
    let Summary {
        domains,
        good,
        errors,
        warnings,
        notes,
        ..
    } = &report.summary;
    format!(
        "{}, {good} without errors and warnings: {}, {}, {}; DNS by {}",
        counted(*domains, "domain"),
        counted(*errors, "error"),
        counted(*warnings, "warning"),
        counted(*notes, "note"),
        report.resolver,
    )
}

/// A finding with its domain.
#[derive(Serialize)]
struct Line<'a> {
    domain: &'a HostName,
    #[serde(flatten)]
    finding: &'a Finding,
}

fn lines(examined: &Examined) -> impl Iterator<Item = Line<'_>> {
    let domain = &examined.domain;
    examined
        .findings
        .iter()
        .map(move |finding| Line { domain, finding })
}

impl Row for Line<'_> {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("DOMAIN"),
        Column::left("RESULT"),
        Column::left("FINDING"),
        Column::wrapping("WHAT"),
    ];

    fn cells(&self) -> Vec<String> {
        let Finding {
            severity,
            kind,
            message,
            mend,
        } = self.finding;
        vec![
            self.domain.to_string(),
            severity.name().into(),
            kind.id().into(),
            format!("{message}: {mend}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_an_address_and_maybe_a_port() {
        for (text, expected) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5300", "192.0.2.53:5300"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5300", "[2001:db8::53]:5300"),
        ] {
            assert_eq!(server(text), Ok(expected.parse().unwrap()));
        }
        assert!(server("dns.example").is_err());
        assert!(positive("0s").is_err() && positive("7").is_err());
        assert!(kind("srv-missing").is_ok() && kind("srv").is_err());
    }
}
