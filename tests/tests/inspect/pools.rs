//! Which Edge of a pool is taken, and what happens where it can't be reached.

use std::{io::Write as _, net::SocketAddr};

use anyhow::{Result, ensure};
use snigate_tests::{
    Lab,
    addresses::{EDGE_A, EDGE_B, PARTNER, VIP_1, VIP_2, at},
    at_once, faults,
    gateway::Gateway,
    lab_test,
    peers::{Answer, EchoEdge, Segments, replay},
};

use crate::{
    TIMEOUT, both,
    echo::{connect, say, say_on},
    ensure_counted,
    hellos::asking_for,
    quiet,
};

/// Nobody listens at these ports of edge-a.
const CLOSED: std::ops::RangeInclusive<u16> = 6001..=6005;

/// A pool of edge-a and edge-b in both families, as the default of an inspected IP set.
fn one_pool(pool: &str, more: &str) -> String {
    format!(
        r#"
[[edge]]
name = "a4"
address = "{}:5061"
source = "gateway"
[[edge]]
name = "a6"
address = "[{}]:5061"
source = "gateway"
[[edge]]
name = "b4"
address = "{}:5061"
source = "gateway"
[[edge]]
name = "b6"
address = "[{}]:5061"
source = "gateway"

[[pool]]
name = "both"
edges = ["a4", "a6", "b4", "b6"]
{pool}

[[ip_set]]
name = "shared"
addresses = ["{}", "{}"]
inspect = true
bind = false
default = "both"
{more}
"#,
        EDGE_A.v4, EDGE_A.v6, EDGE_B.v4, EDGE_B.v6, VIP_1.v4, VIP_1.v6
    )
}

/// So many connections reach edge-b, one after the other.
fn all_reach_b(lab: &Lab, count: usize, address: SocketAddr, hello: &[u8]) -> Result<()> {
    for _ in 0..count {
        let echo = say(lab, address, hello, Segments::Few)?;
        ensure!(echo.edge == "b" && echo.bytes == hello, "{}", echo.edge);
    }
    Ok(())
}

/// The client is told that it is not its fault: internal_error (RFC 8446 section 6).
fn refused(lab: &Lab, address: SocketAddr, hello: &[u8]) -> Result<()> {
    let answer = replay(&lab.partner, address, hello, Segments::Few, TIMEOUT)?;
    ensure!(answer == Answer::Alert(2, 80), "{answer:?}");
    Ok(())
}

#[test]
fn the_next_edge_takes_over_from_one_that_refuses_or_is_silent() {
    lab_test("inspect-failover", &quiet(), |lab| {
        let edge_b = EchoEdge::start(&lab.edge_b, "b")?;
        let gateway = Gateway::start(lab, &one_pool("", ""))?;
        let hello = asking_for("sip.contoso.example")?;
        // Without a listener edge-a's host sends RST. Maglev prefers it for half of the clients' ports.
        for address in both(VIP_1) {
            all_reach_b(lab, 10, address, &hello)?;
        }
        let log = gateway.log()?;
        for edge in ["a4", "a6"] {
            let refused =
                |line: &str| line.contains("the next one of its pool was") && line.contains(edge);
            ensure!(
                log.lines().any(refused),
                "{edge} was never preferred: {log}"
            );
        }

        // Silence is waited for, at the same time by all.
        faults::lose_incoming(&lab.edge_a, 100)?;
        let clients = both(VIP_1).map(|address| [address; 10]).concat();
        at_once(&clients, |address| all_reach_b(lab, 1, *address, &hello))?;
        let log = gateway.log()?;
        ensure!(log.contains("no answer within"), "{log}");
        ensure!(edge_b.connections() == 40);

        // Nobody is left.
        faults::stop_losing(&lab.edge_a)?;
        drop(edge_b);
        for address in both(VIP_1) {
            refused(lab, address, &hello)?;
        }
        ensure_counted(&gateway, "edge-refused", 2)?;
        // All keep silence.
        for edge in [&lab.edge_a, &lab.edge_b] {
            faults::lose_incoming(edge, 100)?;
        }
        at_once(&both(VIP_1), |address| refused(lab, *address, &hello))?;
        ensure_counted(&gateway, "edge-silent", 2)
    });
}

