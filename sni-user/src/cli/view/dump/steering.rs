//! Where connections go: services, pools, their tables, Edges.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;
use sni_common::{
    contract::{Edge, Mode, Pool, Service, ServiceKey, limits::MAX_POOLS},
    maglev as hashing,
};

use super::config::{bank_cell, is_active};
use crate::cli::{
    read::Names,
    table::{Column, Row},
    units,
    view::{edge, service},
};

/// An entry of SERVICES.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct ServiceEntry {
    generation: u32,
    address: IpAddr,
    /// 0 in the entry that marks the address as a VIP.
    port: u16,
    protocol: u8,
    mode: String,
    /// The datapath may bind.
    bind: bool,
    pool: Option<u32>,
    ip_set: String,
}

/// SERVICES, of all generations.
pub(in crate::cli) fn services(
    entries: &[(ServiceKey, Service)],
    names: &Names,
) -> Vec<ServiceEntry> {
    let entry = |(key, value): &(ServiceKey, Service)| ServiceEntry {
        generation: key.generation,
        address: key.address.into(),
        port: u16::from_be(key.port_be),
        protocol: key.protocol,
        mode: service::mode(value),
        bind: service::binds(value),
        pool: (value.mode != Mode::Vip as u8 && value.pool < MAX_POOLS).then_some(value.pool),
        ip_set: names.ip_set(value.ip_set),
    };
    let mut entries: Vec<_> = entries.iter().map(entry).collect();
    entries.sort_by_key(|entry| (entry.generation, entry.address, entry.port));
    entries
}

impl Row for ServiceEntry {
    const COLUMNS: &'static [Column] = &[
        Column::right("GENERATION"),
        Column::left("ADDRESS"),
        Column::right("PORT"),
        Column::right("PROTOCOL").spare(1),
        Column::left("MODE"),
        Column::right("POOL"),
        Column::wrapping("IP SET"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.generation.to_string(),
            self.address.to_string(),
            self.port.to_string(),
            self.protocol.to_string(),
            service::mode_cell(&self.mode, self.bind),
            self.pool
                .map_or_else(|| "-".into(), |pool| pool.to_string()),
            self.ip_set.clone(),
        ]
    }
}

/// An entry of POOLS.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct PoolEntry {
    bank: u32,
    active: bool,
    number: u32,
    /// `None` in the bank that is not active: its names are gone with its configuration.
    name: Option<String>,
    family: u32,
    members: Vec<PoolMember>,
}

#[derive(Clone, Debug, Serialize)]
struct PoolMember {
    edge: String,
    slot: u16,
    weight: u16,
}

/// POOLS, by index.
pub(in crate::cli) fn pools(entries: &[(u32, Pool)], names: &Names) -> Vec<PoolEntry> {
    let entry = |(index, pool): &(u32, Pool)| {
        let (bank, number) = (index / MAX_POOLS, index % MAX_POOLS);
        let active = is_active(bank, names.generation);
        let members = pool.members.iter().take(pool.count as usize);
        PoolEntry {
            bank,
            active,
            number,
            name: active.then(|| names.pool(number)),
            family: pool.family,
            members: members
                .map(|member| PoolMember {
                    edge: names.edge(member.edge),
                    slot: member.edge,
                    weight: member.weight,
                })
                .collect(),
        }
    };
    entries.iter().map(entry).collect()
}

impl Row for PoolEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("BANK"),
        Column::right("POOL"),
        Column::wrapping("NAME"),
        Column::left("FAMILY"),
        Column::wrapping("EDGES (WEIGHT)"),
    ];

    fn cells(&self) -> Vec<String> {
        let members: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{} ({})", member.edge, member.weight))
            .collect();
        vec![
            bank_cell(self.bank, self.active),
            self.number.to_string(),
            self.name.clone().unwrap_or_else(|| "-".into()),
            format!("IPv{}", self.family),
            members.join(", "),
        ]
    }
}

/// An Edge's share of a table in MAGLEV.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct ShareEntry {
    bank: u32,
    active: bool,
    pool: u32,
    name: Option<String>,
    /// Whether new flows go by it, and only Edges that are up are in it.
    available: bool,
    /// `None` for slots without an Edge.
    edge: Option<String>,
    slots: usize,
    share: f64,
}

/// The tables in MAGLEV by index, as the shares that Edges have in them.
pub(in crate::cli) fn maglev(
    tables: &[(u32, Box<hashing::Table>)],
    names: &Names,
) -> Vec<ShareEntry> {
    let mut entries = Vec::new();
    for (index, table) in tables {
        let (bank, pool) = (index / MAX_POOLS % 2, index % MAX_POOLS);
        let active = is_active(bank, names.generation);
        let available = *index >= Pool::available_index(0, 0);
        let mut slots: BTreeMap<u16, usize> = BTreeMap::new();
        for edge in &table[..hashing::SLOTS] {
            *slots.entry(*edge).or_default() += 1;
        }
        entries.extend(slots.into_iter().map(|(edge, slots)| ShareEntry {
            bank,
            active,
            pool,
            name: active.then(|| names.pool(pool)),
            available,
            edge: (edge != hashing::NO_EDGE).then(|| names.edge(edge)),
            slots,
            share: slots as f64 / hashing::SLOTS as f64,
        }));
    }
    entries
}

impl Row for ShareEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("BANK"),
        Column::right("POOL"),
        Column::wrapping("NAME"),
        Column::left("FOR"),
        Column::wrapping("EDGE"),
        Column::right("SLOTS"),
        Column::right("SHARE"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            bank_cell(self.bank, self.active),
            self.pool.to_string(),
            self.name.clone().unwrap_or_else(|| "-".into()),
            if self.available {
                "new flows"
            } else {
                "lost flows"
            }
            .to_owned(),
            self.edge.clone().unwrap_or_else(|| "none".into()),
            units::count(self.slots as u64),
            units::share(self.slots as u64, hashing::SLOTS as u64),
        ]
    }
}

/// An entry of EDGES.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct EdgeEntry {
    slot: u16,
    name: String,
    address: SocketAddr,
    source: String,
    gateway: Option<IpAddr>,
    state: String,
}

/// EDGES, by slot.
pub(in crate::cli) fn edges(entries: &[(u16, Edge)], names: &Names) -> Vec<EdgeEntry> {
    let entry = |(slot, value): &(u16, Edge)| EdgeEntry {
        slot: *slot,
        name: names.edge(*slot),
        address: units::endpoint(value.address, value.port_be),
        source: edge::source(value),
        gateway: (!value.gateway.is_unset()).then(|| value.gateway.into()),
        state: edge::state(value),
    };
    entries.iter().map(entry).collect()
}

impl Row for EdgeEntry {
    const COLUMNS: &'static [Column] = &[
        Column::right("SLOT"),
        Column::wrapping("NAME"),
        Column::left("ADDRESS"),
        Column::left("SOURCE"),
        Column::left("GATEWAY").spare(1),
        Column::left("STATE"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.slot.to_string(),
            self.name.clone(),
            self.address.to_string(),
            self.source.clone(),
            self.gateway
                .map_or_else(|| "-".into(), |gateway| gateway.to_string()),
            self.state.clone(),
        ]
    }
}
