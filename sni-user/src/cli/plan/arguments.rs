//! What `snigate plan` is told.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::ValueEnum;

use super::super::{CliError, Output};
use crate::{
    config::{HostName, Name, SourceMode},
    plan::{EdgeGroup, Mode, Placement, Plan, SipDomain, Site, Terms},
};

/// Shown below the options.
const LIST_FORMAT: &str = "\
The list has one domain a line, or is CSV (separated by commas, semicolons or tabs) with these names of columns in its first line; all but the first may be left out:
  domain       the SIP domain, internationalised or as A-label
  customer     whose it is; otherwise each domain is a customer
  federation   open (partners find it by the DNS; the default), explicit (they enter the provider's name by hand) or provider (they have an entry
               for the provider): the last two need no name in a certificate
  apart        groups, separated by spaces: customers of one group never share a certificate; `all` shares with nobody
  certificate  the certificate that has the domain already, or is to have it
Lines that begin with # are left out.

Examples:
  snigate plan domains.csv --name edge.hoster.example
  snigate plan domains.csv --state plan.json --write plan --name edge.hoster.example \\
      --address 198.51.100.10,2001:db8:1::10 --edge edges-a=203.0.113.10:5061,[2001:db8::10]:5061 \\
      --address 198.51.100.11,2001:db8:1::11 --edge edges-b=203.0.113.11:5061,[2001:db8::11]:5061";

#[derive(clap::Args, Debug)]
#[command(after_long_help = LIST_FORMAT, after_help = "--help tells what may be in the list.")]
pub(in crate::cli) struct Arguments {
    /// The list of SIP domains; `-` or nothing for standard input
    pub(super) list: Option<PathBuf>,
    /// The former plan, which this one keeps to, and where this one is kept; made if it is not there
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
    /// The most bytes of the subjectAltName extension, counted as a whole, DER-encoded
    #[arg(long, value_name = "BYTES", default_value_t = Terms::SAN_BYTES as u32, value_parser = clap::value_parser!(u32).range(32..=1_000_000))]
    san_bytes: u32,
    /// The most names of a certificate
    #[arg(long, value_name = "NUMBER", default_value_t = Terms::NAMES as u32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    names_per_certificate: u32,
    /// A name of the Edge's own that every shared certificate has, the first as common name; what partners enter for explicit federation
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<HostName>,
    /// Public addresses of one IP set, separated by commas: both families, several gateways; the first --address is for the first certificate
    #[arg(long = "address", value_name = "ADDRESS", value_parser = address_set)]
    addresses: Vec<AddressSet>,
    /// Edges that show one certificate, such as edges-a=203.0.113.10:5061, separated by commas; the first --edge is for the first certificate
    #[arg(long = "edge", value_name = "NAME=ADDRESS:PORT", value_parser = edge_group)]
    edges: Vec<EdgeGroup>,
    /// Whose address the Edges see
    #[arg(long, value_enum, default_value_t = Source::Preserve)]
    source: Source,
    /// One certificate for each customer, chosen by server name: TLS ends at the gateway
    #[arg(long)]
    per_customer: bool,
    /// With --per-customer: the name in the Edges' own certificate
    #[arg(long, value_name = "NAME", requires = "per_customer")]
    edge_name: Option<HostName>,
    /// With --per-customer: who has signed it [default: the system's roots]
    #[arg(long, value_name = "FILE", requires = "per_customer")]
    edge_roots: Option<String>,
    /// Forget in which certificate any domain is, and pack all anew
    #[arg(long)]
    repack: bool,
    /// Forget in which certificate this domain is
    #[arg(long = "move", value_name = "DOMAIN")]
    moved: Vec<SipDomain>,
    /// Write configuration, requests, DNS records and PowerShell lines into this directory
    #[arg(long, value_name = "DIR")]
    pub(super) write: Option<PathBuf>,
    /// Write nothing, --state neither
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Part of the subject of requests, such as O=Fabrikam; C, ST, L, O and OU are known
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) subject: Vec<String>,
    /// Interfaces of the gateway
    #[arg(long = "interface", value_name = "NAME", default_values = ["wan0", "lan0"])]
    interfaces: Vec<String>,
    /// How long resolvers keep the DNS records, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub(super) ttl: u32,
    /// Write a worked configuration for outbound federation as well
    #[arg(long, value_enum, requires = "write", requires = "outbound_addresses")]
    pub(super) outbound: Option<Outbound>,
    /// An address of the outbound gateway's own, one for each certificate, separated by commas
    #[arg(
        long = "outbound-address",
        value_name = "ADDRESS",
        value_delimiter = ',',
        requires = "outbound"
    )]
    pub(super) outbound_addresses: Vec<IpAddr>,
    /// The prefix of the servers that may send through the outbound gateway
    #[arg(long, value_name = "PREFIX", default_value = "203.0.113.0/24")]
    pub(super) outbound_pool: ipnet::IpNet,
    /// The CAs that partners' certificates may be from
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    pub(super) outbound_roots: String,
    /// Tell why each domain, or this one, is where it is
    #[arg(long, value_name = "DOMAIN", num_args = 0..=1, require_equals = true)]
    explain: Option<Option<SipDomain>>,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Whose address Edges see.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    /// The partner's; the gateway must be the Edges' router
    Preserve,
    /// The gateway's
    Gateway,
}

