//! What the whole datapath goes by.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use sni_common::{
    Address,
    contract::{
        ABI_VERSION, AclAction, Announced, CONTROL_ABI, CONTROL_ANNOUNCED, CONTROL_CAPTURE,
        CONTROL_FLAGS, CONTROL_GENERATION, CONTROL_LISTENER_PORT, CONTROL_TELL, LabelKey,
        LabelKind, Settings, bank,
    },
};

use crate::cli::{
    read::Names,
    table::{Column, Row},
    units,
    view::status,
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
            CONTROL_LISTENER_PORT => ("the listener's own port", String::new()),
            CONTROL_ANNOUNCED => (
                "what SYN-ACKs of the datapath announce",
                Announced::from_slot(*value).map_or_else(
                    || "none: it answers no SYNs".into(),
                    |announced| status::AnnouncedLine::from(announced).to_string(),
                ),
            ),
            CONTROL_TELL => ("events that somebody wants", status::told(*value).join(" ")),
            CONTROL_CAPTURE => (
                "when the capture of packets ends",
                if *value == 0 { "there is none" } else { "" }.into(),
            ),
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
    syn_prefix_per_second: f64,
    syn_prefix_burst: u32,
    hello_per_second: f64,
    hello_burst: u32,
    hello_prefix_per_second: f64,
    hello_prefix_burst: u32,
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
        syn_per_second: per_second(settings.syn_millirate),
        syn_burst: settings.syn_burst,
        syn_prefix_per_second: per_second(settings.syn_prefix_millirate),
        syn_prefix_burst: settings.syn_prefix_burst,
        hello_per_second: per_second(settings.hello_millirate),
        hello_burst: settings.hello_burst,
        hello_prefix_per_second: per_second(settings.hello_prefix_millirate),
        hello_prefix_burst: settings.hello_prefix_burst,
        first_port: settings.first_port,
        ports: settings.ports,
        acl_prefixes: settings.acl_prefixes,
    };
    (0..).zip(banks).map(entry).collect()
}

fn per_second(millirate: u32) -> f64 {
    f64::from(millirate) / 1000.0
}

/// A rate as tables show it.
fn rate_cell(per_second: f64) -> String {
    if per_second == 0.0 {
        "no limit".into()
    } else {
        per_second.to_string()
    }
}

pub(super) fn is_active(number: u32, generation: u32) -> bool {
    generation != 0 && number == bank(generation)
}

/// A bank as tables show it.
pub(super) fn bank_cell(number: u32, active: bool) -> String {
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
        Column::right("OF PREFIX").spare(2),
        Column::right("HELLO/S").spare(3),
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
            rate_cell(self.syn_per_second),
            self.syn_burst.to_string(),
            rate_cell(self.syn_prefix_per_second),
            rate_cell(self.hello_per_second),
            ports,
            units::count(self.acl_prefixes.into()),
        ]
    }
}

/// One set of FILTER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct FilterSet {
    of: &'static str,
    bits_set: u32,
    bits: u32,
}

/// FILTER, from its words. Endpoints can't be read back from their bits.
pub(in crate::cli) fn filter(words: &[u64]) -> Vec<FilterSet> {
    let set = |of, words: &[u64]| FilterSet {
        of,
        bits_set: words.iter().map(|word| word.count_ones()).sum(),
        bits: words.len() as u32 * u64::BITS,
    };
    let (services, edges) = words.split_at(words.len() / 2);
    vec![set("services", services), set("Edges", edges)]
}

impl Row for FilterSet {
    const COLUMNS: &'static [Column] = &[
        Column::left("ENDPOINTS OF"),
        Column::right("BITS SET"),
        Column::right("OF"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.of.into(),
            units::count(self.bits_set.into()),
            units::count(self.bits.into()),
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
    entries
        .sort_by_key(|(generation, address, bits, _)| (*generation, IpAddr::from(*address), *bits));
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
