//! What a ClientHello's server name means: the exact name, then the longest wildcard, then the address's default, else nothing.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use sni_common::contract::{Matched, SniName, candidates};

use super::hello::ClientHello;
use crate::config::{AlpnProtocol, Config, IpNet, Mode};

/// The routes of a configuration, for its inspected addresses.
#[derive(Debug, Default)]
pub struct Routing {
    services: HashMap<SocketAddr, Service>,
    names: foldhash::HashMap<Box<str>, Vec<Candidate>>,
}

/// An inspected address and port.
#[derive(Clone, Debug)]
pub struct Service {
    /// Position of the IP set in the configuration.
    pub ip_set: usize,
    /// The pool for no or an unknown name, by its position in the configuration.
    pub default: Option<usize>,
    /// Whether its connections may be handed off to the datapath.
    pub hand_off: bool,
    /// Load balancers in front of the gateway.
    trusted: Vec<IpNet>,
}

/// A domain that a name may mean.
#[derive(Debug)]
struct Candidate {
    alpn: Vec<AlpnProtocol>,
    domain: usize,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes somewhere.
    Goes(Decision),
    /// Its name is defined for application protocols only that the client does not offer. It is refused, rather than sent to whom a wider
    /// wildcard or the default belongs.
    WrongProtocol(Matched),
    /// Nothing has its name, and there is no default.
    Unknown,
}

/// Where a connection goes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which rule decided.
    pub matched: Matched,
    /// Where to.
    pub target: Target,
    /// What flows and accounts call the name that decided ([`sni_common::contract::SniName::number`]); 0 for the default.
    pub route: u64,
    /// Whether another client with the same name may go elsewhere: several domains have it, or it is for certain application protocols only.
    pub conditional: bool,
}

/// What defines a server name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// By what it was found.
    pub matched: Matched,
    /// The domain that it means to this client, by its position in the configuration; none where all of its domains ask for other application
    /// protocols.
    pub domain: Option<usize>,
    /// The number of the defined name.
    pub route: u64,
    /// As of a [`Decision`].
    pub conditional: bool,
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A domain, by its position in the configuration.
    Domain(usize),
    /// Its address's default pool, by its position.
    Pool(usize),
}

impl Service {
    /// Whether connections of this source begin with a PROXY protocol header.
    pub fn trusts(&self, source: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&source))
    }
}

impl Routing {
    /// The routes of `config`.
    pub fn new(config: &Config) -> Self {
        let mut routing = Self::default();
        for (ip_set, set) in config.ip_sets.iter().enumerate() {
            let Mode::Inspect {
                default,
                hand_off,
                proxy_protocol_from,
                ..
            } = &set.mode
            else {
                continue;
            };
            let service = Service {
                ip_set,
                default: default.as_ref().map(|pool| pool.index()),
                hand_off: *hand_off,
                trusted: proxy_protocol_from.clone(),
            };
            for address in &set.addresses {
                for port in &set.ports {
                    let address = SocketAddr::new(*address, *port);
                    routing.services.insert(address, service.clone());
                }
            }
        }
        let names = config.domains.iter().map(|domain| domain.names.len()).sum();
        routing.names.reserve(names);
        for (index, domain) in config.domains.iter().enumerate() {
            for name in &domain.names {
                let candidate = Candidate {
                    alpn: domain.alpn.clone(),
                    domain: index,
                };
                let name = name.to_string().into_boxed_str();
                routing.names.entry(name).or_default().push(candidate);
            }
        }
        routing
    }

    /// The inspected service at an address and port.
    pub fn service(&self, address: SocketAddr) -> Option<&Service> {
        self.services.get(&address)
    }

    /// The names that flows refer to by these numbers; see [`SniName::number`].
    pub fn names_of(&self, numbers: &HashSet<u64>) -> HashMap<u64, String> {
        let named = self.names.keys().filter_map(|name| {
            let number = SniName::new(name).ok()?.number();
            numbers
                .contains(&number)
                .then(|| (number, name.to_string()))
        });
        named.collect()
    }

    /// Where a connection to `service` goes.
    pub fn decide(&self, service: &Service, hello: &ClientHello) -> Verdict {
        let name = hello.server_name.as_deref();
        let defined = name.and_then(|name| self.named(name, &hello.alpn));
        match (defined, service.default) {
            (Some(named), _) => match named.domain {
                Some(domain) => Verdict::Goes(Decision {
                    matched: named.matched,
                    target: Target::Domain(domain),
                    route: named.route,
                    conditional: named.conditional,
                }),
                None => Verdict::WrongProtocol(named.matched),
            },
            (None, Some(pool)) => Verdict::Goes(Decision {
                matched: Matched::Default,
                target: Target::Pool(pool),
                route: 0,
                conditional: false,
            }),
            (None, None) => Verdict::Unknown,
        }
    }

    /// What defines a server name, to a client that offers these application protocols.
    pub fn named(&self, name: &str, offered: &[Vec<u8>]) -> Option<Named> {
        candidates(name).find_map(|(matched, candidate)| {
            let domains = self.names.get(candidate.as_str())?;
            Some(Named {
                matched,
                domain: choose(domains, offered),
                route: candidate.number(),
                conditional: domains.len() > 1 || domains.iter().any(|it| !it.alpn.is_empty()),
            })
        })
    }
}

/// The one of a name's domains whose application protocol is offered, else the one that asks for none.
fn choose(domains: &[Candidate], offered: &[Vec<u8>]) -> Option<usize> {
    let offers = |candidate: &&Candidate| {
        let mut wanted = candidate.alpn.iter().map(AlpnProtocol::as_bytes);
        wanted.any(|wanted| offered.iter().any(|offer| offer == wanted))
    };
    domains
        .iter()
        .find(offers)
        .or_else(|| domains.iter().find(|it| it.alpn.is_empty()))
        .map(|candidate| candidate.domain)
}
