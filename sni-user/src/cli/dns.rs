//! `snigate dns`.

use std::{collections::BTreeSet, path::PathBuf};

use serde::Serialize;

use super::{
    CliError, Environment, Output,
    place::Place,
    plan::{AddressSet, address_set, read_list},
    table::{Column, Row, show},
};
use crate::plan::{Federation, Findable, Record, SipDomain};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Only these SIP domains
    domains: Vec<SipDomain>,
    /// Take the domains from a list, as `snigate plan` reads it, and not from the configuration; `-` for standard input
    #[arg(long, value_name = "FILE", requires = "addresses")]
    list: Option<PathBuf>,
    /// With --list: addresses of the gateways, separated by commas
    #[arg(long = "address", value_name = "ADDRESS", value_parser = address_set, requires = "list")]
    addresses: Vec<AddressSet>,
    /// How long resolvers keep the records, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..=604_800))]
    ttl: u32,
    /// Write lines for zone files; names are absolute, so that they may stand in any zone that has them
    #[arg(long, conflicts_with = "json")]
    zone: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(
    arguments: &Arguments,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let mut complete = true;
    let mut complain = |environment: &mut Environment<'_>, sentence: String| {
        complete = false;
        writeln!(environment.err, "snigate: {sentence}")
    };
    let mut findable = Vec::new();
    for found in candidates(arguments, place, environment)? {
        match found {
            Ok(found) => findable.push(found),
            Err(invalid) => complain(environment, invalid.to_string())?,
        }
    }
    let wanted: BTreeSet<_> = arguments.domains.iter().collect();
    for domain in &wanted {
        if !findable.iter().any(|it| it.domain == **domain) {
            complain(
                environment,
                format!("{domain} is none of the domains that partners find by the DNS"),
            )?;
        }
    }
    findable.retain(|it| wanted.is_empty() || wanted.contains(&it.domain));
    for Findable { domain, .. } in findable.iter().filter(|it| it.addresses.is_empty()) {
        complain(
            environment,
            format!(
                "{domain} has no address: no [[ip_set]] with port 5061 leads to its pool, or inspects"
            ),
        )?;
    }
    write(arguments, &findable, environment)?;
    match complete {
        true => Ok(()),
        false => Err(CliError::Reported),
    }
}

/// The domains of the list or of the configuration.
fn candidates(
    arguments: &Arguments,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<Vec<Result<Findable, crate::config::InvalidValue>>, CliError> {
    let Some(list) = &arguments.list else {
        let config = place.load(environment)?;
        return Ok(Findable::of_config(&config).collect());
    };
    let sets = arguments.addresses.iter();
    let addresses: Vec<_> = sets.flat_map(|set| set.0.iter().copied()).collect();
    let list = read_list(Some(list), environment)?;
    let listed = list.domains.into_iter();
    let open = listed.filter(|it| it.federation == Federation::Open);
    Ok(open
        .map(|listed| {
            Ok(Findable {
                target: listed.domain.federation_name(),
                domain: listed.domain,
                addresses: addresses.clone(),
            })
        })
        .collect())
}

fn write(
    arguments: &Arguments,
    findable: &[Findable],
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let lines = findable.iter().flat_map(|found| {
        found.records().into_iter().map(|record| Line {
            domain: &found.domain,
            value: record.data.to_string(),
            record,
            ttl: arguments.ttl,
        })
    });
    if arguments.zone {
        for line in lines {
            write!(environment.out, "{}", line.record.zone_line(line.ttl))?;
        }
        return Ok(());
    }
    show(environment, arguments.output.json, lines)
}

#[derive(Serialize)]
struct Line<'a> {
    domain: &'a SipDomain,
    #[serde(flatten)]
    record: Record,
    ttl: u32,
    /// As a zone file has it.
    value: String,
}

impl Row for Line<'_> {
    const COLUMNS: &'static [Column] = &[
        Column::wrapping("DOMAIN").spare(2),
        Column::wrapping("NAME"),
        Column::left("TYPE"),
        Column::right("TTL").spare(1),
        Column::wrapping("VALUE"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.domain.to_string(),
            self.record.owner.clone(),
            self.record.data.kind().to_owned(),
            self.ttl.to_string(),
            self.value.clone(),
        ]
    }
}