#[test]
fn no_more_than_three_edges_are_tried() {
    let edge = |port: u16| {
        format!(
            "[[edge]]\nname = \"four-{port}\"\naddress = \"{}:{port}\"\n\
             [[edge]]\nname = \"six-{port}\"\naddress = \"[{}]:{port}\"\n",
            EDGE_A.v4, EDGE_A.v6
        )
    };
    let names: Vec<_> = CLOSED
        .map(|port| format!("\"four-{port}\", \"six-{port}\""))
        .collect();
    let config = CLOSED.map(edge).collect::<String>()
        + &format!(
            "[[pool]]\nname = \"closed\"\nedges = [{}]\n\
             [[ip_set]]\nname = \"shared\"\naddresses = [\"{}\", \"{}\"]\ninspect = true\nbind = false\ndefault = \"closed\"\n",
            names.join(", "),
            VIP_1.v4,
            VIP_1.v6
        );
    lab_test("inspect-retries", &quiet(), |lab| {
        let gateway = Gateway::start(lab, &config)?;
        let hello = asking_for("sip.contoso.example")?;
        for address in both(VIP_1) {
            refused(lab, address, &hello)?;
        }
        ensure_counted(&gateway, "edge-refused", 2)?;
        let log = gateway.log()?;
        for family in ["four", "six"] {
            let tried = |line: &str| {
                let tried = |port| line.contains(&format!("{family}-{port} "));
                line.contains("could be reached") && CLOSED.filter(|port| tried(*port)).count() == 3
            };
            ensure!(log.lines().any(tried), "{log}");
        }
        Ok(())
    });
}

#[test]
fn least_connections_are_kept_even() {
    lab_test("inspect-least", &quiet(), |lab| {
        let edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let config = one_pool("balance = \"least-connections\"", "");
        let gateway = Gateway::start(lab, &config)?;
        let hello = asking_for("sip.contoso.example")?;
        for round in 1..=2 {
            let mut open = Vec::new();
            for n in 1..=10 {
                for address in both(VIP_1) {
                    let mut client = connect(lab, None, address)?;
                    client.write_all(&hello)?;
                    open.push(client);
                }
                ensure_counted(&gateway, "passed", (round - 1) * 20 + 2 * n)?;
            }
            // An Edge's thread may not have accepted its last connection yet.
            let mut counts = edges.each_ref().map(EchoEdge::connections);
            for _ in 0..200 {
                if counts.iter().sum::<usize>() == 20 * round as usize {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
                counts = edges.each_ref().map(EchoEdge::connections);
            }
            ensure!(counts == [10 * round as usize; 2], "{counts:?}");
            for client in open {
                say_on(client, b"", Segments::Few)?;
            }
            // The datapath has them, and each counts as one of its Edge nevertheless.
            ensure_counted(&gateway, "handed-off", round * 20)?;
        }
        Ok(())
    });
}

#[test]
fn maglev_agrees_with_the_datapath() {
    let steered = format!(
        "[[ip_set]]\nname = \"steered\"\naddresses = [\"{}\", \"{}\"]\nsteer = \"both\"\n",
        VIP_2.v4, VIP_2.v6
    );
    lab_test("inspect-maglev", &quiet(), |lab| {
        let edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let _gateway = Gateway::start(lab, &one_pool("", &steered))?;
        let hello = asking_for("sip.contoso.example")?;
        for port in 20_000..20_020 {
            for (family, source) in PARTNER.both().into_iter().enumerate() {
                let source = SocketAddr::new(source, port);
                let chosen = [VIP_2, VIP_1].map(|vip| -> Result<String> {
                    let address = at(vip.both()[family]);
                    let client = connect(lab, Some(source), address)?;
                    Ok(say_on(client, &hello, Segments::Few)?.edge)
                });
                let [steered, inspected] = chosen;
                let (steered, inspected) = (steered?, inspected?);
                ensure!(steered == inspected, "{source}: {steered}, {inspected}");
            }
        }
        let counts = edges.each_ref().map(EchoEdge::connections);
        ensure!(counts.iter().all(|count| *count > 0), "{counts:?}");
        Ok(())
    });
}
