//! What connections experience.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use snigate_tests::{
    Tags, Topology,
    addresses::{EDGE_A, PARTNER, SIP_TLS, VIP_1, VIP_2, at},
    faults,
    gateway::{Gateway, two_ip_sets, two_ip_sets_with_source},
    lab_test,
    peers::{Edge, End, OpensslClient, OpensslServer, TlsVersion},
    pki::Pki,
};
use socket2::{Domain, Socket, Type};

use crate::{
    MEGABYTE, NAME, TIMEOUT, arrives, arrives_unchanged, count, count_of, drops, ends,
    finds_the_mtu, narrow_routes, quiet, start, tcp, vip,
};

#[test]
fn openssl_reaches_the_edge_of_each_ip_set() {
    lab_test("steer-openssl", &Topology::default(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let partner = pki.server("partner", &["sip.partner.example"])?;
        let _servers = [
            OpensslServer::start(
                lab,
                "edge-a",
                &lab.edge_a,
                SIP_TLS,
                &pki.server("edge-a", &[NAME, "sip.fabrikam.example"])?,
                &pki,
            )?,
            OpensslServer::start(
                lab,
                "edge-b",
                &lab.edge_b,
                SIP_TLS,
                &pki.server("edge-b", &["sip.adatum.example"])?,
                &pki,
            )?,
        ];
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        for (host, name, count) in [
            (VIP_1, NAME, 2),
            (VIP_1, "sip.fabrikam.example", 2),
            (VIP_2, "sip.adatum.example", 1),
        ] {
            for address in vip(host) {
                for version in TlsVersion::BOTH {
                    let session = OpensslClient::new(&lab.partner, name, &partner, &pki)
                        .version(version)
                        .connect(address, TIMEOUT)?;
                    ensure!(session.version == version.name(), "{session:?}");
                    ensure!(
                        session.names.iter().any(|n| n == name) && session.names.len() == count,
                        "{session:?}"
                    );
                }
            }
        }
        ensure!(
            count_of(&gateway)? == (12, 12),
            "{}",
            gateway.output(&["status", "--all"])?
        );
        ensure!(count(&gateway, "dropped")? == 0);
        Ok(())
    });
}

#[test]
fn fifty_megabytes_each_way_arrive_unchanged() {
    lab_test("steer-bulk", &quiet(), |lab| {
        let _gateway = Gateway::start(lab, &two_ip_sets())?;
        arrives_unchanged(lab, 50 * MEGABYTE, &TlsVersion::BOTH)
    });
}

#[test]
fn connections_end_the_way_their_ends_want() {
    lab_test("steer-ends", &Topology::default(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        ends(lab, &edge)?;
        let flows = gateway.json(&["flow", "ls"])?;
        let states: Vec<_> = flows
            .as_array()
            .context("flows")?
            .iter()
            .map(|flow| flow["state"].to_string())
            .collect();
        ensure!(states.len() == 8, "{flows}");
        ensure!(
            states
                .iter()
                .all(|state| state.contains("clos") || state.contains("reset")),
            "{flows}"
        );
        Ok(())
    });
}

#[test]
fn a_blind_reset_ends_nothing() {
    lab_test("steer-blind-reset", &Topology::default(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        for address in vip(VIP_1) {
            let mut connection = tcp(lab).echo(address)?;
            connection.ping()?;
            faults::blind_reset(&lab.partner, connection.local(), address, 12345)?;
            connection.ping()?;
            connection.close()?;
            ensure!(edge.report(TIMEOUT)?.end == End::Clean);
        }
        ensure!(count(&gateway, "stray-resets")? == 2);
        Ok(())
    });
}

#[test]
fn two_hundred_connections_at_once() {
    lab_test("steer-parallel", &quiet(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        for address in vip(VIP_1) {
            let all = tcp(lab).exchange_in_parallel(200, address, 50_000, 50_000)?;
            ensure!(all.len() == 200);
        }
        ensure!(
            count_of(&gateway)?.1 == 400,
            "{}",
            gateway.output(&["status"])?
        );
        Ok(())
    });
}

