//! Connections that the datapath has begun by itself.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use sni_common::contract::{FlowKey, HELLO_ROOM, HelloBytes, Pending, Stage, client_options};

use crate::{
    cli::{
        read::Names,
        table::{Column, Row},
        units,
        view::entry::Tuple,
    },
    proxy::hello::{self, Peeked},
};

/// An entry of PENDING.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct PendingEntry {
    /// Addresses of the client's packets.
    arrives: Tuple,
    stage: String,
    ip_set: String,
    /// SYNs to Edges.
    tries: u8,
    /// Bytes of the ClientHello that are there without a gap, and where a later piece begins and ends.
    received: u16,
    ahead: Option<[u16; 2]>,
    client_isn: u32,
    cookie: u32,
    ts_value: u32,
    ts_echo: u32,
    window: u32,
    mss: u16,
    /// `None` for a client that scales no windows.
    scale: Option<u8>,
    options: Vec<&'static str>,
    age_ms: u64,
}

/// PENDING, the oldest in front.
pub(in crate::cli) fn pending(
    mut entries: Vec<(FlowKey, Pending)>,
    names: &Names,
    now_ns: u64,
) -> Vec<PendingEntry> {
    entries.sort_unstable_by_key(|(key, pending)| (pending.since_ns, *key));
    let entry = |(key, pending): &(FlowKey, Pending)| PendingEntry {
        arrives: Tuple::of(key),
        stage: Stage::try_from(pending.stage)
            .map_or_else(|e| e.to_string(), |stage| stage.to_string()),
        ip_set: names.ip_set(pending.ip_set),
        tries: pending.tries,
        received: pending.received,
        ahead: (pending.ahead != 0).then(|| {
            [
                pending.ahead,
                pending.ahead.saturating_add(pending.ahead_length),
            ]
        }),
        client_isn: pending.client_isn,
        cookie: pending.cookie,
        ts_value: pending.ts_value,
        ts_echo: pending.ts_echo,
        window: pending.window,
        mss: pending.mss,
        scale: (pending.options & client_options::SCALE != 0).then_some(pending.scale),
        options: options(pending.options),
        age_ms: now_ns.saturating_sub(pending.since_ns) / 1_000_000,
    };
    entries.iter().map(entry).collect()
}

fn options(bits: u8) -> Vec<&'static str> {
    let named = [
        (client_options::TIMESTAMPS, "timestamps"),
        (client_options::SACK, "sack"),
        (client_options::SCALE, "scale"),
        (client_options::LINUX, "linux"),
    ];
    let set = named.into_iter().filter(|(bit, _)| bits & bit != 0);
    set.map(|(_, name)| name).collect()
}

impl Row for PendingEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("ARRIVES"),
        Column::left("STAGE"),
        Column::wrapping("IP SET"),
        Column::right("TRIES"),
        Column::right("HELLO"),
        Column::right("MSS").spare(2),
        Column::wrapping("OPTIONS").spare(1),
        Column::right("AGE"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.arrives.to_string(),
            self.stage.clone(),
            self.ip_set.clone(),
            self.tries.to_string(),
            match self.ahead {
                None => units::bytes(self.received.into()),
                Some([from, to]) => {
                    format!("{}, {from} to {to}", units::bytes(self.received.into()))
                }
            },
            self.mss.to_string(),
            if self.options.is_empty() {
                "-".into()
            } else {
                self.options.join(" ")
            },
            units::duration(Duration::from_millis(self.age_ms)),
        ]
    }
}

/// An entry of HELLOS.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct HelloEntry {
    /// Addresses of the client's packets.
    arrives: Tuple,
    /// `None` where the connection is pending no longer.
    bytes: Option<u16>,
    /// The server name, as far as the agent could read it.
    name: Option<String>,
    /// Whether the ClientHello is there as a whole.
    complete: bool,
}

/// HELLOS, with what PENDING says of their lengths.
pub(in crate::cli) fn hellos(
    mut entries: Vec<(FlowKey, HelloBytes)>,
    pending: &HashMap<FlowKey, Pending>,
) -> Vec<HelloEntry> {
    entries.sort_unstable_by_key(|(key, _)| *key);
    let entry = |(key, bytes): &(FlowKey, HelloBytes)| {
        let received = pending.get(key).map(|pending| pending.received);
        let end = HELLO_ROOM.min(received.unwrap_or_default().into());
        let found = match hello::read(&bytes.0[..end]) {
            Ok(Peeked::Found(hello)) => Some(hello),
            _ => None,
        };
        HelloEntry {
            arrives: Tuple::of(key),
            bytes: received,
            complete: found.is_some(),
            name: found.and_then(|hello| hello.server_name),
        }
    };
    entries.iter().map(entry).collect()
}

impl Row for HelloEntry {
    const COLUMNS: &'static [Column] = &[
        Column::left("ARRIVES"),
        Column::right("BYTES"),
        Column::left("COMPLETE"),
        Column::wrapping("SERVER NAME"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.arrives.to_string(),
            self.bytes
                .map_or_else(|| "-".into(), |bytes| units::count(bytes.into())),
            if self.complete { "yes" } else { "no" }.into(),
            self.name.clone().unwrap_or_else(|| "-".into()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::made_up;
    use sni_common::contract::LabelKind;

    fn key(port: u16) -> FlowKey {
        FlowKey {
            source_port_be: port.to_be(),
            ..FlowKey::default()
        }
    }

    #[test]
    fn pending_connections_are_told_with_their_stage() {
        let names = made_up::names(&[(LabelKind::IpSet, 0, 1, "shared")]);
        let waiting = Pending {
            since_ns: 1_000_000_000,
            stage: Stage::Bound as u8,
            tries: 2,
            received: 517,
            mss: 1460,
            options: client_options::TIMESTAMPS | client_options::SCALE,
            scale: 7,
            ip_set: 1,
            ..Pending::default()
        };
        let early = Pending {
            ahead: 1400,
            ahead_length: 300,
            stage: Stage::Hello as u8,
            ..waiting
        };
        let entries = vec![(key(2), waiting), (key(1), early)];
        let lines = pending(entries, &names, 3_500_000_000);
        assert_eq!(
            (lines[0].ahead, lines[1].scale),
            (Some([1400, 1700]), Some(7))
        );
        let cells = |line: &PendingEntry| line.cells()[1..].join("|");
        assert_eq!(
            cells(&lines[0]),
            "hello|shared|2|517 B, 1400 to 1700|1460|timestamps scale|2s"
        );
        assert_eq!(
            cells(&lines[1]),
            "bound|shared|2|517 B|1460|timestamps scale|2s"
        );
    }

    #[test]
    fn hellos_are_told_by_length_and_name() {
        let mut bytes = HelloBytes::default();
        let captured = include_bytes!("../../../../tests/hellos/openssl-tls13.bin");
        bytes.0[..captured.len()].copy_from_slice(captured);
        let length = |received| Pending {
            received,
            ..Pending::default()
        };
        let lengths = [
            (key(1), length(captured.len() as u16)),
            (key(2), length(100)),
        ];
        let entries = (1..=3).map(|port| (key(port), bytes)).collect();
        let lines = hellos(entries, &lengths.into());
        let cells: Vec<_> = lines
            .iter()
            .map(|line| line.cells()[1..].join("|"))
            .collect();
        assert_eq!(
            cells,
            ["326|yes|sip.fabrikam.example", "100|no|-", "-|no|-"]
        );
    }
}
