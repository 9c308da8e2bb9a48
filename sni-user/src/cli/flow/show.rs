//! `snigate flow show`.

use std::time::Duration;

use serde::Serialize;

use super::{
    carried, is_in_datapath,
    select::{Target, only_client},
};
use crate::{
    cli::{
        CliError, Environment, Output,
        place::Place,
        read,
        table::write_json,
        units,
        view::{
            entry::{Entry, Hop, Reading, Translated},
            flow::{FlowLine, Pair, Pairs, Traffic},
        },
    },
    datapath::Maps,
};

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

/// A flow with both of its entries; none for a connection that the agent carries.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    flow: FlowLine,
    entries: Option<Entries>,
}

#[derive(Serialize)]
struct Entries {
    to_edge: Option<Entry>,
    to_client: Option<Entry>,
}

pub(super) fn run(
    arguments: &Arguments,
    maps: &Maps,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let Arguments { target, output } = arguments;
    let names = read::names(maps)?;
    let routes = read::route_names(maps)?;
    // Before the tables: what is handed off in between is found all the same. Without an agent there is nothing that it could carry.
    let carried = carried(place, Some(target.client.ip())).unwrap_or_default();
    let mut tables = read::flows(maps)?;
    only_client(&mut tables, target.client.ip(), Some(target.client.port()));
    let reading = Reading {
        names: &names,
        routes: &routes,
        now_ns: (environment.now_ns)(),
        interface_name: environment.interface_name,
    };
    let mut shown: Vec<_> = Pairs::new(tables)
        .iter()
        .filter(|pair| target.matches(pair))
        .map(|pair| Shown::new(&pair, reading))
        .collect();
    let carried = carried.connections.into_iter();
    shown.extend(
        carried
            .filter(|connection| target.is_carried(connection) && !is_in_datapath(connection, maps))
            .map(|connection| Shown {
                flow: FlowLine::carried(connection, &names, &routes),
                entries: None,
            }),
    );
    if shown.is_empty() {
        return Err(target.missing());
    }
    if output.json {
        return write_json(environment, &shown);
    }
    for (number, shown) in shown.iter().enumerate() {
        if number > 0 {
            writeln!(environment.out)?;
        }
        shown.write(environment)?;
    }
    Ok(())
}

impl Shown {
    fn new(pair: &Pair, reading: Reading<'_>) -> Self {
        let to_edge = pair.to_edge.as_ref();
        let to_client = pair.to_client.as_ref();
        Self {
            flow: FlowLine::new(pair, reading.names, reading.routes, reading.now_ns),
            entries: Some(Entries {
                to_edge: to_edge.map(|flow| Entry::new(&pair.client_key, flow, reading)),
                to_client: to_client.map(|flow| Entry::new(&pair.edge_key, flow, reading)),
            }),
        }
    }

    fn write(&self, environment: &mut Environment<'_>) -> Result<(), CliError> {
        let flow = &self.flow;
        let last = match self.entries {
            Some(_) => "last packet",
            None => "last byte",
        };
        fields(
            environment,
            "",
            &[
                ("client", flow.client.to_string()),
                ("VIP", format!("{}, IP set {}", flow.vip, flow.ip_set)),
                (
                    "Edge",
                    format!("{} at {}, {}", flow.edge, flow.edge_address, flow.way),
                ),
                (
                    "route",
                    flow.route
                        .clone()
                        .unwrap_or_else(|| "none: the address decided".into()),
                ),
                (
                    "seen as",
                    flow.edge_source
                        .map_or_else(|| "-".into(), |source| source.to_string()),
                ),
                ("state", flow.state.name().to_owned()),
                ("opened", ago(flow.age_ms)),
                (last, ago(flow.idle_ms)),
            ],
        )?;
        let Some(entries) = &self.entries else {
            return fields(environment, "", &carried_lines(flow));
        };
        for (heading, entry) in [
            ("to the Edge", &entries.to_edge),
            ("to the client", &entries.to_client),
        ] {
            writeln!(environment.out, "{heading}")?;
            match entry {
                Some(entry) => fields(environment, "  ", &lines(entry))?,
                None => writeln!(environment.out, "  the entry of this direction is missing")?,
            }
        }
        Ok(())
    }
}

/// What there is instead of entries.
fn carried_lines(flow: &FlowLine) -> [(&'static str, String); 3] {
    let asked = flow.server_name.clone();
    let carried = |traffic: Traffic| format!("{}, by the agent", units::bytes(traffic.bytes));
    [
        ("asked for", asked.unwrap_or_else(|| "no name".into())),
        ("to Edge", carried(flow.to_edge)),
        ("to client", carried(flow.to_client)),
    ]
}

fn lines(entry: &Entry) -> Vec<(&'static str, String)> {
    let marks = if entry.marks.is_empty() {
        "none".into()
    } else {
        entry.marks.join(", ")
    };
    let mut lines = vec![
        ("arrives", entry.arrives.to_string()),
        ("leaves", entry.leaves.to_string()),
        (
            "carried",
            format!(
                "{} in {}",
                units::bytes(entry.bytes),
                units::counted(
                    usize::try_from(entry.packets).unwrap_or(usize::MAX),
                    "packet"
                ),
            ),
        ),
        ("last packet", ago(entry.idle_ms)),
        ("marks", marks),
        (
            "sequence",
            format!(
                "next {}, last acknowledgement {}",
                entry.next_seq, entry.last_ack
            ),
        ),
        (
            "checksum",
            format!(
                "TCP by {:#06x}, IPv4 header by {:#06x}",
                entry.tcp_checksum_delta, entry.ip_checksum_delta
            ),
        ),
    ];
    if let Some(translation) = &entry.translation {
        lines.extend(translation_lines(translation));
    }
    match &entry.next_hop {
        Some(hop) => lines.extend(hop_lines(hop)),
        None => lines.push(("next hop", "not looked up yet".into())),
    }
    lines
}

fn translation_lines(translation: &Translated) -> Vec<(&'static str, String)> {
    let Translated {
        seq,
        ack,
        ts_value,
        ts_echo,
        sender_scale,
        receiver_scale,
        ..
    } = translation;
    let mut options = translation.options.join(", ");
    if options.is_empty() {
        options.push_str("unchanged");
    }
    vec![
        (
            "adds",
            format!(
                "{seq} to sequence numbers, {ack} to acknowledgements, {ts_value} and {ts_echo} to timestamps"
            ),
        ),
        (
            "window scale",
            format!("{sender_scale} to {receiver_scale}"),
        ),
        ("options", options),
    ]
}

fn hop_lines(hop: &Hop) -> Vec<(&'static str, String)> {
    let mut way = vec![hop.interface()];
    way.extend(hop.vlans.iter().map(ToString::to_string));
    way.push(match hop.mtu {
        Some(mtu) => format!("MTU {mtu}"),
        None => "MTU not known".into(),
    });
    let valid = match hop.valid_for_ms {
        0 => "looked up again with the next packet".into(),
        ms => format!("for another {}", units::duration(Duration::from_millis(ms))),
    };
    vec![
        ("next hop", way.join(", ")),
        (
            "frames",
            format!("{} > {}", hop.source_mac, hop.destination_mac),
        ),
        ("valid", valid),
    ]
}

fn ago(ms: u64) -> String {
    format!("{} ago", units::duration(Duration::from_millis(ms)))
}

fn fields(
    environment: &mut Environment<'_>,
    indent: &str,
    fields: &[(&str, String)],
) -> Result<(), CliError> {
    for (name, value) in fields {
        writeln!(environment.out, "{indent}{name:<12} {value}")?;
    }
    Ok(())
}
