//! Flows that the gateway has forgotten, or never knew: another gateway's, or from before a restart.

use anyhow::{Result, ensure};
use sni_common::contract::{Counter, DropReason, EdgeState};
use sni_common::tcp::state;
use snigate_tests::addresses::{EDGE_A, EDGE_B};
use snigate_tests::packets::frame::{RST, reset_of};
use snigate_tests::packets::plan::{CLIENT_ISN, Configuration, EDGE_ISN, Family, Path};
use snigate_tests::packets::{Port, Scene, Step, packet_test};

use crate::checks::{counted, no_flows};
use crate::edges::{forget_half_open, one_for_each};

const BOTH: Configuration = Configuration {
    source: "preserve",
    edges: &[("edge-a", EDGE_A), ("edge-b", EDGE_B)],
    second: &[("edge-a", EDGE_A)],
};

#[test]
fn a_lost_flow_finds_its_edge_again() {
    packet_test("recovery", |rig| {
        for family in Family::BOTH {
            let name = format!("recovery, {}", family.name());
            let mut scene = Scene::new(rig, &name, 64)?;
            scene.configure(&BOTH.render(""))?;
            let (to_a, to_b) = one_for_each(&mut scene, family)?;
            for path in [to_a, to_b] {
                for step in path.handshake() {
                    step.run(&mut scene)?;
                }
                forget(&mut scene)?;
                // The same Edge as the SYN was sent to, and unconfirmed until the Edge answers.
                let steps = [
                    path.up(&path.client_data(100, b"in mid-stream"))
                        .leaves(counted(0, 1)),
                    path.up(&path.client_data(113, b"more"))
                        .leaves(counted(0, 1)),
                    path.down(&path.edge_data(50, 117, b"I know you"))
                        .counts(Counter::Recovered)
                        .leaves(counted(1, 0)),
                    path.up(&path.client_data(117, b"so do I"))
                        .leaves(counted(1, 0)),
                ];
                for step in steps {
                    step.run(&mut scene)?;
                }
                forget(&mut scene)?;
            }
        }
        Ok(())
    });
}

#[test]
fn an_edge_that_is_leaving_gets_its_lost_flows() {
    packet_test("recovery to a draining Edge", |rig| {
        for family in Family::BOTH {
            let name = format!("recovery, draining, {}", family.name());
            let mut scene = Scene::new(rig, &name, 64)?;
            scene.configure(&BOTH.render(""))?;
            let (to_a, _) = one_for_each(&mut scene, family)?;
            for state in [EdgeState::Draining, EdgeState::Down] {
                let edge = if family == Family::V4 {
                    "edge-a"
                } else {
                    "edge-a6"
                };
                scene.set_edge(edge, state)?;
                to_a.up(&to_a.client_data(0, b"mine"))
                    .leaves(counted(0, 1))
                    .run(&mut scene)?;
                forget(&mut scene)?;
            }
        }
        Ok(())
    });
}

#[test]
fn an_edge_that_does_not_know_the_flow_resets_it() {
    packet_test("recovery in vain", |rig| {
        for family in Family::BOTH {
            let name = format!("recovery in vain, {}", family.name());
            let mut scene = Scene::new(rig, &name, 64)?;
            scene.configure(&Configuration::default().render(""))?;
            let path = Path::usual(family);
            let data = path.client_data(0, b"who am I");
            let rst = path.edge_packet().flags(RST).seq(data.ack);
            path.up(&data).leaves(counted(0, 1)).run(&mut scene)?;
            path.down(&rst).leaves(no_flows).run(&mut scene)?;
        }
        Ok(())
    });
}

/// A connection may come back at its very end.
#[test]
fn a_lost_flow_that_is_closing() {
    packet_test("recovery of a FIN", |rig| {
        for family in Family::BOTH {
            let name = format!("recovery of a FIN, {}", family.name());
            let mut scene = Scene::new(rig, &name, 64)?;
            scene.configure(&Configuration::default().render(""))?;
            let path = Path::usual(family);
            path.up(&path.client_fin(40))
                .leaves(counted(0, 1))
                .run(&mut scene)?;
            path.down(&path.edge_fin(10, 41))
                .counts(Counter::Recovered)
                .leaves(|flows| {
                    ensure!(
                        flows.established[0].to_edge.state & state::FIN != 0
                            && flows.established[0].to_client.state & state::FIN != 0,
                        "a flow that has ended both ways looks alive, and is kept for hours"
                    );
                    Ok(())
                })
                .run(&mut scene)?;
        }
        Ok(())
    });
}

/// The port that a lost flow had toward the Edge can't be found again.
#[test]
fn a_lost_flow_of_the_gateways_own_ports_is_reset() {
    packet_test("no recovery", |rig| {
        for family in Family::BOTH {
            let name = format!("no recovery, {}", family.name());
            let mut scene = Scene::new(rig, &name, 64)?;
            let gateway = Configuration {
                source: "gateway",
                ..Configuration::default()
            };
            scene.configure(&gateway.render(""))?;
            let path = Path::usual(family);
            for packet in [path.client_data(0, b"lost"), path.client_fin(0)] {
                Step::answered(
                    Port::Wan0,
                    &packet,
                    reset_of(&packet).frame(),
                    DropReason::Unrecoverable,
                )
                .leaves(no_flows)
                .run(&mut scene)?;
            }
        }
        Ok(())
    });
}

#[test]
fn what_a_recovered_flow_has_seen() {
    packet_test("numbers of a recovered flow", |rig| {
        for family in Family::BOTH {
            let name = format!("numbers of a recovered flow, {}", family.name());
            let mut scene = Scene::new(rig, &name, 64)?;
            scene.configure(&Configuration::default().render(""))?;
            let path = Path::usual(family);
            let first = CLIENT_ISN.wrapping_add(1);
            path.up(&path.client_data(10, b"four")).run(&mut scene)?;
            path.down(&path.edge_data(0, 14, b"answer"))
                .counts(Counter::Recovered)
                .leaves(move |flows| {
                    let flow = &flows.established[0];
                    ensure!(flow.to_edge.next_seq == first.wrapping_add(14));
                    ensure!(flow.to_edge.last_ack == EDGE_ISN + 1);
                    ensure!(flow.to_client.next_seq == EDGE_ISN + 7);
                    ensure!(flow.to_client.last_ack == first.wrapping_add(14));
                    Ok(())
                })
                .run(&mut scene)?;
            // So a reset of either side is recognised.
            let rst = path.client_packet().flags(RST).seq(first.wrapping_add(14));
            path.up(&rst)
                .leaves(|flows| {
                    ensure!(flows.established[0].to_edge.state & state::RST != 0);
                    Ok(())
                })
                .run(&mut scene)?;
        }
        Ok(())
    });
}

fn forget(scene: &mut Scene<'_>) -> Result<()> {
    forget_half_open(scene)?;
    let maps = &mut scene.datapath().maps;
    for (key, _) in maps.all_flows()? {
        maps.flows.remove(&key)?;
    }
    Ok(())
}
