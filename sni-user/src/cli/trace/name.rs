//! `snigate trace name`.

use std::net::SocketAddr;

use sni_common::contract::{
    LearnedKey, Matched, Mode, NO_POOL, ROUTE_CONDITIONAL, RouteAction, Service, ServiceKey,
    SniName, SniRoute, candidates,
};

use super::{
    bind, edge,
    steps::{Outcome, Steps, Trace},
    tables::Tables,
};
use crate::{
    cli::{units, view::route::Destination},
    config::{Balance, Config},
    datapath::DatapathError,
    proxy::Routing,
};

/// A ClientHello.
pub(super) struct NameQuestion {
    /// As it is compared; empty for none.
    pub(super) name: String,
    pub(super) to: Option<SocketAddr>,
    pub(super) from: Option<SocketAddr>,
    pub(super) alpn: Vec<Vec<u8>>,
}

/// What only the configuration knows.
pub(super) struct Rules<'a> {
    config: &'a Config,
    routing: Routing,
}

impl<'a> Rules<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self {
            config,
            routing: Routing::new(config),
        }
    }

    /// How the agent chooses in a pool.
    fn balance(&self, pool: &str) -> Option<Balance> {
        let mut pools = self.config.pools.iter();
        let pool = pools.find(|candidate| candidate.name.as_str() == pool)?;
        Some(pool.balance)
    }
}

/// What a name is found to be for.
struct Decided {
    action: RouteAction,
    /// Numbers for IPv4 and IPv6.
    pools: [u32; 2],
}

/// The agent's way, in its order.
pub(super) fn trace(
    question: &NameQuestion,
    tables: &impl Tables,
    rules: Option<&Rules<'_>>,
) -> Result<Trace, DatapathError> {
    let mut steps = Steps::default();
    let generation = tables.generation();
    if generation == 0 {
        steps.add("CONTROL", "no configuration is active yet");
        return Ok(steps.end(Outcome::Untouched, "handed to the host untouched"));
    }
    steps.add("CONTROL", format!("generation {generation} is active"));
    let service = match question.to {
        None => None,
        Some(to) => match self::service(to, tables, &mut steps)? {
            Ok(service) => Some(service),
            Err((outcome, because)) => return Ok(steps.end(outcome, because)),
        },
    };
    let decided = match found(question, tables, rules, &mut steps)? {
        Lookup::Found(decided) => decided,
        Lookup::Depends(because) => return Ok(steps.end(Outcome::Depends, because)),
        Lookup::WrongProtocol => {
            let because = "refused with the TLS alert `no_application_protocol`";
            return Ok(steps.end(Outcome::Refused, because));
        }
        Lookup::Nothing => match (service, question.to) {
            (Some(service), _) if service.pool != NO_POOL => {
                let pool = tables.names().pool(service.pool);
                steps.add("SERVICES", format!("the default of the address is {pool}"));
                Decided {
                    action: RouteAction::Pass,
                    pools: [service.pool; 2],
                }
            }
            (Some(_), _) => {
                steps.add("SERVICES", "the address has no default");
                let because = "refused with the TLS alert `unrecognized_name`";
                return Ok(steps.end(Outcome::Refused, because));
            }
            (None, _) => {
                let because = "the default of the address decides: say which one with --to ADDRESS";
                return Ok(steps.end(Outcome::Depends, because));
            }
        },
    };
    if let Some(service) = service {
        history(question, service.ip_set, tables, &mut steps)?;
        if decided.action == RouteAction::Pass {
            bind::told(&question.name, &service, tables, &mut steps)?;
        }
    }
    carried(question, &decided, tables, rules, steps)
}

