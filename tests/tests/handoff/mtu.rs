//! Packets that are too big for what lies behind an end.

use snigate_tests::{Topology, addresses::vips};

use crate::{MEGABYTE, in_scenes};

const SMALL: u32 = 1400;

#[test]
fn a_link_with_a_smaller_mtu() {
    for (name, wan_mtu, lan_a_mtu) in [
        ("mtu-wan", SMALL, 1500),
        ("mtu-lan", 1500, SMALL),
        ("mtu-both", SMALL, 1300),
    ] {
        let topology = Topology {
            wan_mtu,
            lan_a_mtu,
            ..Topology::default()
        };
        in_scenes(name, &topology, |scene| {
            let edge = scene.edge()?;
            for address in vips() {
                // Both ends know their link and say so in their MSS: nothing is ever too big.
                scene.cleanly(&format!("{address}"), || {
                    scene.exchange(&edge, address, 5 * MEGABYTE)
                })?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_router_with_a_smaller_mtu() {
    for (name, wan_router_mtu, router_mtu) in [
        ("pmtu-wan", Some(SMALL), None),
        ("pmtu-lan", None, Some(SMALL)),
        ("pmtu-both", Some(SMALL), Some(1300)),
    ] {
        let topology = Topology {
            wan_router_mtu,
            router_mtu,
            ..Topology::default()
        };
        in_scenes(name, &topology, |scene| {
            let edge = scene.edge()?;
            for address in vips() {
                // What was too big is sent again.
                scene.roughly(&format!("{address}"), || {
                    scene.exchange(&edge, address, 5 * MEGABYTE)
                })?;
                // From then on it is known, to whoever sends.
                scene.cleanly(&format!("{address}, once more"), || {
                    scene.exchange(&edge, address, 5 * MEGABYTE)
                })?;
            }
            Ok(())
        });
    }
}
