//! A ClientHello on one line.

use crate::control::HelloSeen;

/// Headings, with the least width of each column but the last; columns are two spaces apart, and no cell has two in a row.
const COLUMNS: [(&str, usize); 8] = [
    ("TIME (UTC)", 24),
    ("SOURCE", 21),
    ("ADDRESS", 21),
    ("SERVER NAME", 28),
    ("TLS", 11),
    ("MATCHED", 8),
    ("ROUTE", 18),
    ("RESULT", 0),
];

/// The headings.
pub(in crate::cli) fn header() -> String {
    columns(COLUMNS.map(|(heading, _)| heading.to_owned()))
}

/// What was seen, below the headings. JSON has more of it.
pub(in crate::cli) fn line(seen: &HelloSeen) -> String {
    let mut tls = seen.version.clone().unwrap_or_else(|| "-".into());
    if seen.post_quantum {
        tls.push_str(" pq");
    }
    if seen.ech {
        tls.push_str(" ech");
    }
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    columns([
        humantime::format_rfc3339_millis(seen.at).to_string(),
        seen.source.to_string(),
        seen.address.to_string(),
        or_dash(&seen.server_name),
        tls,
        seen.matched
            .map_or("-", |matched| matched.name())
            .to_owned(),
        or_dash(&seen.route),
        seen.result.clone(),
    ])
}

fn columns(cells: [String; 8]) -> String {
    let mut line = String::new();
    for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
        if !line.is_empty() {
            line.push_str("  ");
        }
        line.push_str(&format!("{:width$}", printable(cell)));
    }
    line.truncate(line.trim_end().len());
    line
}

/// What clients send must not reach the terminal as commands to it.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sni_common::contract::Matched;
    use std::time::{Duration, SystemTime};

    fn seen() -> HelloSeen {
        HelloSeen {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            source: "192.0.2.1:40000".parse().unwrap(),
            address: "198.51.100.20:5061".parse().unwrap(),
            server_name: Some("sip.fabrikam.example".into()),
            version: Some("1.3".into()),
            alpn: Vec::new(),
            ja4: None,
            post_quantum: true,
            ech: true,
            route: Some("terminate edges-a".into()),
            matched: Some(Matched::Exact),
            result: "terminated to edge-a".into(),
        }
    }

    #[test]
    fn lines_stand_below_their_headings() {
        let (header, line) = (header(), line(&seen()));
        assert_eq!(
            header,
            "TIME (UTC)                SOURCE                 ADDRESS                SERVER NAME                   TLS          MATCHED   ROUTE               RESULT"
        );
        assert_eq!(
            line,
            "2023-11-14T22:13:20.123Z  192.0.2.1:40000        198.51.100.20:5061     sip.fabrikam.example          1.3 pq ech   exact     terminate edges-a   terminated to edge-a"
        );
    }

    #[test]
    fn what_is_not_there_is_a_dash_and_cells_can_be_told_apart() {
        let nothing = HelloSeen {
            source: "[2001:db8:ffff:ffff:ffff:ffff:ffff:1]:40000"
                .parse()
                .unwrap(),
            server_name: None,
            version: None,
            post_quantum: false,
            ech: false,
            route: None,
            matched: None,
            result: "refused: not-tls".into(),
            ..seen()
        };
        let line = line(&nothing);
        let cells: Vec<_> = line
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        assert_eq!(
            cells,
            [
                "2023-11-14T22:13:20.123Z",
                "[2001:db8:ffff:ffff:ffff:ffff:ffff:1]:40000",
                "198.51.100.20:5061",
                "-",
                "-",
                "-",
                "-",
                "refused: not-tls"
            ]
        );
    }

    #[test]
    fn a_terminal_is_not_commanded() {
        let evil = HelloSeen {
            server_name: Some("a\u{1b}[2J\n.example".into()),
            ..seen()
        };
        assert!(
            line(&evil).contains("  a?[2J?.example  "),
            "{}",
            line(&evil)
        );
    }
}
