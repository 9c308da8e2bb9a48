//! Lines that lose, reorder, double and delay.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use snigate_tests::{Disturbance, Topology, Wire, WireCounts, addresses::vips, faults};

use crate::{BOUND, MEGABYTE, Scene, in_scenes};

#[test]
fn loss() {
    in_scenes("loss", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        for (percent, bytes) in [(1, 5 * MEGABYTE), (5, MEGABYTE)] {
            for end in scene.ends() {
                faults::lose_incoming(end, percent)?;
            }
            for address in vips() {
                scene.roughly(&format!("{address}, {percent} %"), || {
                    scene.exchange(&edge, address, bytes)
                })?;
            }
        }
        Ok(())
    });
}

#[test]
fn segments_that_overtake_others() {
    in_scenes("reordering", &wires(), |scene| {
        let edge = scene.edge()?;
        for (overtaken, by) in [(50, 1), (20, 5)] {
            disturb(
                scene,
                Disturbance {
                    overtaken,
                    by,
                    ..Disturbance::default()
                },
            )?;
            for address in vips() {
                let what = format!("{address}, each {overtaken}th is overtaken by {by}");
                scene.roughly(&what, || scene.exchange(&edge, address, 5 * MEGABYTE))?;
            }
        }
        counted(scene, |counts| counts.overtaken)
    });
}

#[test]
fn segments_that_arrive_twice() {
    in_scenes("doubling", &wires(), |scene| {
        let edge = scene.edge()?;
        disturb(
            scene,
            Disturbance {
                doubled: 30,
                ..Disturbance::default()
            },
        )?;
        for address in vips() {
            scene.roughly(&format!("{address}"), || {
                scene.exchange(&edge, address, 5 * MEGABYTE)
            })?;
        }
        counted(scene, |counts| counts.doubled)
    });
}

#[test]
fn ends_far_away() {
    in_scenes("far", &wires(), |scene| {
        let edge = scene.edge()?;
        // Bound, a hello is acknowledged by the Edge, after a handshake of its own: two round trips. A client that has measured none that are as long
        // repeats it after 200 ms.
        let delay = if scene.way == BOUND { 25 } else { 50 };
        let far = Disturbance {
            delay: Duration::from_millis(delay),
            ..Disturbance::default()
        };
        let near = Disturbance::default();
        for (at_partner, at_edge) in [(near, far), (far, near), (far, far)] {
            let [wan, lan] = lines(scene)?;
            wan.disturb(at_partner);
            lan.disturb(at_edge);
            for address in vips() {
                let what = format!("{address}, {at_partner:?} and {at_edge:?}");
                // Late, but all there: nothing is to be repaired.
                scene.cleanly_at_last(&what, || scene.exchange(&edge, address, 10_000))?;
                // A client that goes on without an answer has its round trips with the agent, and from the hand-off on with the Edge: it may send
                // again what is only late.
                scene.roughly(&what, || scene.exchange(&edge, address, MEGABYTE))?;
            }
        }
        let [wan, lan] = lines(scene)?.map(|line| line.counts());
        ensure!(wan.lost + lan.lost == 0, "{wan:?}, {lan:?}");
        Ok(())
    });
}

fn wires() -> Topology {
    Topology {
        wan_wire: true,
        lan_a_wire: true,
        ..Topology::default()
    }
}

fn lines<'a>(scene: &'a Scene<'_>) -> Result<[&'a Wire; 2]> {
    let Some((wan, lan)) = scene
        .lab
        .wan_wire
        .as_ref()
        .zip(scene.lab.lan_a_wire.as_ref())
    else {
        bail!("the topology has no wires");
    };
    Ok([wan, lan])
}

fn disturb(scene: &Scene<'_>, disturbance: Disturbance) -> Result<()> {
    for line in lines(scene)? {
        line.disturb(disturbance);
    }
    Ok(())
}

/// That the lines have done it, and nothing else.
fn counted(scene: &Scene<'_>, what: impl Fn(&WireCounts) -> u64) -> Result<()> {
    for line in lines(scene)? {
        let counts = line.counts();
        // With offloads a segment of the line is many of the connection's.
        ensure!(what(&counts) >= 10 && counts.lost == 0, "{counts:?}");
    }
    Ok(())
}
