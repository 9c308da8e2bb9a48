//! What the agent writes.

use std::{collections::BTreeMap, net::SocketAddr};

use ipnet::IpNet;
use serde::Serialize;
use sni_common::{
    Address,
    contract::{
        ABI_VERSION, AclAction, CONTROL_ABI, CONTROL_FLAGS, CONTROL_GENERATION, Edge, LabelKey,
        LabelKind, Mode, Pool, Service, ServiceKey, Settings, bank, limits::MAX_POOLS,
    },
    maglev as hashing,
};

use crate::cli::{
    read::Names,
    table::{Column, Row},
    units,
    view::{edge, service, status},
};

/// A slot of CONTROL.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct ControlEntry {
    slot: u32,
    holds: &'static str,
    value: u64,
    meaning: String,
}

/// CONTROL, from its values by slot.
pub(in crate::cli) fn control(values: &[u64]) -> Vec<ControlEntry> {
    let entry = |(slot, value): (u32, &u64)| {
        let (holds, meaning) = match slot {
            CONTROL_ABI => (
                "ABI version",
                if *value == ABI_VERSION {
                    "this program's"
                } else {
                    "another program's"
                }
                .into(),
            ),
            CONTROL_GENERATION => ("active generation", format!("bank {}", bank(*value as u32))),
            CONTROL_FLAGS => ("feature flags", status::flags(*value).join(" ")),
            _ => ("unused", String::new()),
        };
        ControlEntry {
            slot,
            holds,
            value: *value,
            meaning,
        }
    };
    (0..).zip(values).map(entry).collect()
}

impl Row for ControlEntry {
    const COLUMNS: &'static [Column] = &[
        Column::right("SLOT"),
        Column::left("HOLDS"),
        Column::right("VALUE"),
        Column::wrapping("MEANING"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.slot.to_string(),
            self.holds.into(),
            self.value.to_string(),
            self.meaning.clone(),
        ]
    }
}

/// A bank of SETTINGS.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct SettingsEntry {
    bank: u32,
    active: bool,
    seed: u64,
    /// 0 sets no limit.
    syn_per_second: f64,
    syn_burst: u32,
    first_port: u16,
    ports: u16,
    acl_prefixes: u32,
}

/// SETTINGS, by bank.
pub(in crate::cli) fn settings(banks: &[Settings], generation: u32) -> Vec<SettingsEntry> {
    let entry = |(number, settings): (u32, &Settings)| SettingsEntry {
        bank: number,
        active: is_active(number, generation),
        seed: settings.seed,
        syn_per_second: f64::from(settings.syn_millirate) / 1000.0,
        syn_burst: settings.syn_burst,
        first_port: settings.first_port,
        ports: settings.ports,
        acl_prefixes: settings.acl_prefixes,
    };
    (0..).zip(banks).map(entry).collect()
}

fn is_active(number: u32, generation: u32) -> bool {
    generation != 0 && number == bank(generation)
}

/// A bank as tables show it.
fn bank_cell(number: u32, active: bool) -> String {
    if active {
        format!("{number} (active)")
    } else {
        number.to_string()
    }
}

impl Row for SettingsEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("BANK"),
        Column::left("SEED").spare(1),
        Column::right("SYN/S"),
        Column::right("BURST"),
        Column::left("OWN PORTS"),
        Column::right("PREFIXES"),
    ];

    fn cells(&self) -> Vec<String> {
        let ports = match self.ports {
            0 => "none".into(),
            ports => format!(
                "{}-{}",
                self.first_port,
                u32::from(self.first_port) + u32::from(ports) - 1
            ),
        };
        vec![
            bank_cell(self.bank, self.active),
            format!("{:016x}", self.seed),
            if self.syn_per_second == 0.0 {
                "no limit".into()
            } else {
                self.syn_per_second.to_string()
            },
            self.syn_burst.to_string(),
            ports,
            units::count(self.acl_prefixes.into()),
        ]
    }
}

/// Half of PORTS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct PortList {
    of: &'static str,
    ports: Vec<u16>,
}

