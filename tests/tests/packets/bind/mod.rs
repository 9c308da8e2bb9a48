//! Connections that the datapath begins by itself: from the SYN to the Edge's answer.
//!
//! What a cookie is nobody can know beforehand. So these tables are not rows but conversations: a [`Case`] talks to the datapath as a client and as an
//! Edge, and compares every frame to the last byte.

mod answers;
mod established;
mod full;
mod greetings;
pub(crate) mod hello;
mod names;
mod parts;
pub(crate) mod talk;

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use snigate_tests::packets::plan::Family;
use snigate_tests::packets::{Program, Scene, packet_test};

use talk::Talk;

/// A conversation, by name.
pub(crate) type Case = (&'static str, fn(&mut Talk<'_, '_>) -> Result<()>);

/// VLAN tags that the client's frames come with.
const TAGS: [&[(u16, u16)]; 2] = [&[], &[(0x8100, 100)]];

/// Has every conversation at both hooks, in both address families, with and without a VLAN tag.
fn table(name: &str, cases: &[Case]) {
    packet_test(name, |rig| {
        let (mut failures, mut failed, mut count) = (String::new(), 0, 0);
        for program in Program::BOTH {
            let mut last = None;
            for (tags, family) in TAGS
                .into_iter()
                .flat_map(|tags| Family::BOTH.map(|f| (tags, f)))
            {
                for (case, run) in cases {
                    let what = format!("{}, {case}, {} tags", family.name(), tags.len());
                    let mut scene = match last.take() {
                        Some(scene) => scene,
                        None => Scene::at(rig, &what, 64, program)?,
                    };
                    scene.reset(&what)?;
                    count += 1;
                    let result = Talk::begin(&mut scene, family, tags)
                        .and_then(|mut talk| run(&mut talk))
                        .context(what);
                    if let Err(error) = result {
                        failed += 1;
                        let _ = writeln!(failures, "\nat {program:?}: {error:#}");
                    }
                    last = Some(scene);
                }
            }
        }
        ensure!(failed == 0, "{failed} of {count} failed\n{failures}");
        Ok(())
    });
}
