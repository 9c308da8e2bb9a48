//! `snigate map`: the maps themselves.

use sni_common::contract::{LISTENER, Pool, limits};

use super::{
    CliError, Environment, Output,
    read::{self, FlowTables, entries},
    table::{Row, show},
    units,
    view::{
        dump,
        entry::{Entry, Reading},
        status::MapLine,
    },
};
use crate::datapath::{DatapathError, MAPS, Maps, map_kind};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List the maps: what they hold, and how full they are
    Ls(Output),
    /// Show the entries of a map, decoded
    Dump {
        /// The map's name, as `map ls` shows it
        #[arg(value_name = "NAME")]
        name: String,
        /// Show this many entries at most
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(
    verb: &Verb,
    maps: &Maps,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    match verb {
        Verb::Ls(output) => show(environment, output.json, &lines(maps, &read::flows(maps)?)?),
        Verb::Dump {
            name,
            limit,
            output,
        } => {
            let mut dumping = Dumping {
                environment,
                limit: *limit,
                json: output.json,
            };
            dumping.dump(&name.to_uppercase(), maps)
        }
    }
}

/// The shapes of all maps with the numbers of their entries; those of FLOWS and HALF_OPEN have been read already.
pub(super) fn lines(maps: &Maps, flows: &FlowTables) -> Result<Vec<MapLine>, DatapathError> {
    let mut lines = Vec::new();
    for (name, holds) in MAPS {
        let entries = match *name {
            "SERVICES" => Some(entries(name, maps.services.keys(), limits::MAX_SERVICES)?.len()),
            "POOLS" => Some(read::pools(maps)?.len()),
            "EDGES" => Some(read::edges(maps)?.len()),
            "SNI_ROUTES" => Some(counted(|each| maps.for_each_route(each))?),
            "SNI_LEARNED" => Some(counted(|each| maps.for_each_learned(each))?),
            "LISTENERS" => Some(maps.listeners.cookie()?.iter().len()),
            "FLOWS" => Some(flows.established.len()),
            "HALF_OPEN" => Some(flows.half_open.len()),
            "HANDING_OFF" => {
                Some(entries(name, maps.handing_off.keys(), limits::MAX_HANDING_OFF)?.len())
            }
            "CLIENT_SYNS" => {
                Some(entries(name, maps.client_syns.keys(), limits::MAX_SYNS_SEEN)?.len())
            }
            "EDGE_SYN_ACKS" => {
                Some(entries(name, maps.edge_syn_acks.keys(), limits::MAX_SYNS_SEEN)?.len())
            }
            "ACCOUNTS" => Some(entries(name, maps.accounts.keys(), limits::MAX_ACCOUNTS)?.len()),
            "ACL" => Some(entries(name, maps.acl.keys(), limits::MAX_ACL)?.len()),
            "BUDGET" => Some(entries(name, maps.budget.keys(), limits::MAX_BUDGET)?.len()),
            "LINKS" => Some(entries(name, maps.links.keys(), limits::MAX_LINKS)?.len()),
            "LABELS" => Some(entries(name, maps.labels.keys(), limits::MAX_LABELS)?.len()),
            "PENDING" => Some(maps.all_pending()?.len()),
            "HELLOS" => Some(entries(name, maps.hellos.keys(), limits::MAX_HELLOS)?.len()),
            _ => None,
        };
        lines.push(MapLine {
            kind: map_kind(maps.pin_path(), name, holds)?,
            entries,
        });
    }
    Ok(lines)
}

/// How many entries a reading of a map hands over.
fn counted<K, V, R>(read: R) -> Result<usize, DatapathError>
where
    R: FnOnce(&mut dyn FnMut(K, V) -> Result<(), DatapathError>) -> Result<(), DatapathError>,
{
    let mut count = 0;
    read(&mut |_, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

struct Dumping<'a, 'e> {
    environment: &'a mut Environment<'e>,
    limit: Option<usize>,
    json: bool,
}

impl Dumping<'_, '_> {
    fn dump(&mut self, name: &str, maps: &Maps) -> Result<(), CliError> {
        let names = read::names(maps)?;
        let interface_name = self.environment.interface_name;
        match name {
            "CONTROL" => {
                let values = entries("CONTROL", maps.control.iter(), maps.control.len())?;
                self.show(dump::control(&values))
            }
            "SETTINGS" => {
                let banks = entries("SETTINGS", maps.settings.iter(), maps.settings.len())?;
                self.show(dump::settings(&banks, names.generation))
            }
            "FILTER" => {
                let words = entries("FILTER", maps.filter.iter(), limits::FILTER_WORDS)?;
                self.show(dump::filter(&words))
            }
            "SERVICES" => self.show(dump::services(&read::services(maps)?, &names)),
            "POOLS" => self.show(dump::pools(&read::pools(maps)?, &names)),
            "MAGLEV" => {
                let mut tables = Vec::new();
                let pools = read::pools(maps)?.into_iter().map(|(index, _)| index);
                let pools: Vec<_> = pools.collect();
                let available = pools.iter().map(|pool| Pool::available_index(0, *pool));
                for index in pools.iter().copied().chain(available) {
                    let table = entries("MAGLEV", std::iter::once(maps.maglev.get(&index, 0)), 1)?;
                    tables.extend(table.into_iter().map(|table| (index, Box::new(table.0))));
                }
                self.show(dump::maglev(&tables, &names))
            }
            "EDGES" => self.show(dump::edges(&read::edges(maps)?, &names)),
            "SNI_ROUTES" => self.show(dump::routes(read::routes(maps)?, &names)),
            "SNI_LEARNED" => {
                let now_ns = (self.environment.now_ns)();
                self.show(dump::learned(read::learned(maps)?, &names, now_ns))
            }
            "LISTENERS" => self.show(dump::listeners(LISTENER, maps.listeners.cookie()?)),
            "FLOWS" | "HALF_OPEN" => {
                let flows = if name == "FLOWS" {
                    maps.all_flows()?
                } else {
                    maps.all_half_open()?
                };
                let reading = Reading {
                    names: &names,
                    routes: &read::route_names(maps)?,
                    now_ns: (self.environment.now_ns)(),
                    interface_name,
                };
                self.show(
                    flows
                        .iter()
                        .map(|(key, flow)| Entry::new(key, flow, reading)),
                )
            }
            "HANDING_OFF" => {
                let all = entries(
                    "HANDING_OFF",
                    maps.handing_off.iter(),
                    limits::MAX_HANDING_OFF,
                )?;
                self.show(dump::handing_off(all))
            }
            "CLIENT_SYNS" => {
                let all = entries(
                    "CLIENT_SYNS",
                    maps.client_syns.iter(),
                    limits::MAX_SYNS_SEEN,
                )?;
                self.show(dump::syns(all))
            }
            "EDGE_SYN_ACKS" => {
                let all = entries(
                    "EDGE_SYN_ACKS",
                    maps.edge_syn_acks.iter(),
                    limits::MAX_SYNS_SEEN,
                )?;
                self.show(dump::syns(all))
            }
            "ACCOUNTS" => {
                let all = read::accounts_by_writer(maps)?;
                self.show(dump::accounts(all, &names, &read::route_names(maps)?))
            }
            "ACL" => {
                let prefixes = entries("ACL", maps.acl.iter(), limits::MAX_ACL)?;
                let prefixes: Vec<_> = prefixes
                    .into_iter()
                    .map(|(key, action)| {
                        let data = key.data();
                        let bits = key.prefix_len().saturating_sub(32);
                        (data.generation, data.address, bits, action)
                    })
                    .collect();
                self.show(dump::acl(&prefixes))
            }
            "BUDGET" => {
                let buckets = entries("BUDGET", maps.budget.iter(), limits::MAX_BUDGET)?;
                self.show(dump::budget(&buckets, (self.environment.now_ns)()))
            }
            "LINKS" => {
                let links = entries("LINKS", maps.links.iter(), limits::MAX_LINKS)?;
                self.show(dump::links(&links, interface_name))
            }
            "STATS" => self.show(dump::stats(&maps.stats()?)),
            "LABELS" => self.show(dump::labels(&names)),
            "PENDING" => {
                let now_ns = (self.environment.now_ns)();
                self.show(dump::pending(maps.all_pending()?, &names, now_ns))
            }
            "HELLOS" => {
                // The bytes first: what is pending no longer then has no length.
                let hellos = entries("HELLOS", maps.hellos.iter(), limits::MAX_HELLOS)?;
                let pending = maps.all_pending()?.into_iter().collect();
                self.show(dump::hellos(hellos, &pending))
            }
            "EVENTS" => Err(CliError::Ring),
            "CAPTURING" => self.show(dump::capturing(&maps.capturing()?, &names, interface_name)),
            "CAPTURED" => Err(CliError::CaptureRing),
            _ => Err(CliError::NoMap {
                name: name.to_owned(),
            }),
        }
    }

    fn show<R, I>(&mut self, rows: I) -> Result<(), CliError>
    where
        R: Row,
        I: IntoIterator<Item = R, IntoIter: ExactSizeIterator>,
    {
        let rows = rows.into_iter();
        let of = rows.len();
        let shown = self.limit.unwrap_or(of).min(of);
        show(self.environment, self.json, rows.take(shown))?;
        note_rest(self.environment, shown, of)
    }
}

/// Says what a limit has left out, beside the output.
pub(super) fn note_rest(
    environment: &mut Environment<'_>,
    shown: usize,
    of: usize,
) -> Result<(), CliError> {
    if shown < of {
        let rest = units::count((of - shown) as u64);
        writeln!(environment.err, "({rest} more are not shown: see --limit)")?;
    }
    Ok(())
}
