//! Flows without a socket keep their ports: the agent connects to Edges by others.

use anyhow::{Context as _, Result};
use snigate_tests::{Topology, addresses::vips, gateway::two_pools, lab_test, peers::Connection};

use crate::{HANDED_OFF, HOOKS, Scene};

/// All that the gateway may use, for each family.
const RANGE: &str = "40000 40063";
/// Idle, handed off, and unknown to the kernel, which would choose their ports again.
const IDLE: usize = 40;
/// As many more as there is room for.
const MORE: usize = 20;

#[test]
fn a_port_belongs_to_one_flow() {
    for hook in HOOKS {
        let topology = Topology {
            capture: false,
            offloads: *hook == "tcx",
            ..Topology::default()
        };
        lab_test(&format!("handoff-ports-{hook}"), &topology, |lab| {
            lab.gateway.sysctl("net/ipv4/ip_local_port_range", RANGE)?;
            let scene = Scene::new(lab, hook, HANDED_OFF, &two_pools("gateway"))?;
            let _edge = scene.edge()?;
            for address in vips() {
                let open = |n: usize| -> Result<Connection> {
                    let mut connection = scene.partner().echo(address)?;
                    connection.ping()?;
                    scene
                        .went(connection.local())
                        .with_context(|| format!("connection {n} to {address}"))?;
                    Ok(connection)
                };
                let mut all = (0..IDLE + MORE).map(open).collect::<Result<Vec<_>>>()?;
                for connection in &mut all {
                    connection.ping()?;
                }
            }
            Ok(())
        });
    }
}
