//! Whether the datapath would bind a connection that is passed through, or leave it to the agent.

use sni_common::contract::{
    LearnedKey, ROUTE_AGENT, ROUTE_CONDITIONAL, RouteAction, SERVICE_BIND, Service, SniName,
};

use super::{steps::Steps, tables::Tables};
use crate::datapath::DatapathError;

/// Says so; nothing of a service that does not bind.
pub(super) fn told(
    name: &str,
    service: &Service,
    tables: &impl Tables,
    steps: &mut Steps,
) -> Result<(), DatapathError> {
    if service.flags & SERVICE_BIND == 0 {
        return Ok(());
    }
    let says = match obstacle(name, service.ip_set, tables)? {
        None => "the datapath knows the name, and connects to the Edge itself".to_owned(),
        Some(why) => format!("the agent connects to the Edge: {why}"),
    };
    steps.add("binding", says);
    Ok(())
}

/// Why it is the agent's.
fn obstacle(
    name: &str,
    ip_set: u32,
    tables: &impl Tables,
) -> Result<Option<&'static str>, DatapathError> {
    if !tables.answers()? {
        return Ok(Some("binding is off (`snigate status` says why)"));
    }
    let Ok(name) = SniName::new(name) else {
        return Ok(Some("no map can have such a name"));
    };
    let found = match tables.route(&name)?.filter(|_| !name.is_wildcard()) {
        Some(route) => Some((route.action, route.flags)),
        // A wildcard or a default has decided, of which the datapath knows only what came of it.
        None => tables
            .learned(&LearnedKey { ip_set, name })?
            .filter(|learned| learned.generation == tables.generation())
            .map(|learned| (learned.action, learned.flags)),
    };
    Ok(match found {
        None => Some("it takes the first connection for a name that has no entry of its own"),
        Some((action, _)) if action != RouteAction::Pass as u8 => Some("TLS ends there"),
        Some((_, flags)) if flags & ROUTE_CONDITIONAL != 0 => {
            Some("the application protocols decide, too")
        }
        Some((_, flags)) if flags & ROUTE_AGENT != 0 => {
            Some("the pool counts connections, or an Edge of it wants PROXY protocol headers")
        }
        Some(_) => None,
    })
}
