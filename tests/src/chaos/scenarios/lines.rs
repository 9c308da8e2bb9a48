//! Lines that lose, damage, reorder and double, to the partner and to the first Edge.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, ensure};

use super::{Play, Scenario};
use crate::{Disturbance, Fate, Wire, chaos::load::PATIENCE, deadline::Deadline};

/// Of a hundred packets, how many are lost or damaged.
const PERCENT: u32 = 3;
/// How many it are at least in the end, on either line.
const ENOUGH: u64 = 25;

pub(super) fn all() -> Vec<Scenario> {
    [
        Scenario::new(
            "line/lossy",
            "three of a hundred packets are lost",
            |play| judged(play, |_| Fate::Lost),
        ),
        Scenario::new(
            "line/corrupted",
            "three of a hundred packets have a bit turned over",
            |play| judged(play, |rng| Fate::Damaged(rng.usize(..))),
        ),
        Scenario::new(
            "line/reordered",
            "each seventh segment is overtaken by three others",
            |play| {
                let disturbance = Disturbance {
                    overtaken: 7,
                    by: 3,
                    ..Disturbance::default()
                };
                disturbed(play, disturbance)
            },
        ),
        Scenario::new("line/doubled", "each third segment arrives twice", |play| {
            let disturbance = Disturbance {
                doubled: 3,
                ..Disturbance::default()
            };
            disturbed(play, disturbance)
        }),
    ]
    .into_iter()
    .map(Scenario::on_wires)
    .collect()
}

fn wires<'a>(play: &Play<'_, 'a>) -> Result<[&'a Wire; 2]> {
    let lab = play.stage.lab;
    let (wan, lan) = (lab.wan_wire.as_ref(), lab.lan_a_wire.as_ref());
    Ok([wan.context("no line")?, lan.context("no line")?])
}

/// Some packets, chosen by chance, have this fate.
fn judged(play: &mut Play<'_, '_>, fate: fn(&mut fastrand::Rng) -> Fate) -> Result<()> {
    let hit = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    for (wire, hit) in wires(play)?.into_iter().zip(&hit) {
        let (mut rng, hit) = (play.rng.fork(), Arc::clone(hit));
        wire.judge(move |_, frame| {
            // ARP has no checksum: what is damaged there is believed.
            let is_ip = matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]));
            if !is_ip || rng.u32(..100) >= PERCENT {
                return Fate::Arrives;
            }
            hit.fetch_add(1, Ordering::Relaxed);
            fate(&mut rng)
        });
    }
    until_enough(play, || {
        hit.each_ref().map(|hit| hit.load(Ordering::Relaxed))
    })?;
    for wire in wires(play)? {
        wire.acquit();
    }
    Ok(())
}

fn disturbed(play: &mut Play<'_, '_>, disturbance: Disturbance) -> Result<()> {
    let wires = wires(play)?;
    for wire in wires {
        wire.disturb(disturbance);
    }
    let hit = |wire: &Wire| {
        let counts = wire.counts();
        counts.overtaken + counts.doubled
    };
    until_enough(play, || wires.map(hit))?;
    for wire in wires {
        let lost = wire.counts().lost;
        ensure!(lost == 0, "{lost} packets were lost");
        wire.disturb(Disturbance::default());
    }
    Ok(())
}

/// Connections go on, and come and go, until either line has done it often enough.
fn until_enough(play: &mut Play<'_, '_>, hit: impl Fn() -> [u64; 2]) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    let hit = deadline.poll("enough packets to be hit on both lines", || {
        play.load.wait_for_held(|_| true)?;
        play.load.wait_for_new(|_| true)?;
        let hit = hit();
        Ok(hit.iter().all(|it| *it >= ENOUGH).then_some(hit))
    })?;
    let [wan, lan] = hit;
    play.note(format!(
        "{wan} packets on the partner's line, {lan} on the Edge's"
    ));
    Ok(())
}