/// The inspected service at an address, or what becomes of connections to it otherwise.
fn service(
    to: SocketAddr,
    tables: &impl Tables,
    steps: &mut Steps,
) -> Result<Result<Service, (Outcome, String)>, DatapathError> {
    let key = ServiceKey::tcp(tables.generation(), to.ip().into(), to.port().to_be());
    let Some(service) = tables.service(&key)? else {
        steps.add("SERVICES", format!("{to} is no service"));
        let because = "handed to the host untouched".to_owned();
        return Ok(Err((Outcome::Untouched, because)));
    };
    let ip_set = tables.names().ip_set(service.ip_set);
    if service.mode != Mode::Inspect as u8 {
        let pool = tables.names().pool(service.pool);
        steps.pool(&pool);
        let says = format!("{to} belongs to the IP set {ip_set}: the address decides");
        steps.add("SERVICES", says);
        let because =
            format!("steered to {pool}, whatever its ClientHello says: `snigate trace packet`");
        return Ok(Err((Outcome::Steered, because)));
    }
    let says = format!("{to} belongs to the IP set {ip_set}: the ClientHello decides");
    steps.add("SERVICES", says);
    Ok(Ok(service))
}

/// What SNI_ROUTES knows of a name.
enum Lookup {
    Found(Decided),
    Nothing,
    WrongProtocol,
    Depends(String),
}

fn found(
    question: &NameQuestion,
    tables: &impl Tables,
    rules: Option<&Rules<'_>>,
    steps: &mut Steps,
) -> Result<Lookup, DatapathError> {
    if question.name.is_empty() {
        steps.add("SNI_ROUTES", "not asked: the client names nobody");
        return Ok(Lookup::Nothing);
    }
    let mut missing = Vec::new();
    for (matched, candidate) in candidates(&question.name) {
        let Some(route) = tables.route(&candidate)? else {
            missing.push(candidate.to_string());
            continue;
        };
        let destination = Destination::of_route(&route, tables.generation(), tables.names());
        let mut says = format!("{candidate} ({matched}): {destination}");
        if !missing.is_empty() {
            says = format!("no {}; {says}", missing.join(", no "));
        }
        steps.add("SNI_ROUTES", says);
        if route.flags & ROUTE_CONDITIONAL != 0 {
            return by_protocol(question, tables, rules, steps);
        }
        return Ok(decided(&route));
    }
    steps.add("SNI_ROUTES", format!("no {}", missing.join(", no ")));
    Ok(Lookup::Nothing)
}

fn decided(route: &SniRoute) -> Lookup {
    match RouteAction::try_from(route.action) {
        Ok(action) => Lookup::Found(Decided {
            action,
            pools: [route.pool_v4, route.pool_v6],
        }),
        Err(error) => Lookup::Depends(format!(
            "this version does not know the route's action: {error}"
        )),
    }
}

/// Several domains share the name, or one asks for a protocol: the maps don't hold which, the configuration does.
fn by_protocol(
    question: &NameQuestion,
    tables: &impl Tables,
    rules: Option<&Rules<'_>>,
    steps: &mut Steps,
) -> Result<Lookup, DatapathError> {
    let Some(rules) = rules else {
        return Ok(Lookup::Depends(
            "the application protocols decide, too, and the configuration that says how can't be read: `snigate check` tells why"
                .into(),
        ));
    };
    let offered = match &question.alpn[..] {
        [] => "no application protocol".to_owned(),
        protocols => {
            let protocols = protocols.iter().map(|it| String::from_utf8_lossy(it));
            protocols.collect::<Vec<_>>().join(", ")
        }
    };
    let named = rules.routing.named(&question.name, &question.alpn);
    let index = match named.map(|named| named.domain) {
        Some(Some(index)) => index,
        Some(None) => {
            let says = format!("no domain takes the name with {offered}");
            steps.add("configuration", says);
            return Ok(Lookup::WrongProtocol);
        }
        None => {
            steps.add("configuration", "no domain has the name any longer");
            return Ok(Lookup::Nothing);
        }
    };
    let domain = &rules.config.domains[index];
    let says = format!(
        "with {offered} it is the domain {}, to {}",
        domain.sip_domain,
        domain.pool.name()
    );
    steps.add("configuration", says);
    Ok(Lookup::Found(Decided {
        action: match domain.terminate {
            Some(_) => RouteAction::Terminate,
            None => RouteAction::Pass,
        },
        pools: pools_named(domain.pool.name().as_str(), tables)?,
    }))
}

