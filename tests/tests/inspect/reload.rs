//! A running agent takes a changed configuration over as a whole, or not at all.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use snigate_tests::{
    Lab,
    addresses::{EDGE_A, EDGE_B, Host, VIP_1, VIP_2},
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
    peers::{Connection, Partner},
};

use crate::{
    TIMEOUT, at, both,
    federation::{Federation, domain, ip_set},
    quiet, tcp,
};

/// An address that the host does not have by itself.
pub(crate) const OTHER: Host = Host {
    v4: Ipv4Addr::new(198, 51, 100, 30),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x30),
};
/// Another one.
const NEXT: Host = Host {
    v4: Ipv4Addr::new(198, 51, 100, 31),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x31),
};

const INSPECT: &str = "inspect = true";

/// How an agent is made to load its configuration anew.
#[derive(Clone, Copy, Debug)]
enum Way {
    Command,
    Signal,
    FileChange,
}

impl Way {
    const ALL: [Self; 3] = [Self::Command, Self::Signal, Self::FileChange];

    /// What the agent's log says of it.
    fn logged(self) -> &'static str {
        match self {
            Self::Command => "request=Reload",
            Self::Signal => "why=\"SIGHUP\"",
            Self::FileChange => "why=\"a file has changed\"",
        }
    }

    /// Tells the agent that its file, which has just been written, is another; returns what the agent says of it.
    fn tell(self, gateway: &Gateway<'_>, before: &Configuration) -> Result<String> {
        let log = gateway.log()?.len();
        match self {
            Self::Command => {
                let output = gateway.command(&["reload"])?;
                return Ok(String::from_utf8([output.stdout, output.stderr].concat())?);
            }
            Self::Signal => gateway.signal(Signal::SIGHUP)?,
            Self::FileChange => {}
        }
        let what = format!("the agent to judge its configuration, {self:?}");
        Deadline::after(TIMEOUT).poll(&what, || {
            let now = Configuration::of(gateway)?;
            let said = gateway.log()?[log..].to_owned();
            let judged = now.generation != before.generation || now.refused != before.refused;
            Ok((judged && said.contains(self.logged())).then_some(said))
        })
    }
}

/// What `status` says of the configuration.
#[derive(Debug)]
struct Configuration {
    generation: u64,
    /// The generation that the datapath goes by.
    datapath: u64,
    /// Milliseconds after the agent's start.
    activated: u64,
    refused: Option<String>,
}

impl Configuration {
    fn of(gateway: &Gateway<'_>) -> Result<Self> {
        let status = gateway.json(&["status"])?;
        let agent = &status["agent"];
        let number = |value: &Value| value.as_u64().with_context(|| format!("in {status}"));
        let uptime = number(&agent["uptime_ms"])?;
        let active = &agent["configuration"];
        let refused = &active["refused"];
        Ok(Self {
            generation: number(&active["generation"])?,
            datapath: number(&status["generation"])?,
            activated: uptime - number(&active["age_ms"])?,
            refused: (!refused.is_null()).then(|| format!("{} {}", refused["at"], refused["why"])),
        })
    }
}

/// One connection that is passed through, and one that is terminated; both are held.
fn held(federation: &Federation<'_>, host: Host) -> Result<[Connection; 2]> {
    Ok([
        federation.open("sip.contoso.example", at(host.v4.into()))?,
        federation.open("sip.tailspin.example", at(host.v6.into()))?,
    ])
}

