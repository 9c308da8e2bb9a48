//! What a new configuration may change under open connections: interfaces, modes, addresses, bounds.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use snigate_tests::{
    Lab,
    addresses::{EDGE_A, EDGE_B, Host, VIP_1, VIP_2, at},
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
    peers::{Connection, Partner},
};

use crate::{
    TIMEOUT, both,
    federation::{Federation, INSPECT, NEXT, OTHER, RELAY, domain, ip_set},
    quiet, tcp,
};

#[test]
fn interfaces_come_and_go() {
    lab_test("reload-interfaces", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set("steered", VIP_2, "steer = \"edges-b\"")
            + &ip_set("shared", VIP_1, INSPECT)
            + &domain("contoso.example", "edges-b")
            + &domain("fabrikam.example", "edges-a");
        let mut gateway = Gateway::start(lab, &tables)?;
        let attached = |gateway: &Gateway<'_>| -> Result<Value> {
            let status = gateway.json(&["status"])?;
            let interfaces = status["interfaces"].as_array().into_iter().flatten();
            Ok(interfaces
                .map(|it| it["interface"].clone())
                .collect::<serde_json::Value>())
        };
        let edge_b = both(EDGE_B);
        for round in 0..2 {
            // Both ways to Edge b need the interface toward it; the one to Edge a lives on without.
            for (address, expected) in both(VIP_2)
                .into_iter()
                .chain(both(VIP_1))
                .zip(edge_b.repeat(2))
            {
                let edge = federation.reach("sip.contoso.example", address)?;
                ensure!(edge == expected, "round {round}: {edge}");
            }
            let mut other = federation.open("sip.fabrikam.example", at(VIP_1.v4.into()))?;
            gateway.configure_on(&["wan0", "lan0"], "", &tables)?;
            gateway.output(&["reload"])?;
            ensure!(attached(&gateway)? == serde_json::json!(["lan0", "wan0"]));
            let link = ["-d", "link", "show", "lan1"];
            Deadline::after(TIMEOUT).poll("lan1 to be left alone", || {
                let link = lab.gateway.output("ip", &link)?;
                Ok((!link.contains("xdp")).then_some(()))
            })?;
            other.ping()?;
            federation.reach("sip.fabrikam.example", at(VIP_1.v6.into()))?;

            gateway.configure("", &tables)?;
            gateway.output(&["reload"])?;
            ensure!(attached(&gateway)? == serde_json::json!(["lan0", "lan1", "wan0"]));
            federation.close(other)?;
        }
        // One that the host does not have.
        gateway.configure_on(&["wan0", "lan0", "lan7"], "", &tables)?;
        let said = gateway.refusal(&["reload"])?;
        ensure!(said.contains("lan7"), "{said}");
        ensure!(attached(&gateway)? == serde_json::json!(["lan0", "lan1", "wan0"]));
        federation.reach("sip.contoso.example", at(VIP_2.v4.into()))?;
        Ok(())
    });
}

#[test]
fn an_address_is_steered_then_inspected_then_steered() {
    lab_test("reload-modes", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let pools = federation.pools()?;
        let domains = domain("contoso.example", "edges-b")
            + &federation.terminated("tailspin.example", "edges-b")?;
        let steered = pools.clone() + &ip_set("one", VIP_1, "steer = \"edges-a\"") + &domains;
        let inspected = pools + &ip_set("one", VIP_1, INSPECT) + &domains;
        let [edges_a, edges_b] = [EDGE_A, EDGE_B].map(both);
        let mut gateway = Gateway::start(lab, &steered)?;
        let mut open = Vec::new();
        for round in 0..2 {
            for (address, expected) in both(VIP_1).into_iter().zip(edges_a) {
                let edge = federation.reach("sip.contoso.example", address)?;
                ensure!(edge == expected, "steered, round {round}: {edge}");
                open.push((federation.open("sip.contoso.example", address)?, edge));
            }
            gateway.configure("", &inspected)?;
            gateway.output(&["reload"])?;
            for (address, expected) in both(VIP_1).into_iter().zip(edges_b) {
                for name in ["sip.contoso.example", "sip.tailspin.example"] {
                    let edge = federation.reach(name, address)?;
                    ensure!(edge == expected, "{name} inspected, round {round}: {edge}");
                    open.push((federation.open(name, address)?, edge));
                }
            }
            for (connection, edge) in &mut open {
                connection
                    .ping()
                    .with_context(|| format!("to {edge}, inspected, round {round}"))?;
            }
            gateway.configure("", &steered)?;
            gateway.output(&["reload"])?;
            for (connection, edge) in &mut open {
                connection
                    .ping()
                    .with_context(|| format!("to {edge}, steered again, round {round}"))?;
            }
        }
        for (connection, expected) in open {
            let edge = federation.close(connection)?;
            ensure!(edge == expected, "{edge} instead of {expected}");
        }
        Ok(())
    });
}