/// What outbound federation goes through.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Outbound {
    /// Kamailio 5.6 or newer, with its modules for TLS
    Kamailio,
}

/// The addresses of one IP set.
#[derive(Clone, Debug)]
pub(in crate::cli) struct AddressSet(pub(in crate::cli) Vec<IpAddr>);

/// Addresses separated by commas.
pub(in crate::cli) fn address_set(text: &str) -> Result<AddressSet, String> {
    let address = |text: &str| {
        text.trim()
            .parse()
            .map_err(|_| format!("\"{text}\" is not an address"))
    };
    text.split(',')
        .map(address)
        .collect::<Result<_, _>>()
        .map(AddressSet)
}

fn edge_group(text: &str) -> Result<EdgeGroup, String> {
    let example = "write a name and addresses with ports, such as edges-a=203.0.113.10:5061";
    let (name, addresses) = text.split_once('=').ok_or(example)?;
    let address = |text: &str| {
        text.trim()
            .parse::<SocketAddr>()
            .map_err(|_| format!("\"{text}\" is not an address with a port; {example}"))
    };
    Ok(EdgeGroup {
        name: name
            .parse::<Name>()
            .map_err(|invalid| invalid.to_string())?,
        addresses: addresses
            .split(',')
            .map(address)
            .collect::<Result<_, _>>()?,
    })
}

impl Arguments {
    pub(super) fn terms(&self) -> Terms {
        Terms {
            mode: match self.per_customer {
                true => Mode::PerCustomer,
                false => Mode::San,
            },
            san_bytes: self.san_bytes as usize,
            names_per_certificate: self.names_per_certificate as usize,
            shared_names: self.names.clone(),
            repack: self.repack,
            moved: self.moved.iter().cloned().collect(),
        }
    }

    pub(super) fn site(&self) -> Result<Site, CliError> {
        let mut seen = Vec::new();
        for name in &self.names {
            if seen.contains(&name) {
                return Err(CliError::Usage(format!(
                    "--name {name} is there twice: leave one out"
                )));
            }
            seen.push(name);
        }
        Ok(Site {
            addresses: self.addresses.iter().map(|set| set.0.clone()).collect(),
            edges: self.edges.clone(),
            source: match self.source {
                Source::Preserve => SourceMode::Preserve,
                Source::Gateway => SourceMode::Gateway,
            },
            tls: self
                .edge_name
                .clone()
                .map(|name| (name, self.edge_roots.clone())),
            interfaces: self.interfaces.clone(),
        })
    }

    /// Whether anything says that a configuration is wanted.
    pub(super) fn has_site(&self) -> bool {
        !self.addresses.is_empty() || !self.edges.is_empty()
    }

    /// The domains that are to be explained.
    pub(super) fn explained<'a>(&self, plan: &'a Plan) -> Result<Vec<&'a Placement>, CliError> {
        match &self.explain {
            None => Ok(Vec::new()),
            Some(None) => Ok(plan.placements.iter().collect()),
            Some(Some(domain)) => match plan.placements.iter().find(|it| it.domain == *domain) {
                Some(placement) => Ok(vec![placement]),
                None => Err(CliError::Usage(format!("{domain} is not in the list"))),
            },
        }
    }
}
