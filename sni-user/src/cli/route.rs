//! `snigate route`.

use super::{
    CliError, Environment, Output,
    ask::ask,
    map::note_rest,
    place::Place,
    read,
    table::show,
    view::{
        route::{self, Which},
        total::Totals,
    },
};
use crate::datapath::Maps;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List the server names: those of the configuration, and those that clients asked for
    ///
    /// Hits count the connections to a name that the agent has routed; those of a wildcard are those that no longer name has taken. TOTAL and the
    /// bytes are those of connections that the name has decided about and that have reached an Edge, ended ones included. Of what the agent carries
    /// itself, the last second may be missing.
    Ls(Listing),
    /// Route a server name to a pool, until the agent ends
    ///
    /// The route lives in the running agent: it survives a reload, and is gone when the agent ends or the configuration defines the name.
    /// `snigate domain add` makes one that lasts.
    Add {
        /// A server name, or *. and one
        name: String,
        /// A pool of the configuration
        pool: String,
    },
    /// Forget a route that was added by `route add`
    ///
    /// Connections that took it live on. Names of the configuration are removed there, or by `snigate domain rm`.
    Rm {
        /// The name as it was added
        name: String,
    },
}

#[derive(clap::Args, Debug)]
pub(super) struct Listing {
    /// Only names that fit this pattern, with * and ?
    #[arg(value_name = "PATTERN", value_parser = pattern)]
    name: Option<glob::Pattern>,
    /// Only names of the configuration
    #[arg(long, conflicts_with = "learned")]
    configured: bool,
    /// Only names that clients asked for, by IP set
    #[arg(long)]
    learned: bool,
    /// Show this many names at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    output: Output,
}

fn pattern(text: &str) -> Result<glob::Pattern, String> {
    glob::Pattern::new(&text.to_lowercase()).map_err(|error| error.to_string())
}

pub(super) fn run(
    verb: &Verb,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    match verb {
        Verb::Ls(listing) => list(listing, &super::maps(place)?, environment),
        Verb::Add { name, pool } => {
            let added = ask(place, environment, async |client| {
                client.add_route(name, pool).await
            })?;
            let (name, pool) = (&added.name, &added.pool);
            let instead = match &added.replaced {
                Some(earlier) if earlier != pool => format!(" instead of {earlier}"),
                _ => String::new(),
            };
            writeln!(
                environment.out,
                "{name} goes to {pool}{instead}, until the agent ends or the configuration defines the name"
            )?;
            Ok(())
        }
        Verb::Rm { name } => {
            let removed = ask(place, environment, async |client| {
                client.remove_route(name).await
            })?;
            let (name, pool) = (&removed.name, &removed.pool);
            writeln!(
                environment.out,
                "{name} no longer goes to {pool}; connections that do live on"
            )?;
            Ok(())
        }
    }
}

fn list(listing: &Listing, maps: &Maps, environment: &mut Environment<'_>) -> Result<(), CliError> {
    let which = if listing.configured {
        Which::Configured
    } else if listing.learned {
        Which::Learned
    } else {
        Which::All
    };
    let names = read::names(maps)?;
    let (routes, learned) = (read::routes(maps)?, read::learned(maps)?);
    let totals = Totals::new(&read::accounts(maps)?, &maps.all_flows()?);
    let now_ns = (environment.now_ns)();
    let mut lines = route::lines(&routes, &learned, &totals, which, &names, now_ns);
    if let Some(pattern) = &listing.name {
        lines.retain(|line| line.name().is_some_and(|name| pattern.matches(name)));
    }
    let shown = listing.limit.unwrap_or(lines.len()).min(lines.len());
    show(environment, listing.output.json, lines.iter().take(shown))?;
    note_rest(environment, shown, lines.len())
}
