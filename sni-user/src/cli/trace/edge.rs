//! From a pool to one of its Edges.

use std::net::SocketAddr;

use sni_common::{
    Address,
    contract::{Edge, EdgeState, Pool, limits::MAX_POOLS},
    maglev,
};

use super::{steps::Steps, tables::Tables};
use crate::{
    cli::{units, view::edge::state},
    datapath::DatapathError,
};

/// Slots that the datapath tries for an Edge that is up.
const TRIES: u64 = 32;

/// An Edge that was found.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) entry: Edge,
}

impl Found {
    pub(super) fn address(&self) -> SocketAddr {
        units::endpoint(self.entry.address, self.entry.port_be)
    }
}

/// Tells of a pool's members. Whether there is one.
pub(super) fn members(
    number: u32,
    tables: &impl Tables,
    steps: &mut Steps,
) -> Result<bool, DatapathError> {
    let name = tables.names().pool(number);
    steps.pool(&name);
    let pool = if number < MAX_POOLS {
        tables.pool(number)?
    } else {
        Pool::default()
    };
    if pool.count == 0 {
        steps.add("POOLS", format!("{name} has no Edges"));
        return Ok(false);
    }
    let mut members = Vec::new();
    for member in pool.members.iter().take(pool.count as usize) {
        let entry = tables.edge(member.edge)?;
        let mut text = format!("{} {}", tables.names().edge(member.edge), state(&entry));
        if member.weight != 1 {
            text.push_str(&format!(" (weight {})", member.weight));
        }
        members.push(text);
    }
    let says = format!("{name}, IPv{}: {}", pool.family, members.join(", "));
    steps.add("POOLS", says);
    Ok(true)
}

/// Which Edge the Maglev table for new flows gives a client; further slots, where it has one that is not up (any longer).
pub(super) fn by_maglev(
    pool: u32,
    from: SocketAddr,
    tables: &impl Tables,
    steps: &mut Steps,
) -> Result<Option<Found>, DatapathError> {
    let seed = tables.settings()?.seed;
    let client = Address::from(from.ip());
    let mut passed_over: Vec<String> = Vec::new();
    for attempt in 0..TRIES {
        let seed = seed.wrapping_add(attempt);
        let slot = maglev::slot(&client, from.port().to_be(), seed);
        let Some(number) = tables
            .maglev(pool, slot)?
            .filter(|number| *number != maglev::NO_EDGE)
        else {
            break;
        };
        let (name, entry) = (tables.names().edge(number), tables.edge(number)?);
        if entry.state != EdgeState::Up as u8 {
            let text = format!("{name} is {}", state(&entry));
            if !passed_over.contains(&text) {
                passed_over.push(text);
            }
            continue;
        }
        let mut says = format!("slot {slot} of {from} is {name}");
        if !passed_over.is_empty() {
            says = format!("{}; then {says}", passed_over.join(", "));
        }
        steps.add("MAGLEV", says);
        steps.edge(&name);
        return Ok(Some(Found { name, entry }));
    }
    let why = if passed_over.is_empty() {
        "no Edge is up".to_owned()
    } else {
        format!("{}; no Edge is up", passed_over.join(", "))
    };
    steps.add("MAGLEV", why);
    Ok(None)
}
