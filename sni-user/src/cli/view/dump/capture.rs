//! What a capture has asked for.

use serde::Serialize;
use sni_common::contract::{Capturing, DropReason, Fate, Prefix};

use crate::cli::{
    read::Names,
    table::{Column, Row},
};

/// The entry of CAPTURING.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct CapturingEntry {
    session: u32,
    fates: Vec<&'static str>,
    /// `None` for all.
    reasons: Option<Vec<&'static str>>,
    /// Prefixes that an end of a packet must be in.
    ends: Vec<String>,
    interface: Option<String>,
    edge: Option<String>,
    bytes: u32,
    per_second: u32,
}

/// CAPTURING: what the last capture wanted, or wants; CONTROL says until when.
pub(in crate::cli) fn capturing(
    wanted: &Capturing,
    names: &Names,
    interface_name: fn(u32) -> Option<String>,
) -> Vec<CapturingEntry> {
    let fates = Fate::ALL
        .iter()
        .filter(|it| wanted.fates >> **it as u32 & 1 != 0);
    let reasons = DropReason::ALL
        .iter()
        .filter(|it| wanted.reasons >> **it as u32 & 1 != 0);
    let ends = [wanted.one_end, wanted.other_end];
    let slot = wanted.edge.checked_sub(1);
    vec![CapturingEntry {
        session: wanted.session,
        fates: fates.map(|fate| fate.name()).collect(),
        reasons: (wanted.reasons != u64::MAX).then(|| reasons.map(|it| it.name()).collect()),
        ends: ends.iter().filter_map(prefix).collect(),
        interface: (wanted.ifindex != 0)
            .then(|| interface_name(wanted.ifindex).unwrap_or_else(|| wanted.ifindex.to_string())),
        edge: slot.map(|slot| names.edge(slot as u16)),
        bytes: wanted.snap,
        per_second: wanted.millirate / 1000,
    }]
}

/// Such as `192.0.2.0/24`; none for the prefix of all addresses.
fn prefix(prefix: &Prefix) -> Option<String> {
    let bits: u32 = prefix.mask.0.iter().map(|word| word.count_ones()).sum();
    let length = if prefix.address.is_v4() {
        bits.saturating_sub(96)
    } else {
        bits
    };
    (bits > 0).then(|| format!("{}/{length}", std::net::IpAddr::from(prefix.address)))
}

impl Row for CapturingEntry {
    const COLUMNS: &'static [Column] = &[
        Column::right("SESSION"),
        Column::wrapping("FATES"),
        Column::wrapping("REASONS"),
        Column::left("ENDS"),
        Column::left("INTERFACE"),
        Column::left("EDGE"),
        Column::right("BYTES"),
        Column::right("PER SECOND"),
    ];

    fn cells(&self) -> Vec<String> {
        let any = |text: &Option<String>| text.clone().unwrap_or_else(|| "any".into());
        vec![
            self.session.to_string(),
            self.fates.join(" "),
            self.reasons
                .as_ref()
                .map_or_else(|| "any".into(), |reasons| reasons.join(" ")),
            if self.ends.is_empty() {
                "any".into()
            } else {
                self.ends.join(" ")
            },
            any(&self.interface),
            any(&self.edge),
            self.bytes.to_string(),
            self.per_second.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use sni_common::Address;

    use super::*;

    #[test]
    fn what_was_asked_for_is_shown_by_name() {
        let address = Address::from(std::net::Ipv4Addr::new(192, 0, 2, 0));
        let wanted = Capturing {
            one_end: Prefix::new(address, address.prefix_bits(24)),
            reasons: 1 << DropReason::NoEdge as u32,
            fates: Fate::DROPS,
            edge: 4,
            millirate: 5_000_000,
            ..Capturing::default()
        };
        let entries = capturing(&wanted, &Names::default(), |_| None);
        let cells = entries[0].cells();
        let shown = [
            "0",
            "answered dropped",
            "no-edge",
            "192.0.2.0/24",
            "any",
            "#3",
            "0",
            "5000",
        ];
        assert_eq!(cells, shown);
        let anything = Capturing {
            reasons: u64::MAX,
            fates: Fate::ANY,
            ..Capturing::default()
        };
        let cells = capturing(&anything, &Names::default(), |_| None)[0].cells();
        assert_eq!(cells[2..5], ["any", "any", "any"]);
    }
}