/// PORTS, from its words.
pub(in crate::cli) fn ports(words: &[u64]) -> Vec<PortList> {
    let half = words.len() / 2;
    let list = |of, words: &[u64]| PortList {
        of,
        ports: (0..=u16::MAX)
            .filter(|port| {
                let word = words
                    .get(usize::from(port >> 6))
                    .copied()
                    .unwrap_or_default();
                word >> (port & 63) & 1 != 0
            })
            .collect(),
    };
    vec![
        list("services", &words[..half]),
        list("Edges", &words[half..]),
    ]
}

impl Row for PortList {
    const COLUMNS: &'static [Column] = &[Column::left("PORTS OF"), Column::wrapping("PORTS")];

    fn cells(&self) -> Vec<String> {
        let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
        vec![
            self.of.into(),
            if ports.is_empty() {
                "-".into()
            } else {
                ports.join(" ")
            },
        ]
    }
}

/// An entry of SERVICES.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct ServiceEntry {
    generation: u32,
    address: std::net::IpAddr,
    /// 0 in the entry that marks the address as a VIP.
    port: u16,
    protocol: u8,
    mode: String,
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
            self.mode.clone(),
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
        let (bank, pool) = (index / MAX_POOLS, index % MAX_POOLS);
        let active = is_active(bank, names.generation);
        let mut slots: BTreeMap<u16, usize> = BTreeMap::new();
        for edge in &table[..hashing::SLOTS] {
            *slots.entry(*edge).or_default() += 1;
        }
        entries.extend(slots.into_iter().map(|(edge, slots)| ShareEntry {
            bank,
            active,
            pool,
            name: active.then(|| names.pool(pool)),
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
        Column::wrapping("EDGE"),
        Column::right("SLOTS"),
        Column::right("SHARE"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            bank_cell(self.bank, self.active),
            self.pool.to_string(),
            self.name.clone().unwrap_or_else(|| "-".into()),
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
    gateway: Option<std::net::IpAddr>,
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

/// An entry of ACL.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct AclEntry {
    generation: u32,
    prefix: String,
    action: String,
}

/// ACL, from generation, address, length of the prefix in the address's 128 bits, and action.
pub(in crate::cli) fn acl(entries: &[(u32, Address, u32, u32)]) -> Vec<AclEntry> {
    let mut entries = entries.to_vec();
    entries.sort_by_key(|(generation, address, bits, _)| {
        (*generation, std::net::IpAddr::from(*address), *bits)
    });
    let entry = |(generation, address, bits, action): &(u32, Address, u32, u32)| AclEntry {
        generation: *generation,
        prefix: prefix(*address, *bits),
        action: AclAction::try_from(*action)
            .map_or_else(|e| e.to_string(), |action| action.to_string()),
    };
    entries.iter().map(entry).collect()
}

fn prefix(address: Address, bits: u32) -> String {
    let length = if address.is_v4() {
        bits.checked_sub(96)
    } else {
        Some(bits)
    };
    let net = length
        .and_then(|length| u8::try_from(length).ok())
        .and_then(|length| IpNet::new(address.into(), length).ok());
    net.map_or_else(
        || format!("{address} with {bits} of 128 bits"),
        |net| net.to_string(),
    )
}

impl Row for AclEntry {
    const COLUMNS: &'static [Column] = &[
        Column::right("GENERATION"),
        Column::left("PREFIX"),
        Column::left("ACTION"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.generation.to_string(),
            self.prefix.clone(),
            self.action.clone(),
        ]
    }
}

/// An entry of LABELS.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct LabelEntry {
    kind: String,
    generation: u32,
    number: u32,
    name: String,
}

/// LABELS.
pub(in crate::cli) fn labels(names: &Names) -> Vec<LabelEntry> {
    let entry = |(key, name): (&LabelKey, &String)| LabelEntry {
        kind: LabelKind::try_from(key.kind).map_or_else(|e| e.to_string(), |kind| kind.to_string()),
        generation: key.generation,
        number: key.number,
        name: name.clone(),
    };
    names.labels.iter().map(entry).collect()
}

impl Row for LabelEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("KIND"),
        Column::right("GENERATION"),
        Column::right("NUMBER"),
        Column::wrapping("NAME"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.clone(),
            self.generation.to_string(),
            self.number.to_string(),
            self.name.clone(),
        ]
    }
}
