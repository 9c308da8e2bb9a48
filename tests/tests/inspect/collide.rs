//! One port of a client toward several addresses that lead to one Edge: there all of them would be the same connection.

use std::{io::Write as _, net::SocketAddr};

use anyhow::{Context as _, ensure};
use snigate_tests::{
    Topology,
    addresses::{EDGE_A, Host, PARTNER, VIP_1, VIP_2, at},
    gateway::Gateway,
    lab_test,
    peers::{EchoEdge, Segments},
};

use crate::{
    THREE_DOMAINS,
    echo::{connect, say_on},
    ensure_counted,
    hellos::asking_for,
    shared,
};

#[test]
fn one_port_toward_steered_and_inspected_addresses_of_one_edge() {
    let steered = format!(
        "{THREE_DOMAINS}\n[[ip_set]]\nname = \"steered\"\naddresses = [\"{}\", \"{}\"]\nsteer = \"edges-a\"\n",
        VIP_2.v4, VIP_2.v6
    );
    lab_test("inspect-collide", &Topology::default(), |lab| {
        let _edge = EchoEdge::start(&lab.edge_a, "a")?;
        let gateway = Gateway::start(lab, &shared("preserve", "", &steered))?;
        let hello = asking_for("sip.contoso.example")?;
        let mut passed = 0;
        for (port, order) in (40_000..).zip([[VIP_2, VIP_1], [VIP_1, VIP_2]]) {
            for family in [0, 1] {
                let source = SocketAddr::new(PARTNER.both()[family], port);
                let open = |to: &Host| {
                    let mut client = connect(lab, Some(source), at(to.both()[family]))?;
                    client.write_all(&hello)?;
                    anyhow::Ok(client)
                };
                let first = open(&order[0])?;
                passed += 1;
                if order[0] == VIP_1 {
                    ensure_counted(&gateway, "passed", passed)?;
                }
                let second = open(&order[1])?;
                ensure_counted(&gateway, "passed", passed)?;
                let first = say_on(first, &hello, Segments::Few).context("the first one")?;
                let second = say_on(second, &hello, Segments::Few).context("the second one")?;
                ensure!(first.peer == source, "{first:?}");
                ensure!(
                    second.peer.ip() == source.ip() && second.peer != source,
                    "{second:?}"
                );
                let sent = [hello.as_slice(), &hello].concat();
                ensure!(first.bytes == sent && second.bytes == sent);
            }
        }
        Ok(())
    });
}

#[test]
fn a_direct_connection_of_the_same_port_lives_on() {
    lab_test("inspect-collide-direct", &Topology::default(), |lab| {
        let _edge = EchoEdge::start(&lab.edge_a, "a")?;
        let gateway = Gateway::start(lab, &shared("preserve", "", THREE_DOMAINS))?;
        let hello = asking_for("sip.contoso.example")?;
        let (mut direct, mut inspected) = (Vec::new(), Vec::new());
        for family in [0, 1] {
            let source = SocketAddr::new(PARTNER.both()[family], 40_000);
            direct.push(connect(lab, Some(source), at(EDGE_A.both()[family]))?);
            let mut client = connect(lab, Some(source), at(VIP_1.both()[family]))?;
            client.write_all(&hello)?;
            inspected.push(client);
        }
        // The Edge takes the agent's SYN for a part of the direct connection, and the agent gives up.
        ensure_counted(&gateway, "edge-silent", 2)?;
        for client in direct {
            ensure!(say_on(client, &hello, Segments::Few)?.bytes == hello);
        }
        Ok(())
    });
}