#[test]
fn an_address_lives_as_long_as_its_connections() {
    lab_test("reload-addresses", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let domains = domain("contoso.example", "edges-a")
            + &federation.terminated("tailspin.example", "edges-b")?;
        let set = |host| ip_set("shared", host, RELAY);
        let pools = federation.pools()?;
        let mut gateway = Gateway::start(lab, &(pools.clone() + &set(OTHER) + &domains))?;
        let has = |host: Host| -> Result<[bool; 2]> {
            let addresses = lab.gateway.output("ip", &["-o", "addr", "show"])?;
            Ok(host
                .both()
                .map(|address| addresses.contains(&format!(" {address}/"))))
        };
        ensure!(has(OTHER)? == [true; 2] && has(NEXT)? == [false; 2]);
        let [mut passed, mut terminated] = federation.held(OTHER)?;
        gateway.configure("", &(pools + &set(NEXT) + &domains))?;
        gateway.output(&["reload"])?;
        ensure!(has(OTHER)? == [true; 2] && has(NEXT)? == [true; 2]);
        for address in both(NEXT) {
            federation.reach("sip.contoso.example", address)?;
        }
        // Nobody new gets to the old ones.
        for address in both(OTHER) {
            ensure!(
                federation.open("sip.contoso.example", address).is_err(),
                "{address}"
            );
        }
        // Whatever else happens to the host's addresses and routes.
        for command in [
            "addr add 192.0.2.200/32 dev lo",
            "route add 192.0.2.201/32 dev lan0",
        ] {
            let changes = || -> Result<usize> {
                Ok(gateway.log()?.matches("the host's network changed").count())
            };
            let before = changes()?;
            lab.gateway.ip(command)?;
            Deadline::after(TIMEOUT).poll("the agent to notice the change", || {
                Ok((changes()? > before).then_some(()))
            })?;
            // Answered in the agent's one loop, and so after what it does about the change.
            gateway.refusal(&["route", "rm", "sip.nobody.example"])?;
            ensure!(has(OTHER)? == [true; 2], "after `ip {command}`");
        }
        gateway.output(&["reload"])?;
        for connection in [&mut passed, &mut terminated] {
            connection
                .ping()
                .context("a connection to an address that was removed")?;
        }
        ensure!(has(OTHER)? == [true; 2], "its connections are open");
        federation.close(passed)?;
        federation.close(terminated)?;
        Deadline::after(2 * TIMEOUT).poll("the old addresses to go", || {
            Ok((has(OTHER)? == [false; 2]).then_some(()))
        })?;
        ensure!(has(NEXT)? == [true; 2]);
        Ok(())
    });
}

#[test]
fn the_bound_on_connections_is_moved() {
    lab_test("reload-bound", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", VIP_1, RELAY)
            + &domain("contoso.example", "edges-a");
        let address = at(VIP_1.v4.into());
        let bound = |gateway: &mut Gateway<'_>, bound: usize| -> Result<()> {
            gateway.configure(&format!("max_connections = {bound}"), &tables)?;
            gateway.output(&["reload"])?;
            Ok(())
        };
        let mut gateway = Gateway::start_with(lab, "max_connections = 2", &tables)?;
        let mut held = vec![
            federation.open("sip.contoso.example", address)?,
            federation.open("sip.contoso.example", address)?,
        ];
        for more in [3, 4] {
            held.push(waits(&federation, lab, || bound(&mut gateway, more))?);
        }
        // Fewer than there are: all live on, and nobody new has room until only one is left.
        bound(&mut gateway, 2)?;
        for connection in &mut held {
            connection.ping()?;
        }
        let last = held.pop().context("a connection")?;
        let next = waits(&federation, lab, || {
            for connection in held.drain(..) {
                federation.close(connection)?;
            }
            Ok(())
        })?;
        // Two again, as many as there may be.
        let third = waits(&federation, lab, || federation.close(last).map(drop))?;
        federation.close(next)?;
        federation.close(third)?;
        Ok(())
    });
}

/// A connection that gets no further until `release` has been called.
fn waits(
    federation: &Federation<'_>,
    lab: &Lab,
    release: impl FnOnce() -> Result<()>,
) -> Result<Connection> {
    let tls = federation.tls("sip.contoso.example")?;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let partner = Partner {
                tls: Some(&tls),
                ..tcp(lab)
            };
            partner.echo(at(VIP_1.v4.into()))
        });
        // Long enough for one that need not wait.
        thread::sleep(Duration::from_millis(500));
        ensure!(!waiting.is_finished(), "it did not wait");
        release()?;
        let opened = waiting.join();
        opened.map_err(|_| anyhow!("the partner panicked"))?
    })
}
