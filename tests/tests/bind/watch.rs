//! Bound connections are shown to whoever watches, and the agent sleeps while nobody does.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use snigate_tests::{
    Process,
    addresses::{VIP_1, vips},
    deadline::Deadline,
    gateway::Tuning,
    peers::client_hello,
};

use crate::{BOUND, HOOKS, NAME, SOURCES, Scene, TIMEOUT, in_scene, quiet, tuned};

/// More than are shown in a second.
const BURST: usize = 600;

/// On each hook, with a log that wants no events itself.
fn quietly(name: &str, body: impl Fn(&Scene<'_>) -> Result<()>) {
    for hook in HOOKS {
        let tuning = Tuning {
            quiet: true,
            ..tuned(hook)
        };
        in_scene(name, &quiet(), tuning, SOURCES[0], &body);
    }
}

/// Waits until the datapath is asked for these events.
fn asked(scene: &Scene<'_>, expected: &str) -> Result<()> {
    Deadline::after(TIMEOUT).poll("the events that somebody wants", || {
        let slots = scene.gateway.borrow().json(&["map", "dump", "CONTROL"])?;
        let slots = slots.as_array().context("slots")?;
        let slot = slots
            .iter()
            .find(|slot| slot["holds"] == "events that somebody wants");
        let slot = slot.with_context(|| format!("{slots:?}"))?;
        Ok((slot["meaning"] == expected).then_some(()))
    })
}

/// A watcher that has begun.
fn watch(scene: &Scene<'_>, name: &str) -> Result<Process> {
    let command = scene.gateway.borrow().prepared(&["watch", "--json"])?;
    let watcher = scene.lab.spawn(name, command)?;
    asked(scene, "hellos")?;
    Ok(watcher)
}

/// Likewise, another one, with a table that begins when it does.
fn watch_too(scene: &Scene<'_>, name: &str) -> Result<Process> {
    let command = scene.gateway.borrow().prepared(&["watch"])?;
    let mut watcher = scene.lab.spawn(name, command)?;
    watcher.wait_for_line("SERVER NAME", TIMEOUT)?;
    Ok(watcher)
}

/// Waits until a watcher has shown so many connections.
fn shows(watcher: &Process, connections: usize) -> Result<()> {
    Deadline::after(TIMEOUT).poll("the hellos that are shown", || {
        let shown = watcher.stdout()?.matches(NAME).count();
        Ok((shown == connections).then_some(()))
    })
}

fn lines(watcher: &Process) -> Result<Vec<Value>> {
    let output = watcher.stdout()?;
    let lines = output.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

#[test]
fn whoever_watches_sees_bound_connections() {
    quietly("watch", |scene| {
        let _edges = scene.edges()?;
        asked(scene, "")?;
        scene.reaches(vips()[0], NAME, "a", BOUND)?;
        let first = watch(scene, "first")?;
        let second = watch_too(scene, "second")?;
        for address in vips() {
            scene.reaches(address, NAME, "a", BOUND)?;
        }
        shows(&first, 2)?;
        shows(&second, 2)?;
        for (hello, (address, edge)) in lines(&first)?
            .iter()
            .zip(vips().iter().zip(["a-v4", "a-v6"]))
        {
            let shown = ["address", "server_name", "matched", "result"].map(|it| &hello[it]);
            let expected = [
                &json!(address.to_string()),
                &json!(NAME),
                &json!("exact"),
                &json!(format!("bound to {edge}")),
            ];
            ensure!(shown == expected, "{hello}");
        }
        // The last one that goes is who matters.
        drop(first);
        scene.reaches(vips()[0], NAME, "a", BOUND)?;
        shows(&second, 3)?;
        drop(second);
        asked(scene, "")
    });
}

#[test]
fn of_many_bound_connections_a_watcher_sees_a_sample() {
    quietly("watch-many", |scene| {
        let _edges = scene.edges()?;
        let watcher = watch(scene, "watch")?;
        let hello = client_hello(NAME)?;
        let before = scene.counter("bound")?;
        for _ in 0..BURST {
            scene.open(VIP_1.sip()[0], &hello)?.close()?;
        }
        ensure!(scene.counter("bound")? - before == BURST as u64);
        let seen = lines(&watcher)?.len();
        eprintln!("{seen} of {BURST} connections were shown");
        ensure!(seen > 0 && seen <= BURST);
        Ok(())
    });
}
