//! Connections between the agent and the datapath, and what ended ones have carried.

use serde::Serialize;
use sni_common::contract::{
    Account, AccountKey, AccountKind, AccountWriter, FlowKey, HandingOff, SynSeen,
};

use crate::cli::{
    read::{Names, RouteNames},
    table::{Column, Row},
    units,
    view::entry::Tuple,
};

/// An entry of HANDING_OFF.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct HandingOffEntry {
    /// Addresses of packets as they arrive.
    arrives: Tuple,
    /// Pure acknowledgements before this one are the socket's.
    need_ack: u32,
}

/// HANDING_OFF.
pub(in crate::cli) fn handing_off(mut entries: Vec<(FlowKey, HandingOff)>) -> Vec<HandingOffEntry> {
    entries.sort_unstable_by_key(|(key, _)| *key);
    let entry = |(key, value): &(FlowKey, HandingOff)| HandingOffEntry {
        arrives: Tuple::of(key),
        need_ack: value.need_ack,
    };
    entries.iter().map(entry).collect()
}

impl Row for HandingOffEntry {
    const COLUMNS: &'static [Column] = &[Column::left("ARRIVES"), Column::right("NEED ACK")];

    fn cells(&self) -> Vec<String> {
        vec![self.arrives.to_string(), self.need_ack.to_string()]
    }
}

/// An entry of CLIENT_SYNS or EDGE_SYN_ACKS.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct SynEntry {
    /// Addresses of the segment as it arrived.
    arrived: Tuple,
    /// `None` for a peer without timestamps.
    ts_value: Option<u32>,
    /// Whether the options begin as Linux writes them.
    linux: bool,
}

/// CLIENT_SYNS or EDGE_SYN_ACKS.
pub(in crate::cli) fn syns(mut entries: Vec<(FlowKey, SynSeen)>) -> Vec<SynEntry> {
    entries.sort_unstable_by_key(|(key, _)| *key);
    let entry = |(key, seen): &(FlowKey, SynSeen)| SynEntry {
        arrived: Tuple::of(key),
        ts_value: (seen.flags & SynSeen::TIMESTAMPS != 0).then_some(seen.ts_value),
        linux: seen.flags & SynSeen::LINUX != 0,
    };
    entries.iter().map(entry).collect()
}

impl Row for SynEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("ARRIVED"),
        Column::right("TIMESTAMP"),
        Column::left("OPTIONS"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.arrived.to_string(),
            self.ts_value
                .map_or_else(|| "none".into(), |value| value.to_string()),
            if self.linux {
                "as Linux's".into()
            } else {
                "others".into()
            },
        ]
    }
}

/// An entry of ACCOUNTS.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct AccountEntry {
    kind: String,
    number: u64,
    /// The server name, IP set or Edge; `None` where the configuration no longer has it.
    name: Option<String>,
    /// Who has added it up.
    writer: String,
    connections: u64,
    to_edge: u64,
    to_client: u64,
}

/// ACCOUNTS.
pub(in crate::cli) fn accounts(
    mut entries: Vec<(AccountKey, Account)>,
    names: &Names,
    routes: &RouteNames,
) -> Vec<AccountEntry> {
    entries.sort_unstable_by_key(|(key, _)| (key.kind, key.number, key.writer));
    let entry = |(key, account): &(AccountKey, Account)| {
        let kind = AccountKind::try_from(key.kind);
        let small = || u32::try_from(key.number).unwrap_or(u32::MAX);
        AccountEntry {
            kind: kind.map_or_else(|e| e.to_string(), |kind| kind.to_string()),
            number: key.number,
            name: match kind {
                Ok(AccountKind::Route) => routes.name(key.number),
                Ok(AccountKind::IpSet) => Some(names.ip_set(small())),
                Ok(AccountKind::Edge) => {
                    Some(names.edge(u16::try_from(key.number).unwrap_or(u16::MAX)))
                }
                Err(_) => None,
            },
            writer: AccountWriter::try_from(key.writer)
                .map_or_else(|e| e.to_string(), |writer| writer.to_string()),
            connections: account.connections,
            to_edge: account.to_edge,
            to_client: account.to_client,
        }
    };
    entries.iter().map(entry).collect()
}

impl Row for AccountEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("KIND"),
        Column::wrapping("NAME"),
        Column::left("BY"),
        Column::right("CONNECTIONS"),
        Column::right("TO EDGE"),
        Column::right("TO CLIENT"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.clone(),
            self.name
                .clone()
                .unwrap_or_else(|| format!("#{:016x}", self.number)),
            self.writer.clone(),
            units::count(self.connections),
            units::bytes(self.to_edge),
            units::bytes(self.to_client),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::made_up;
    use sni_common::contract::{LabelKind, SniName};

    #[test]
    fn accounts_have_the_names_of_whose_they_are() {
        let name = SniName::new("*.contoso.example").unwrap();
        let routes = RouteNames::new([name]);
        let names = made_up::names(&[
            (LabelKind::Edge, 0, 3, "edge-a"),
            (LabelKind::IpSet, 0, 1, "one"),
        ]);
        let account = Account {
            connections: 2,
            to_edge: 1500,
            to_client: 3,
        };
        let keys = [
            AccountKey::edge(3),
            AccountKey::route(0, 1),
            AccountKey::route(name.number(), 1).by(AccountWriter::Agent),
            AccountKey::route(0xab, 1),
        ];
        let entries = keys.map(|key| (key, account)).to_vec();
        let lines = accounts(entries, &names, &routes);
        let shown: Vec<_> = lines
            .iter()
            .map(|line| line.cells()[..3].join(" "))
            .collect();
        assert_eq!(
            shown,
            [
                "route #00000000000000ab datapath",
                "route *.contoso.example agent",
                "ip-set one datapath",
                "edge edge-a datapath"
            ]
        );
        assert_eq!(lines[0].cells()[3..], ["2", "1.5 kB", "3 B"]);
    }
}
