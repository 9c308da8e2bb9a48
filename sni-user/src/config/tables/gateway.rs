//! `[gateway]`

use std::{net::SocketAddr, time::Duration};

use toml::de::{DeTable, DeValue};

use crate::config::{
    decode::{Directory, List, Located, Section},
    diagnostics::Diagnostic,
    model::Gateway,
    values::Hook,
};

/// Its keys, for those who write them outside of it.
pub(super) const KEYS: [&str; 12] = [
    "interfaces",
    "hook",
    "seed",
    "pin_path",
    "control",
    "metrics",
    "datapath_time",
    "idle_timeout",
    "hello_timeout",
    "max_flows",
    "max_connections",
    "include",
];

/// `sun_path` of unix(7) without its terminating zero.
const LONGEST_SOCKET_PATH: usize = 107;

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

/// Edges keep a connection to a federated partner through long silences. RFC 5382 REQ-5 asks for even more, 2 h 4 min, of a NAT.
const SHORTEST_IDLE: Duration = Duration::from_secs(30 * MINUTE);
const WHY_SHORTEST_IDLE: &str =
    ": federation connections are silent for that long and must live on";

pub(in crate::config) struct GatewayDraft {
    pub(in crate::config) interfaces: Option<List<String>>,
    pub(in crate::config) metrics: Option<Located<SocketAddr>>,
    complete: Gateway,
}

impl GatewayDraft {
    pub(super) fn read(mut section: Section<'_>, directory: &Directory) -> Self {
        let interfaces = section.filled_list::<String>("interfaces", "[\"wan0\", \"lan0\"]");
        let metrics = section.optional::<SocketAddr>("metrics");
        let control_at = section.key_at("control");
        let complete = Gateway {
            interfaces: Vec::new(),
            hook: section.value("hook").unwrap_or(Hook::Auto),
            seed: section.value("seed").unwrap_or_else(|| "snigate".into()),
            pin_path: section
                .path("pin_path", directory)
                .unwrap_or_else(|| "/sys/fs/bpf/snigate".into()),
            control: section
                .path("control", directory)
                .unwrap_or_else(|| "/run/snigate/control.sock".into()),
            metrics: metrics.as_ref().map_or_else(
                || SocketAddr::from(([127, 0, 0, 1], 9461)),
                |metrics| metrics.value,
            ),
            datapath_time: section.value("datapath_time").unwrap_or(false),
            idle_timeout: section
                .duration(
                    "idle_timeout",
                    SHORTEST_IDLE..=Duration::from_secs(30 * DAY),
                    WHY_SHORTEST_IDLE,
                )
                .unwrap_or(Duration::from_secs(120 * MINUTE)),
            hello_timeout: section
                .duration(
                    "hello_timeout",
                    Duration::from_millis(100)..=Duration::from_secs(5 * MINUTE),
                    "",
                )
                .unwrap_or(Duration::from_secs(5)),
            max_flows: section
                .number("max_flows", 1..=16_000_000)
                .unwrap_or(1_000_000),
            max_connections: section
                .number("max_connections", 1..=1_000_000)
                .unwrap_or(20_000),
        };
        if let Some(at) =
            control_at.filter(|_| complete.control.as_os_str().len() > LONGEST_SOCKET_PATH)
        {
            let message = format!(
                "`control` is longer than the {LONGEST_SOCKET_PATH} bytes that the path of a socket may have"
            );
            section.report().push(
                Diagnostic::error(at, message)
                    .help("write a shorter path, such as \"/run/snigate/control.sock\""),
            );
        }
        section.finish();
        Self {
            interfaces,
            metrics,
            complete,
        }
    }

    pub(super) fn build(self) -> Gateway {
        Gateway {
            interfaces: self.interfaces.map(List::values).unwrap_or_default(),
            ..self.complete
        }
    }
}

/// What a file that is not TOML as a whole seems to include.
pub(super) fn includes_only<'a>(
    document: &'a DeTable<'a>,
    root: Section<'a>,
) -> Option<List<String>> {
    let value = document.get("gateway")?;
    let DeValue::Table(table) = value.get_ref() else {
        return None;
    };
    Section::new(
        "[gateway]",
        table,
        root.at().at(value.span()),
        root.report(),
    )
    .list("include")
}