/// The numbers of a pool for IPv4 and IPv6.
fn pools_named(name: &str, tables: &impl Tables) -> Result<[u32; 2], DatapathError> {
    let mut numbers = [NO_POOL; 2];
    for number in tables.names().pool_numbers(name) {
        match tables.pool(number)?.family {
            4 => numbers[0] = number,
            6 => numbers[1] = number,
            _ => {}
        }
    }
    Ok(numbers)
}

/// What came of it so far.
fn history(
    question: &NameQuestion,
    ip_set: u32,
    tables: &impl Tables,
    steps: &mut Steps,
) -> Result<(), DatapathError> {
    let Ok(name) = SniName::new(&question.name) else {
        return Ok(());
    };
    let says = match tables.learned(&LearnedKey { ip_set, name })? {
        None => "nobody has asked for it lately".to_owned(),
        Some(learned) => {
            let ago = tables.now_ns().saturating_sub(learned.last_seen_ns);
            format!(
                "asked for {}, the last time {} ago: {} ({})",
                units::counted(usize::try_from(learned.hits).unwrap_or(usize::MAX), "time"),
                units::duration(std::time::Duration::from_nanos(ago)),
                Destination::of_learned(&learned, tables.names()),
                Matched::try_from(learned.matched).map_or("unknown", Matched::name),
            )
        }
    };
    steps.add("SNI_LEARNED", says);
    Ok(())
}

/// From the decision to an Edge, as far as the question goes.
fn carried(
    question: &NameQuestion,
    decided: &Decided,
    tables: &impl Tables,
    rules: Option<&Rules<'_>>,
    mut steps: Steps,
) -> Result<Trace, DatapathError> {
    let (outcome, way) = match decided.action {
        RouteAction::Pass => (Outcome::Passed, "passed through"),
        RouteAction::Terminate => (
            Outcome::Terminated,
            "terminated with the domain's certificate, then taken",
        ),
    };
    let [v4, v6] = decided.pools;
    let wanted = match question.to {
        Some(to) if to.is_ipv4() => vec![v4],
        Some(_) => vec![v6],
        None if v4 == v6 => vec![v4],
        None => vec![v4, v6],
    };
    let usable: Vec<u32> = wanted
        .into_iter()
        .filter(|number| *number != NO_POOL)
        .collect();
    let mut with_edges = Vec::new();
    for number in usable {
        if edge::members(number, tables, &mut steps)? {
            with_edges.push(number);
        }
    }
    let Some(pool) = with_edges.first().copied() else {
        let because = "refused: the pool has no Edge of the client's address family";
        return Ok(steps.end(Outcome::Refused, because));
    };
    let name = tables.names().pool(pool);
    let Some(from) = question.from else {
        return Ok(steps.end(outcome, format!("{way} to an Edge of {name}")));
    };
    match rules.and_then(|rules| rules.balance(&name)) {
        Some(Balance::Maglev) => {}
        Some(Balance::LeastConnections) => {
            steps.add(
                "configuration",
                format!("{name} balances by least connections"),
            );
            let because =
                format!("{way} to an Edge of {name}: the agent takes the one with the fewest");
            return Ok(steps.end(outcome, because));
        }
        None => {
            let because = format!(
                "{way} to an Edge of {name}; how it is chosen the configuration says, and it can't be read (`snigate check` tells why)"
            );
            return Ok(steps.end(outcome, because));
        }
    }
    Ok(match edge::by_maglev(pool, from, tables, &mut steps)? {
        Some(found) => {
            let because = format!(
                "{way} to {} at {}, else to another Edge of {name}",
                found.name,
                found.address()
            );
            steps.end(outcome, because)
        }
        None => steps.end(Outcome::Refused, format!("no Edge of {name} is up")),
    })
}