#[test]
fn the_edge_sees_the_partner_or_the_gateway() {
    for (source, seen) in [
        ("preserve", PARTNER),
        ("gateway", snigate_tests::addresses::GATEWAY_LAN_A),
    ] {
        lab_test(&format!("steer-{source}"), &Topology::default(), |lab| {
            let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
            let _gateway = Gateway::start(lab, &two_ip_sets_with_source(source))?;
            for (address, expected) in vip(VIP_1).into_iter().zip(seen.both()) {
                let peer = tcp(lab).who_am_i(address)?;
                ensure!(peer.ip() == expected, "{source}: the Edge sees {peer}");
                edge.report(TIMEOUT)?;
                tcp(lab).exchange(address, 5 * MEGABYTE, 5 * MEGABYTE)?;
                edge.report(TIMEOUT)?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_smaller_mtu_behind_the_gateway_is_found_out() {
    // By an ICMP error of a router behind the gateway, translated.
    let topology = Topology {
        router_mtu: Some(1400),
        ..Topology::default()
    };
    lab_test("steer-pmtu-router", &topology, |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        finds_the_mtu(lab)?;
        ensure!(count(&gateway, "icmp-translated")? > 0);
        Ok(())
    });
    // By an ICMP error of the datapath itself, about a route of the gateway's.
    lab_test("steer-pmtu-route", &Topology::default(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        narrow_routes(lab)?;
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        finds_the_mtu(lab)?;
        ensure!(drops(&gateway, "too-big")? > 0);
        Ok(())
    });
}

#[test]
fn vlan_tagged_partners_are_steered() {
    for (tags, name) in [
        (Tags::Vlan(100), "steer-vlan"),
        (
            Tags::QinQ {
                outer: 200,
                inner: 100,
            },
            "steer-qinq",
        ),
    ] {
        let topology = Topology {
            wan_tags: tags,
            ..Topology::default()
        };
        lab_test(name, &topology, |lab| {
            let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
            let _gateway = Gateway::start(lab, &two_ip_sets())?;
            arrives(lab, &edge, MEGABYTE)?;
            Ok(())
        });
    }
}

#[test]
fn only_the_ports_of_a_service_are_touched() {
    lab_test("steer-others", &Topology::default(), |lab| {
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        for address in VIP_1.both().into_iter().chain(EDGE_A.both()) {
            lab.partner.ping(address, Duration::from_secs(5))?;
        }
        // A server of the gateway's own, on the same address: another port is not ours.
        let local = Edge::start(&lab.gateway, 443, None)?;
        for address in VIP_1.both() {
            tcp(lab).exchange(SocketAddr::new(address, 443), MEGABYTE, MEGABYTE)?;
            ensure!(local.report(TIMEOUT)?.end == End::Clean);
        }
        ensure!(count(&gateway, "dropped")? == 0);
        Ok(())
    });
}

#[test]
fn generic_xdp_does_the_same() {
    lab_test("steer-generic", &Topology::default(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = start(lab, "xdp-generic", &two_ip_sets())?;
        let log = gateway.log()?;
        ensure!(log.contains("wan0: xdp-generic (as configured)"), "{log}");
        let link = lab.gateway.output("ip", &["-d", "link", "show", "wan0"])?;
        ensure!(link.contains("xdpgeneric"), "{link}");
        arrives(lab, &edge, 5 * MEGABYTE)
    });
}

#[test]
fn one_port_toward_two_addresses_of_one_edge() {
    // A client may use one port toward both addresses; at the Edge they would be the same connection.
    let tables = two_ip_sets().replace("steer = \"edges-b\"", "steer = \"edges-a\"");
    lab_test("steer-collision", &Topology::default(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = Gateway::start(lab, &tables)?;
        let sockets = lab.partner.run(|| {
            let mut sockets = Vec::new();
            for vip in [VIP_1.v4, VIP_2.v4] {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::from(([0, 0, 0, 0], 40000)).into())?;
                socket.connect_timeout(&at(vip.into()).into(), Duration::from_secs(5))?;
                sockets.push(socket);
            }
            Ok(sockets)
        })?;
        let flows = gateway.json(&["flow", "ls"])?;
        let seen: Vec<_> = flows
            .as_array()
            .context("flows")?
            .iter()
            .map(|flow| flow["edge_source"].to_string())
            .collect();
        ensure!(seen.len() == 2 && seen[0] != seen[1], "{flows}");
        ensure!(
            seen.iter().all(|source| source.contains("198.51.100.1:")),
            "{flows}"
        );
        drop(sockets);
        Ok(())
    });
}
