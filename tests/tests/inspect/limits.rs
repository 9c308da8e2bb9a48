//! Bounds: connections in all, hellos that a source leaves incomplete, sources that get nothing.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use snigate_tests::{
    Lab, Topology,
    addresses::{VIP_1, partner},
    gateway::Gateway,
    lab_test,
    peers::{EchoEdge, Segments, is_reset},
};

use crate::{
    THREE_DOMAINS, both, counted,
    echo::{connect, say, say_on},
    ensure_counted,
    hellos::asking_for,
    quiet, shared,
};

/// For what is not to happen.
const IN_VAIN: Duration = Duration::from_millis(300);

#[test]
fn further_connections_wait_until_others_end() {
    lab_test("inspect-connections", &quiet(), |lab| {
        let edge = EchoEdge::start(&lab.edge_a, "a")?;
        let config = shared("preserve", "hand_off = false", THREE_DOMAINS);
        let gateway = Gateway::start_with(lab, "max_connections = 3", &config)?;
        let hello = asking_for("sip.contoso.example")?;
        let [v4, v6] = both(VIP_1);
        let mut clients = Vec::new();
        for address in [v4, v6, v4, v6, v4] {
            // The kernel completes each handshake; its queue costs the agent nothing.
            let mut client = connect(lab, None, address)?;
            client.write_all(&hello)?;
            clients.push(client);
        }
        ensure_counted(&gateway, "passed", 3)?;
        std::thread::sleep(IN_VAIN);
        ensure!(counted(&gateway, "accepted")? == 3);
        let facts = gateway.agent()?;
        ensure!(facts["connections"] == 3, "{facts}");
        ensure!(edge.connections() == 3);
        // One goes, one comes.
        for served in 4..=5 {
            say_on(clients.remove(0), b"", Segments::Few)?;
            ensure_counted(&gateway, "passed", served)?;
        }
        for client in clients {
            let echo = say_on(client, b"", Segments::Few)?;
            ensure!(echo.bytes == hello);
        }
        ensure_counted(&gateway, "closed", 5)
    });
}

#[test]
fn a_source_that_completes_nothing_is_stopped_and_disturbs_nobody() {
    let topology = Topology {
        partner_addresses: 3,
        ..quiet()
    };
    let (exempt, other) = (partner(1), partner(2));
    let limits = format!(
        "{THREE_DOMAINS}\n[limits]\nhello_per_source = \"3/h\"\nallow = [\"{}\", \"{}\"]\n",
        exempt.v4, exempt.v6
    );
    lab_test("inspect-budget", &topology, |lab| {
        let _edge = EchoEdge::start(&lab.edge_a, "a")?;
        // Time enough for the half hellos on a busy machine.
        let tables = shared("preserve", "", &limits);
        let gateway = Gateway::start_with(lab, "hello_timeout = \"1m\"", &tables)?;
        let hello = asking_for("sip.contoso.example")?;
        for (family, address) in both(VIP_1).into_iter().enumerate() {
            let source = |host| source(host, family);
            // Whoever completes its hellos never uses anything up.
            for _ in 0..10 {
                say(lab, address, &hello, Segments::Few)?;
            }
            let mut waiting = Vec::new();
            for _ in 0..4 {
                waiting.push(half(lab, None, address, &hello));
            }
            ensure_counted(&gateway, "hello-budget", family as u64 + 1)?;
            // IPv6 hosts have a /64 each, so that the other one of this lab is the same there.
            if address.is_ipv4() {
                let client = connect(lab, Some(source(other)), address)?;
                ensure!(say_on(client, &hello, Segments::Few)?.bytes == hello);
            }
            let mut many = Vec::new();
            for _ in 0..5 {
                many.push(half(lab, Some(source(exempt)), address, &hello)?);
            }
            let client = connect(lab, Some(source(exempt)), address)?;
            ensure!(say_on(client, &hello, Segments::Few)?.bytes == hello);
            // One of the four has been reset. The others are complete in the end, and give back what they took.
            let (mut served, mut reset) = (0, 0);
            for client in waiting {
                match client.and_then(|client| say_on(client, &hello[HALF..], Segments::Few)) {
                    Ok(echo) if echo.bytes == hello => served += 1,
                    Ok(echo) => bail!("{echo:?}"),
                    Err(error) if is_reset(&error) => reset += 1,
                    Err(error) => return Err(error),
                }
            }
            ensure!((served, reset) == (3, 1), "{served} served, {reset} reset");
            for _ in 0..10 {
                say(lab, address, &hello, Segments::Few)?;
            }
        }
        Ok(())
    });
}

/// How much of a hello a client sends that does not complete it.
const HALF: usize = 100;

fn half(
    lab: &Lab,
    source: Option<SocketAddr>,
    address: SocketAddr,
    hello: &[u8],
) -> Result<TcpStream> {
    let mut client = connect(lab, source, address)?;
    client.write_all(&hello[..HALF])?;
    Ok(client)
}

fn source(host: snigate_tests::addresses::Host, family: usize) -> SocketAddr {
    SocketAddr::new(host.both()[family], 0)
}

#[test]
fn denied_sources_get_no_connection() {
    let topology = Topology {
        partner_addresses: 2,
        ..quiet()
    };
    let denied = partner(1);
    let limits = format!(
        "{THREE_DOMAINS}\n[limits]\ndeny = [\"{}\", \"{}\"]\n",
        denied.v4, denied.v6
    );
    lab_test("inspect-denied", &topology, |lab| {
        let _edge = EchoEdge::start(&lab.edge_a, "a")?;
        // Time enough for the half hellos on a busy machine.
        let tables = shared("preserve", "", &limits);
        let gateway = Gateway::start_with(lab, "hello_timeout = \"1m\"", &tables)?;
        let hello = asking_for("sip.contoso.example")?;
        for (family, address) in both(VIP_1).into_iter().enumerate() {
            let refused = lab.partner.run(|| {
                let socket = socket2::Socket::new(
                    socket2::Domain::for_address(address),
                    socket2::Type::STREAM,
                    None,
                )?;
                socket.bind(&source(denied, family).into())?;
                Ok(socket.connect_timeout(&address.into(), IN_VAIN).is_err())
            })?;
            ensure!(refused, "{} gets a connection", source(denied, family));
            say(lab, address, &hello, Segments::Few)?;
        }
        ensure!(counted(&gateway, "accepted")? == 2);
        let status = gateway.json(&["status", "--all"])?;
        let drops = status["drops"].as_array().context("drops")?;
        let denied = drops.iter().find(|row| row["reason"] == "denied");
        let denied = denied.and_then(|row| row["packets"].as_u64());
        ensure!(denied.is_some_and(|packets| packets >= 2), "{status}");
        Ok(())
    });
}
