//! Partners, and Edges, behind VLAN tags.

use snigate_tests::{Tags, Topology, addresses::vips};

use crate::{MEGABYTE, closing::all_ends, in_scenes};

#[test]
fn tagged_partners_and_edges() {
    let one = Tags::Vlan(100);
    let two = Tags::QinQ {
        outer: 200,
        inner: 100,
    };
    for (name, wan_tags, lan_a_tags) in [
        ("vlan-wan", one, Tags::None),
        ("qinq-wan", two, Tags::None),
        ("vlan-lan", Tags::None, Tags::Vlan(300)),
        ("qinq-vlan", two, Tags::Vlan(300)),
    ] {
        let topology = Topology {
            wan_tags,
            lan_a_tags,
            ..Topology::default()
        };
        in_scenes(name, &topology, |scene| {
            if scene.hook == "tcx" && !scene.lab.has_kernel_vlans() {
                // What stands in for a VLAN interface taps the packets before the hook does, and the host's own stack answers them.
                return Ok(());
            }
            if lan_a_tags != Tags::None && !scene.lab.has_kernel_vlans() {
                // The agent cannot learn how to send there.
                return Ok(());
            }
            let edge = scene.edge()?;
            for address in vips() {
                scene.cleanly(&format!("{address}"), || {
                    scene.exchange(&edge, address, MEGABYTE)
                })?;
            }
            all_ends(scene, &edge)
        });
    }
}
