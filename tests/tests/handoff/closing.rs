//! Ends: each side's, in each order.

use anyhow::{Result, ensure};
use snigate_tests::{
    Topology,
    addresses::vips,
    peers::{Edge, End},
};

use crate::{MEGABYTE, Scene, TIMEOUT, in_scenes};

#[test]
fn connections_end_the_way_their_ends_want() {
    in_scenes("ends", &Topology::default(), |scene| {
        all_ends(scene, &scene.edge()?)
    });
}

/// The four ways, in both families.
pub(crate) fn all_ends(scene: &Scene<'_>, edge: &Edge) -> Result<()> {
    let partner = scene.partner();
    for address in vips() {
        scene.cleanly(&format!("{address}, the partner's FIN first"), || {
            let done = partner.half_close(address, MEGABYTE, MEGABYTE)?;
            scene.went_well(edge, done.local, MEGABYTE)
        })?;
        scene.cleanly(&format!("{address}, the Edge's FIN first"), || {
            let done = partner.half_closed(address, MEGABYTE, MEGABYTE)?;
            scene.went_well(edge, done.local, MEGABYTE)
        })?;
        scene.cleanly(&format!("{address}, a RST of the Edge"), || {
            let client = partner.be_reset(address)?;
            edge.report(TIMEOUT)?;
            scene.went(client)
        })?;
        scene.cleanly(&format!("{address}, a RST of the partner"), || {
            let client = partner.reset(address)?;
            let report = edge.report(TIMEOUT)?;
            ensure!(report.end == End::Reset, "{report:?}");
            scene.went(client)
        })?;
    }
    Ok(())
}