#[test]
fn every_way_to_reload_takes_over_all_or_nothing() {
    lab_test("reload-ways", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let frame = federation.pools()? + &ip_set("shared", VIP_1, INSPECT);
        let terminated = federation.terminated("tailspin.example", "edges-a")?;
        let to_a = frame + &domain("contoso.example", "edges-a") + &terminated;
        let to_b = to_a.replace("pool = \"edges-a\"", "pool = \"edges-b\"");
        let tables = [to_a, to_b];
        let mut gateway = Gateway::start(lab, &tables[0])?;
        let mut open = Vec::from(held(&federation, VIP_1)?);
        let mut active = Configuration::of(&gateway)?;
        let edges = [EDGE_A, EDGE_B].map(both);
        let mut turn = 0;
        for way in Way::ALL {
            turn = 1 - turn;
            gateway.configure("", &tables[turn])?;
            let said = way.tell(&gateway, &active)?;
            let taken = Configuration::of(&gateway)?;
            ensure!(said.contains("configuration active"), "{way:?}: {said}");
            ensure!(
                taken.generation > active.generation
                    && taken.datapath == taken.generation
                    // Each of the two is rounded.
                    && taken.activated > active.activated + 1
                    && taken.refused.is_none(),
                "{way:?}: {taken:?} after {active:?}"
            );
            reach_in_both_families(&federation, edges[turn])?;
            for connection in &mut open {
                connection.ping().context("a connection from before")?;
            }
            // These stay open as well.
            open.extend(held(&federation, VIP_1)?);

            let broken = tables[1 - turn].replacen("[[ip_set]]", "\n[[ip_set]]\nspeed = 7", 1);
            gateway.configure("", &broken)?;
            let line = 1 + std::fs::read_to_string(gateway.config())?
                .lines()
                .position(|line| line == "speed = 7")
                .context("the mistake")?;
            let said = way.tell(&gateway, &taken)?;
            let place = format!("snigate.toml:{line}:1");
            ensure!(
                said.contains(&place) && said.contains("speed"),
                "{way:?}, where {place} is wrong: {said}"
            );
            let refused = Configuration::of(&gateway)?;
            let why = refused.refused.as_deref().unwrap_or_default();
            ensure!(why.contains(&place) && why.contains("speed"), "{refused:?}");
            ensure!(
                (refused.generation, refused.datapath) == (taken.generation, taken.datapath),
                "{way:?}: {refused:?} after {taken:?}"
            );
            let status = gateway.output(&["status"])?;
            ensure!(
                status.contains(&place) && status.contains(", active for "),
                "{status}"
            );
            reach_in_both_families(&federation, edges[turn])?;
            for connection in &mut open {
                connection.ping().context("a connection from before")?;
            }
            active = refused;
        }
        // Each where it was when it was opened.
        let ways = [0, 1, 0, 1].into_iter().flat_map(|turn| edges[turn]);
        for (connection, expected) in open.into_iter().zip(ways) {
            let edge = federation.close(connection)?;
            ensure!(edge == expected, "{edge} instead of {expected}");
        }
        Ok(())
    });
}

/// Both kinds of connection, in both families.
fn reach_in_both_families(federation: &Federation<'_>, edges: [SocketAddr; 2]) -> Result<()> {
    for (address, expected) in both(VIP_1).into_iter().zip(edges) {
        for name in ["sip.contoso.example", "sip.tailspin.example"] {
            let edge = federation.reach(name, address)?;
            ensure!(
                edge == expected,
                "{name} at {address} reached {edge} instead of {expected}"
            );
        }
    }
    Ok(())
}

#[test]
fn what_a_running_agent_cannot_change_is_refused() {
    lab_test("reload-unchangeable", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", VIP_1, INSPECT)
            + &domain("contoso.example", "edges-a");
        let mut gateway = Gateway::start(lab, &tables)?;
        let before = Configuration::of(&gateway)?;
        let good = std::fs::read_to_string(gateway.config())?;
        for (key, change) in [
            (
                "hook",
                good.replacen("[gateway]", "[gateway]\nhook = \"tcx\"", 1),
            ),
            ("pin_path", good.replacen("/snigate\"", "/elsewhere\"", 1)),
            ("control", good.replacen("control.sock", "other.sock", 1)),
        ] {
            lab.write_file("snigate.toml", &change)?;
            let said = gateway.refusal(&["reload"])?;
            ensure!(
                said.contains(&format!("`gateway.{key}` can't change from "))
                    && said.contains("restart it, or take the change back"),
                "{said}"
            );
            let now = Configuration::of(&gateway)?;
            ensure!(now.generation == before.generation, "{now:?}");
            ensure!(now.refused.is_some_and(|why| why.contains(key)));
            federation.reach("sip.contoso.example", at(VIP_1.v4.into()))?;
        }
        // And back to what can be.
        gateway.configure("", &tables)?;
        gateway.output(&["reload"])?;
        ensure!(Configuration::of(&gateway)?.refused.is_none());
        Ok(())
    });
}

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
            Ok(gateway.json(&["status"])?["interfaces"].clone())
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
        let set = |host| ip_set("shared", host, INSPECT);
        let pools = federation.pools()?;
        let mut gateway = Gateway::start(lab, &(pools.clone() + &set(OTHER) + &domains))?;
        let has = |host: Host| -> Result<[bool; 2]> {
            let addresses = lab.gateway.output("ip", &["-o", "addr", "show"])?;
            Ok(host
                .both()
                .map(|address| addresses.contains(&format!(" {address}/"))))
        };
        ensure!(has(OTHER)? == [true; 2] && has(NEXT)? == [false; 2]);
        let [mut passed, mut terminated] = held(&federation, OTHER)?;
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
            + &ip_set("shared", VIP_1, INSPECT)
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
