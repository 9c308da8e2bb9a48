//! A running agent takes a changed configuration over as a whole, or not at all.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use snigate_tests::{
    addresses::{EDGE_A, EDGE_B, VIP_1, at},
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
};

use crate::{
    TIMEOUT, both,
    federation::{Federation, INSPECT, domain, ip_set},
    quiet,
};

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
        let mut open = Vec::from(federation.held(VIP_1)?);
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
            open.extend(federation.held(VIP_1)?);

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
