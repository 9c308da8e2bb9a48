//! What `snigate trace` tells is what happens.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{
    addresses::{EDGE_A, EDGE_B, PARTNER, VIP_1, VIP_2, at},
    gateway::Gateway,
    lab_test,
};
use socket2::{Domain, Socket, Type};

use crate::{
    TIMEOUT,
    federation::{Federation, OTHER, domain, ip_set},
    quiet,
};

/// Connections of each kind that could go to either Edge.
const TRIES: usize = 6;

/// The configured name of what a connection reached.
fn edge_name(reached: SocketAddr) -> Result<String> {
    for (letter, edge) in [("a", EDGE_A), ("b", EDGE_B)] {
        for (family, address) in ["v4", "v6"].into_iter().zip(edge.both()) {
            if at(address) == reached {
                return Ok(format!("edge-{letter}-{family}"));
            }
        }
    }
    anyhow::bail!("{reached} is no Edge")
}

#[test]
fn a_name_goes_where_trace_says() {
    lab_test("trace-names", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let either = r#"
[[pool]]
name = "either"
edges = [{ name = "edge-a-v4", weight = 2 }, "edge-b-v4", "edge-a-v6", "edge-b-v6"]

[[domain]]
sip_domain = "adatum.example"
names = ["*.voip.adatum.example"]
pool = "either"
"#;
        let tables = federation.pools()?
            + either
            + &ip_set(
                "shared",
                VIP_1,
                "inspect = true\nbind = false\nports = [5061, 443]\ndefault = \"edges-b\"",
            )
            + &ip_set("strict", OTHER, "inspect = true\nbind = false")
            + &domain("contoso.example", "edges-a")
            + &federation.terminated("tailspin.example", "either")?;
        let gateway = Gateway::start(lab, &tables)?;
        let trace = |name: &str, to: SocketAddr, from: SocketAddr| -> Result<Value> {
            let (to, from) = (to.to_string(), from.to_string());
            gateway.json(&["trace", "name", name, "--to", &to, "--from", &from])
        };
        let mut reached = BTreeSet::new();
        for (index, address) in VIP_1.both().into_iter().enumerate() {
            for port in [5061, 443] {
                let to = SocketAddr::new(address, port);
                for (name, outcome, tries) in [
                    ("sip.contoso.example", "passed", 1),
                    ("sip.fabrikam.example", "passed", 1),
                    ("east.voip.adatum.example", "passed", TRIES),
                    ("sip.tailspin.example", "terminated", TRIES),
                ] {
                    for _ in 0..tries {
                        let connection = federation.open(name, to)?;
                        let traced = trace(name, to, connection.local())?;
                        let edge = edge_name(federation.close(connection)?)?;
                        ensure!(
                            traced["edge"] == *edge && traced["outcome"] == outcome,
                            "{name} at {to} reached {edge}: {traced:#}"
                        );
                        reached.insert((name, edge));
                    }
                }
            }
            // Without a default, whom nobody knows is refused, and who is known is not.
            let (to, from) = (
                at(OTHER.both()[index]),
                SocketAddr::new(PARTNER.both()[index], 40_000),
            );
            let traced = trace("sip.fabrikam.example", to, from)?;
            ensure!(traced["outcome"] == "refused", "{traced:#}");
            ensure!(federation.open("sip.fabrikam.example", to).is_err());
            let traced = trace("sip.contoso.example", to, from)?;
            let edge = edge_name(federation.reach("sip.contoso.example", to)?)?;
            ensure!(traced["edge"] == *edge, "{edge}: {traced:#}");
        }
        // Or it would have been no choice.
        for name in ["east.voip.adatum.example", "sip.tailspin.example"] {
            let edges = reached.iter().filter(|(of, _)| *of == name).count();
            ensure!(edges == 4, "{reached:?}");
        }
        let text = gateway.output(&[
            "trace",
            "name",
            "sip.fabrikam.example",
            "--to",
            &VIP_1.v4.to_string(),
        ])?;
        ensure!(
            text.contains("the default of the address is edges-b")
                && text.contains("asked for 4 times"),
            "{text}"
        );
        Ok(())
    });
}

#[test]
fn a_packet_goes_where_trace_says() {
    lab_test("trace-packets", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let either = "[[pool]]\nname = \"either\"\nedges = [\"edge-a-v4\", \"edge-b-v4\", \"edge-a-v6\", \"edge-b-v6\"]\n";
        let tables = federation.pools()?
            + either
            + &ip_set("steered", VIP_2, "steer = \"either\"")
            + &ip_set("shared", VIP_1, "inspect = true\nbind = false")
            + &domain("contoso.example", "edges-a")
            + &domain("fabrikam.example", "edges-b");
        let gateway = Gateway::start(lab, &tables)?;
        let trace = |from: SocketAddr, to: SocketAddr| -> Result<Value> {
            gateway.json(&[
                "trace",
                "packet",
                "--from",
                &from.to_string(),
                "--to",
                &to.to_string(),
            ])
        };
        let mut reached = BTreeSet::new();
        for (family, vip) in VIP_2.both().into_iter().enumerate() {
            for port in 20_000..20_000 + 2 * TRIES as u16 {
                let (from, to) = (SocketAddr::new(PARTNER.both()[family], port), at(vip));
                let before = trace(from, to)?;
                ensure!(before["outcome"] == "steered", "{before:#}");
                let stream = lab.partner.run(|| connect(from, to))?;
                let during = trace(from, to)?;
                ensure!(during["outcome"] == "forwarded", "{during:#}");
                drop(stream);
                let edge = edge_name(federation.edge_of(from)?)?;
                ensure!(
                    before["edge"] == *edge && during["edge"] == *edge,
                    "{from} reached {edge}: {before:#} {during:#}"
                );
                // `preserve`: whom the Edge sees.
                ensure!(
                    before.to_string().contains(&format!("sees {from}")),
                    "{before:#}"
                );
                reached.insert(edge);
            }
        }
        ensure!(reached.len() == 4, "{reached:?}");
        let from = SocketAddr::new(PARTNER.v4.into(), 40_000);
        let inspected = trace(from, at(VIP_1.v4.into()))?;
        ensure!(inspected["outcome"] == "inspected", "{inspected:#}");
        let other = trace(from, SocketAddr::new(VIP_1.v4.into(), 80))?;
        ensure!(other["outcome"] == "untouched", "{other:#}");
        Ok(())
    });
}

/// A connection from this very end.
fn connect(from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&from.into())?;
    let connected = socket.connect_timeout(&to.into(), TIMEOUT);
    connected.with_context(|| format!("from {from} to {to}"))?;
    Ok(socket.into())
}
