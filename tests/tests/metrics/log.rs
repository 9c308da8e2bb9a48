//! The connection log: a line for each connection when it is over, with the same fields whoever has carried it.

use std::{
    collections::{BTreeSet, HashMap},
    io::{Read as _, Write as _},
    net::SocketAddr,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{
    Lab, addresses::PARTNER, deadline::Deadline, gateway::Gateway, lab_test, peers::open_socket,
};

use crate::{
    TIMEOUT,
    scene::{HANDED_OFF, STEERED, Scene, WAYS, quiet},
};

const FIELDS: [&str; 12] = [
    "address",
    "client",
    "edge",
    "ip_set",
    "message",
    "milliseconds",
    "result",
    "server_name",
    "to_client",
    "to_edge",
    "unsaid",
    "way",
];

/// Connections that are no TLS.
const FLOOD: u64 = 500;

/// A gateway that logs for machines.
fn gateway<'lab>(scene: &Scene<'lab>) -> Result<Gateway<'lab>> {
    let mut gateway = scene.gateway("")?;
    gateway.stop()?;
    gateway.run(&["--log-format", "json"])?;
    Ok(gateway)
}

/// The fields of the lines about connections, so far.
fn lines(gateway: &Gateway<'_>) -> Result<Vec<Value>> {
    let log = gateway.log()?;
    // The last line may be half there.
    let parsed = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = parsed.filter(|line| line["target"] == "snigate::connection");
    Ok(ours.map(|line| line["fields"].clone()).collect())
}

fn ensure_fields(line: &Value) -> Result<()> {
    let found: BTreeSet<_> = line.as_object().context("fields")?.keys().collect();
    ensure!(found.into_iter().eq(FIELDS.iter()), "{line}");
    Ok(())
}

/// A connection that is no TLS, and is ended for it.
fn no_tls(lab: &Lab) -> Result<SocketAddr> {
    let source = (PARTNER.v4, 0).into();
    let mut socket = lab
        .partner
        .run(|| Ok(open_socket(Some(source), HANDED_OFF.address, TIMEOUT)?))?;
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    socket.read_to_end(&mut Vec::new())?;
    Ok(socket.local_addr()?)
}

#[test]
fn each_connection_has_one_line() {
    lab_test("log-ways", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let gateway = gateway(&scene)?;
        let mut expected = HashMap::new();
        let mut open = Vec::new();
        for way in WAYS {
            let mut connection = scene.open(way).context(way.name)?;
            connection.ping().context(way.name)?;
            expected.insert(connection.local().to_string(), way);
            open.push(connection);
        }
        let refused = no_tls(lab)?.to_string();
        for connection in open {
            connection.reset()?;
        }
        let lines = Deadline::after(TIMEOUT)
            .poll("all lines", || {
                let lines = lines(&gateway)?;
                Ok((lines.len() > WAYS.len()).then_some(lines))
            })
            .with_context(|| gateway.log().unwrap_or_default())?;
        ensure!(lines.len() == WAYS.len() + 1, "{lines:?}");
        for line in &lines {
            ensure_fields(line)?;
            let client = line["client"].as_str().context("a client")?;
            if client == refused {
                ensure!(line["way"] == "refused", "{line}");
                ensure!(line["result"] == "not-tls-http", "{line}");
                ensure!(line["edge"] == "-", "{line}");
                ensure!(line["server_name"] == "-", "{line}");
                continue;
            }
            let way = expected.remove(client).context("a client of this test")?;
            ensure!(line["way"] == way.name, "{line}");
            ensure!(line["result"] == "reset", "{line}");
            ensure!(line["edge"] == way.edge, "{line}");
            ensure!(line["address"] == way.address.to_string(), "{line}");
            // What decides about a steered flow is its address.
            let name = if way.name == STEERED.name {
                "-"
            } else {
                way.server_name
            };
            ensure!(line["server_name"] == name, "{line}");
            for bytes in ["to_edge", "to_client"] {
                ensure!(line[bytes].as_u64() > Some(0), "{line}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_flood_of_refused_connections_is_said_in_part() {
    lab_test("log-flood", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let gateway = gateway(&scene)?;
        for _ in 0..FLOOD {
            no_tls(lab)?;
        }
        let counted = || -> Result<u64> {
            let counters = &gateway.agent()?["counters"];
            counters["not-tls-http"].as_u64().context("a counter")
        };
        Deadline::after(TIMEOUT).poll("all of them to be counted", || {
            Ok((counted()? == FLOOD).then_some(()))
        })?;
        let lines = lines(&gateway)?;
        for line in &lines {
            ensure_fields(line)?;
        }
        let unsaid: u64 = lines
            .iter()
            .filter_map(|line| line["unsaid"].as_u64())
            .sum();
        let said = lines.len() as u64;
        eprintln!("{said} lines, {unsaid} told as left out");
        ensure!(said < FLOOD && said + unsaid <= FLOOD, "{said}, {unsaid}");
        Ok(())
    });
}
