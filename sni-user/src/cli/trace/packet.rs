//! `snigate trace packet`.

use std::net::SocketAddr;

use sni_common::{
    Address,
    contract::{
        Direction, FILTER_EDGES, FILTER_SERVICES, Flow, FlowKey, Mode, ServiceKey, SourceMode,
        filter_bit,
    },
};

use super::{
    admission::admit,
    edge,
    steps::{Outcome, Steps, Trace},
    tables::Tables,
};
use crate::{cli::units, datapath::DatapathError};

/// A TCP packet; where no flow knows it, it is taken for a SYN.
pub(super) struct PacketQuestion {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

/// The stages of the datapath, in its order.
pub(super) fn trace(
    question: &PacketQuestion,
    tables: &impl Tables,
) -> Result<Trace, DatapathError> {
    let PacketQuestion { from, to } = question;
    let mut steps = Steps::default();
    let key = FlowKey {
        source: from.ip().into(),
        destination: to.ip().into(),
        source_port_be: from.port().to_be(),
        destination_port_be: to.port().to_be(),
    };
    let to_service = in_filter(
        FILTER_SERVICES,
        key.destination,
        key.destination_port_be,
        tables,
    )?;
    let from_edge = in_filter(FILTER_EDGES, key.source, key.source_port_be, tables)?;
    if !to_service && !from_edge {
        let says = format!("{to} is no service, {from} is no Edge");
        steps.add("FILTER", says);
        return Ok(untouched(steps));
    }
    steps.add(
        "FILTER",
        match (to_service, from_edge) {
            (true, _) => format!("{to} may be a service"),
            (false, _) => format!("{from} may be an Edge"),
        },
    );

    for (map, flow) in [
        ("FLOWS", tables.established(&key)?),
        ("HALF_OPEN", tables.half_open(&key)?),
    ] {
        match flow {
            Some(flow) => return Ok(known(steps, map, &flow, tables)),
            None => steps.add(map, "not a packet of a known flow"),
        }
    }
    if !to_service {
        return Ok(untouched(steps));
    }
    open(question, tables, steps)
}

fn in_filter(
    set: u32,
    address: Address,
    port_be: u16,
    tables: &impl Tables,
) -> Result<bool, DatapathError> {
    tables.in_filter(set + filter_bit(&address, port_be))
}

fn untouched(steps: Steps) -> Trace {
    steps.end(Outcome::Untouched, "handed to the host untouched")
}

fn known(mut steps: Steps, map: &'static str, flow: &Flow, tables: &impl Tables) -> Trace {
    let name = tables.names().edge(flow.edge);
    let idle = tables.now_ns().saturating_sub(flow.last_seen_ns);
    let way = if flow.direction == Direction::ToEdge as u8 {
        "from its client"
    } else {
        "from its Edge"
    };
    let idle = units::duration(std::time::Duration::from_nanos(idle));
    let says = format!("a flow of the Edge {name}, a packet {way}; the last one came {idle} ago");
    steps.add(map, says);
    steps.edge(&name);
    let leaves = &flow.rewrite;
    let source = units::endpoint(leaves.source, leaves.source_port_be);
    let destination = units::endpoint(leaves.destination, leaves.destination_port_be);
    let because = format!("translated, and forwarded from {source} to {destination}");
    steps.end(Outcome::Forwarded, because)
}

/// A packet that no flow knows, to what may be a service.
fn open(
    question: &PacketQuestion,
    tables: &impl Tables,
    mut steps: Steps,
) -> Result<Trace, DatapathError> {
    let PacketQuestion { from, to } = question;
    let key = ServiceKey::tcp(tables.generation(), to.ip().into(), to.port().to_be());
    let Some(service) = tables.service(&key)? else {
        let says = format!("{to} is no service of generation {}", tables.generation());
        steps.add("SERVICES", says);
        return Ok(untouched(steps));
    };
    let ip_set = tables.names().ip_set(service.ip_set);
    let inspected = service.mode == Mode::Inspect as u8;
    let decides = if inspected {
        "the ClientHello"
    } else {
        "the address"
    };
    let says = format!("{to} belongs to the IP set {ip_set}: {decides} decides");
    steps.add("SERVICES", says);
    if let Some(reason) = admit(*from, tables, &mut steps)? {
        return Ok(steps.end(Outcome::Refused, reason.sentence()));
    }
    if inspected {
        return Ok(if tables.has_listener()? {
            steps.add("LISTENERS", "the agent's listener");
            let because = format!(
                "to the agent, whom the ClientHello tells where it goes: `snigate trace name NAME --to {to} --from {from}`"
            );
            steps.end(Outcome::Inspected, because)
        } else {
            steps.add("LISTENERS", "no agent listens");
            let because = "refused: no agent runs, and another program must not get it";
            steps.end(Outcome::Refused, because)
        });
    }
    let found = if edge::members(service.pool, tables, &mut steps)? {
        edge::by_maglev(service.pool, *from, tables, &mut steps)?
    } else {
        None
    };
    let Some(found) = found else {
        let because = "No Edge of the service's pool is up; the client is answered with a reset.";
        return Ok(steps.end(Outcome::Refused, because));
    };
    let seen_as = if found.entry.source == SourceMode::Gateway as u8 {
        let gateway = std::net::IpAddr::from(found.entry.gateway);
        format!("{gateway} and a port of the gateway's own")
    } else {
        from.to_string()
    };
    steps.add(
        "EDGES",
        format!(
            "{} listens at {}, and sees {seen_as}",
            found.name,
            found.address()
        ),
    );
    let because = format!("a flow to {} at {} is opened", found.name, found.address());
    Ok(steps.end(Outcome::Steered, because))
}
