//! `snigate trace`: what would happen, step by step, each answered by the map that the datapath and the agent go by. Nothing is changed, and
//! no packet is sent.

mod admission;
mod bind;
mod edge;
mod name;
mod packet;
mod steps;
mod tables;

use std::net::{IpAddr, SocketAddr};

use self::{
    name::{NameQuestion, Rules},
    packet::PacketQuestion,
    steps::Trace,
    tables::Pinned,
};
use super::{CliError, Environment, Output, place::Place, read, table::write_json};
use crate::{config::Config, datapath::Maps};

/// Where partners connect to unless something else is said.
const DEFAULT_PORT: u16 = 5061;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// Where a connection with this server name would go, and why
    Name {
        /// The server name of the ClientHello; an empty one ("") for a client that sends none
        name: String,
        /// The public address that the client connects to [default port: 5061]
        #[arg(long, value_name = "ADDR[:PORT]")]
        to: Option<Target>,
        /// The client, whose address and port choose the Edge
        #[arg(long, value_name = "ADDR:PORT", requires = "to")]
        from: Option<SocketAddr>,
        /// An application protocol that the client offers; several times for several
        #[arg(long, value_name = "PROTOCOL")]
        alpn: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// What would be done with a packet: of a known flow, or one that begins a connection
    Packet {
        /// Its source
        #[arg(long, value_name = "ADDR:PORT")]
        from: SocketAddr,
        /// Its destination [default port: 5061]
        #[arg(long, value_name = "ADDR[:PORT]")]
        to: Target,
        #[command(flatten)]
        output: Output,
    },
}

/// A public address, with its port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target(SocketAddr);

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>();
        let target = match address {
            Ok(address) => SocketAddr::new(address, DEFAULT_PORT),
            Err(_) => text.parse().map_err(|_| {
                "write an address, such as 198.51.100.20 or 2001:db8:1::20, with or without a port, such as [2001:db8:1::20]:443"
            })?,
        };
        Ok(Self(target))
    }
}

pub(super) fn run(
    verb: &Verb,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let maps: Maps = super::maps(place)?;
    let tables = Pinned {
        maps: &maps,
        names: read::names(&maps)?,
        now_ns: (environment.now_ns)(),
    };
    let (trace, output) = match verb {
        Verb::Name {
            name,
            to,
            from,
            alpn,
            output,
        } => {
            let question = NameQuestion {
                name: server_name(name)?,
                to: to.map(|to| to.0),
                from: same_family(*from, to.map(|to| to.0))?,
                alpn: alpn.iter().map(|it| it.clone().into_bytes()).collect(),
            };
            // For what the maps don't hold: ALPN, and how the agent balances.
            let config = Config::load(place.config())
                .ok()
                .map(|loaded| loaded.config);
            let rules = config.as_ref().map(Rules::new);
            (name::trace(&question, &tables, rules.as_ref())?, output)
        }
        Verb::Packet { from, to, output } => {
            same_family(Some(*from), Some(to.0))?;
            let question = PacketQuestion {
                from: *from,
                to: to.0,
            };
            (packet::trace(&question, &tables)?, output)
        }
    };
    write(&trace, output, environment)
}

/// As the agent compares it: lower case, without a final dot.
fn server_name(text: &str) -> Result<String, CliError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if !name.is_empty() && sni_common::contract::candidates(&name).next().is_none() {
        return Err(CliError::Usage(format!(
            "{text} can't be the server name of a ClientHello: write one such as sip.fabrikam.example"
        )));
    }
    Ok(name)
}

fn same_family(
    from: Option<SocketAddr>,
    to: Option<SocketAddr>,
) -> Result<Option<SocketAddr>, CliError> {
    if let (Some(from), Some(to)) = (from, to)
        && from.is_ipv4() != to.is_ipv4()
    {
        return Err(CliError::Usage(format!(
            "no packet goes from {from} to {to}: one is an IPv4 address, the other an IPv6 address"
        )));
    }
    Ok(from)
}

fn write(
    trace: &Trace,
    output: &Output,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    if output.json {
        return write_json(environment, trace);
    }
    write!(environment.out, "{trace}")?;
    Ok(())
}

#[cfg(test)]
mod tests;
