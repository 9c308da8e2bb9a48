//! Lines that lose, damage, reorder and double, to the partner and to the first Edge.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, ensure};

use super::{Play, Scenario};
use crate::{Disturbance, Fate, Wire};

/// Of a hundred packets, how many are lost or damaged.
const PERCENT: u32 = 3;
/// How many it are at least in the end.
const ENOUGH: u64 = 50;

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
    let hit = Arc::new(AtomicU64::new(0));
    for wire in wires(play)? {
        let (mut rng, hit) = (play.rng.fork(), Arc::clone(&hit));
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
    while hit.load(Ordering::Relaxed) < ENOUGH {
        play.load.wait_for_held(|_| true)?;
        play.load.wait_for_new(|_| true)?;
    }
    for wire in wires(play)? {
        wire.acquit();
    }
    play.note(format!("{} packets", hit.load(Ordering::Relaxed)));
    Ok(())
}

fn disturbed(play: &mut Play<'_, '_>, disturbance: Disturbance) -> Result<()> {
    let counts = |play: &Play<'_, '_>| -> Result<u64> {
        let counts = wires(play)?.map(Wire::counts);
        Ok(counts.iter().map(|it| it.overtaken + it.doubled).sum())
    };
    for wire in wires(play)? {
        wire.disturb(disturbance);
    }
    let mut hit = 0;
    while hit < ENOUGH {
        play.load.wait_for_held(|_| true)?;
        play.load.wait_for_new(|_| true)?;
        hit = counts(play)?;
    }
    for wire in wires(play)? {
        let lost = wire.counts().lost;
        ensure!(lost == 0, "{lost} packets were lost");
        wire.disturb(Disturbance::default());
    }
    play.note(format!("{hit} segments"));
    Ok(())
}
