//! What the lab's lines do to packets, on the way of plain routing.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Disturbance, Lab, Topology,
    addresses::{EDGE_A, PARTNER, SIP_TLS},
    counters::TcpCounters,
    lab_test,
    peers::{Edge, Partner},
};

const TIMEOUT: Duration = Duration::from_secs(30);
const MEGABYTE: u64 = 1_000_000;

fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

fn exchange(lab: &Lab) -> Result<()> {
    let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
    let partner = Partner {
        namespace: &lab.partner,
        source: None,
        tls: None,
        timeout: TIMEOUT,
    };
    for address in EDGE_A.both() {
        partner.exchange(SocketAddr::new(address, SIP_TLS), MEGABYTE, MEGABYTE)?;
    }
    Ok(())
}

fn counters(lab: &Lab) -> Result<[TcpCounters; 2]> {
    Ok([lab.partner.tcp_counters()?, lab.edge_a.tcp_counters()?])
}

#[test]
fn wires_delay_reorder_and_double() {
    for offloads in [false, true] {
        let topology = Topology {
            wan_wire: true,
            lan_a_wire: true,
            offloads,
            ..quiet()
        };
        lab_test(&format!("wires-{offloads}"), &topology, |lab| {
            let wan = lab.wan_wire.as_ref().context("the partner's wire")?;
            let lan = lab.lan_a_wire.as_ref().context("edge-a's wire")?;
            exchange(lab)?;
            let before = counters(lab)?;
            for end in &before {
                ensure!(end.checksum_errors() == 0, "{:?}", end.repairs());
            }

            wan.disturb(Disturbance {
                delay: Duration::from_millis(20),
                ..Disturbance::default()
            });
            lan.disturb(Disturbance {
                delay: Duration::from_millis(50),
                ..Disturbance::default()
            });
            for address in EDGE_A.both() {
                let time = lab.partner.ping(address, TIMEOUT)?;
                ensure!(time >= Duration::from_millis(140), "{time:?}");
            }

            wan.disturb(Disturbance {
                overtaken: 10,
                by: 2,
                ..Disturbance::default()
            });
            lan.disturb(Disturbance {
                doubled: 10,
                ..Disturbance::default()
            });
            exchange(lab)?;
            let (wan, lan) = (wan.counts(), lan.counts());
            ensure!(
                wan.overtaken > 0 && wan.doubled == 0 && wan.lost == 0,
                "{wan:?}"
            );
            ensure!(
                lan.doubled > 0 && lan.overtaken == 0 && lan.lost == 0,
                "{lan:?}"
            );
            for (end, before) in counters(lab)?.iter().zip(&before) {
                let added = end.since(before);
                ensure!(added.checksum_errors() == 0, "{added:?}");
                // Both happen to both directions of a connection.
                ensure!(added.value("TcpExtTCPOFOQueue") > 0, "{added:?}");
                ensure!(added.value("TcpExtTCPDSACKRecv") > 0, "{added:?}");
            }
            Ok(())
        });
    }
}

#[test]
fn routers_on_either_side_say_that_packets_are_too_big() {
    let topology = Topology {
        wan_router_mtu: Some(1400),
        router_mtu: Some(1300),
        ..quiet()
    };
    lab_test("routers", &topology, |lab| {
        exchange(lab)?;
        for (machine, other, mtu) in [
            (&lab.edge_a, PARTNER, "mtu 1400"),
            (&lab.partner, EDGE_A, "mtu 1300"),
        ] {
            for address in other.both() {
                let route = machine.output("ip", &["route", "get", &address.to_string()])?;
                ensure!(route.contains(mtu), "{route}");
            }
        }
        Ok(())
    });
}

#[test]
fn offloads_are_as_the_topology_says() {
    for offloads in [false, true] {
        let topology = Topology {
            offloads,
            ..quiet()
        };
        lab_test(&format!("offloads-{offloads}"), &topology, |lab| {
            for (machine, device) in [(&lab.partner, "eth0"), (&lab.gateway, "lan0")] {
                let features = machine.output("ethtool", &["-k", device])?;
                let on = features.contains("tx-checksumming: on");
                ensure!(on == offloads, "{features}");
            }
            exchange(lab)
        });
    }
}
