//! Maps that are full: what was there goes on, what is new is refused with a reason, and there is room again as soon as something has ended.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;
use sni_common::contract::{SniName, SniRoute, SniRouteKey, limits::MAX_SNI_ROUTES};
use sni_user::datapath::Maps;
use snigate_tests::{deadline::Deadline, gateway::Gateway, lab_test};

use crate::{
    TIMEOUT, counted, metrics, quiet, sample,
    scene::{BOUND, RELAYED, STEERED, Scene, WAYS, all_live},
};

/// The datapath's count of packets dropped for this reason.
fn dropped(gateway: &Gateway<'_>, reason: &str) -> Result<u64> {
    let status = gateway.json(&["status", "--all"])?;
    let drops = status["drops"].as_array().context("drops")?;
    let row = drops.iter().find(|row| row["reason"] == reason);
    Ok(row.and_then(|row| row["packets"].as_u64()).unwrap_or(0))
}

fn flows(gateway: &Gateway<'_>) -> Result<Vec<Value>> {
    let mut flows = match gateway.json(&["flow", "ls"])? {
        Value::Array(flows) => flows,
        other => bail!("no list: {other}"),
    };
    flows.retain(|flow| flow["state"] == "established" && flow["way"] != "relayed");
    Ok(flows)
}

#[test]
fn a_full_flow_table_refuses_what_is_new_and_keeps_what_is_there() {
    lab_test("faults-flows", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let gateway = scene.gateway("max_flows = 2", None)?;
        let [v4, v6] = STEERED.addresses();
        let mut open = vec![scene.open(STEERED, v4)?, scene.open(STEERED, v6)?];
        ensure!(flows(&gateway)?.len() == 2);

        for address in [v4, v6] {
            ensure!(scene.open(STEERED, address).is_err(), "a third flow");
        }
        ensure!(dropped(&gateway, "flow-table-full")? >= 2);
        let refused = "snigate_dropped_packets_total{reason=\"flow-table-full\"}";
        Deadline::after(TIMEOUT).poll("the metric", || {
            let told = metrics(&lab.gateway)?;
            Ok((sample(&told, refused) >= 2.0).then_some(()))
        })?;
        // What the agent carries needs no room there.
        open.extend(scene.open_all(&[RELAYED])?);
        all_live(&mut open)?;

        let ended = flows(&gateway)?.remove(0);
        let client = ended["client"].as_str().context("a client")?;
        gateway.output(&["flow", "kill", client])?;
        // The one whose flow it was.
        open.retain(|it| it.local().to_string() != client);
        let mut new = Deadline::after(TIMEOUT)
            .poll("room for another flow", || Ok(scene.open(STEERED, v4).ok()))?;
        new.ping()?;
        all_live(&mut open)
    });
}

/// Fills the table of names with ones that nobody asks for, and returns how many those are.
fn fill(maps: &mut Maps) -> Result<Vec<SniRouteKey>> {
    let generation = maps.generation()?;
    let mut added = Vec::new();
    for n in 0..=MAX_SNI_ROUTES {
        let name = SniName::new(&format!("n{n}.ballast.example"));
        let name = name.map_err(|error| anyhow!("{error}"))?;
        let key = SniRouteKey { generation, name };
        if maps.sni_routes.insert(key, SniRoute::default(), 0).is_err() {
            return Ok(added);
        }
        added.push(key);
    }
    bail!("{MAX_SNI_ROUTES} names fit, and more")
}

#[test]
fn a_full_table_of_names_keeps_the_configuration_that_is_active() {
    lab_test("faults-names", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let gateway = scene.gateway("", None)?;
        let mut open = scene.open_all(&WAYS)?;
        let mut maps = Maps::open(gateway.pin_path())?;
        let ballast = fill(&mut maps)?;
        let before = gateway.agent()?["configuration"]["generation"].clone();
        let add = ["route", "add", "sip.litware.example", "a"];
        for command in [&["reload"][..], &add] {
            let refused = gateway.refusal(command)?;
            ensure!(
                refused.contains("SNI_ROUTES: there is no room left"),
                "{refused}"
            );
        }
        ensure!(gateway.agent()?["configuration"]["generation"] == before);
        let told = metrics(&lab.gateway)?;
        let fill = "snigate_map_entries{map=\"SNI_ROUTES\",type=\"hash\"}";
        ensure!(sample(&told, fill) == f64::from(MAX_SNI_ROUTES), "{told}");
        open.extend(scene.open_all(&WAYS)?);
        all_live(&mut open)?;

        for key in &ballast {
            maps.sni_routes.remove(key)?;
        }
        gateway.output(&["reload"])?;
        gateway.output(&add)?;
        open.extend(scene.open_all(&[BOUND])?);
        all_live(&mut open)?;
        ensure!(counted(&gateway, "incoherent")? == 0);
        Ok(())
    });
}
