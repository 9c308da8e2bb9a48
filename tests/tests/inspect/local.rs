//! The gateway's host: addresses, rules and routes that the agent adds and takes away, and what happens without an agent.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab, Namespace,
    addresses::{EDGE_A, PARTNER, SIP_TLS, VIP_1, VIP_2, at},
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
    peers::{EchoEdge, Edge, EdgeTls, End, Partner, PartnerTls, Segments},
    pki::Pki,
};

use crate::{THREE_DOMAINS, TIMEOUT, both, echo::say, hellos::asking_for, quiet, shared, tcp};

/// Everything that an agent may change, as `ip` shows it.
fn configuration(namespace: &Namespace) -> Result<String> {
    let commands: [&[&str]; 5] = [
        &["addr"],
        &["-4", "rule"],
        &["-6", "rule"],
        &["-4", "route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ];
    let shown: Result<Vec<_>> = commands
        .iter()
        .map(|arguments| namespace.output("ip", arguments))
        .collect();
    // A veth shows what its attached program makes of its queues.
    let lines = shown?.concat();
    let lines = lines.lines().filter(|line| !line.contains("mtu"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn ensure_as_before(lab: &Lab, before: &str) -> Result<()> {
    let now = configuration(&lab.gateway)?;
    ensure!(now == before, "there is now\n{now}\ninstead of\n{before}");
    Ok(())
}

/// Nobody answers for it: the connection is refused, and at once.
fn ensure_refused(lab: &Lab, address: SocketAddr) -> Result<()> {
    let error = lab.partner.run(|| {
        let connected = TcpStream::connect_timeout(&address, Duration::from_secs(10));
        Ok(connected.err())
    })?;
    let error = error.with_context(|| format!("somebody serves {address}"))?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
    Ok(())
}

#[test]
fn what_the_agent_adds_to_the_host_goes_with_it() {
    lab_test("inspect-local", &quiet(), |lab| {
        let _edge = EchoEdge::start(&lab.edge_a, "a")?;
        // The usual way to run it: nobody has configured the public addresses on the host.
        for vip in VIP_1.both() {
            lab.gateway
                .output("ip", &["addr", "del", &host_prefix(vip), "dev", "wan0"])?;
        }
        let before = configuration(&lab.gateway)?;
        let hello = asking_for("sip.contoso.example")?;
        let serves = || -> Result<()> {
            for address in both(VIP_1) {
                let echo = say(lab, address, &hello, Segments::Few)?;
                ensure!(echo.bytes == hello);
            }
            Ok(())
        };

        let mut gateway = Gateway::start(lab, &shared("preserve", "", THREE_DOMAINS))?;
        serves()?;
        let running = configuration(&lab.gateway)?;
        for vip in VIP_1.both() {
            ensure!(running.contains(&host_prefix(vip)), "{running}");
        }
        ensure!(
            running.contains("5061"),
            "no rule for the way back: {running}"
        );
        gateway.stop()?;
        ensure_as_before(lab, &before)?;

        // Killed, it leaves everything to its successor, which needs less: rule and route are for `preserve` alone.
        gateway.run(&[])?;
        serves()?;
        gateway.kill()?;
        ensure_as_before(lab, &running).context("after a kill")?;
        gateway.configure("", &shared("gateway", "", THREE_DOMAINS))?;
        gateway.run(&[])?;
        serves()?;
        let running = configuration(&lab.gateway)?;
        for vip in VIP_1.both() {
            ensure!(running.contains(&host_prefix(vip)), "{running}");
        }
        ensure!(!running.contains("5061"), "{running}");
        gateway.stop()?;
        ensure_as_before(lab, &before)
    });
}

fn host_prefix(address: std::net::IpAddr) -> String {
    let length = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{length}")
}

#[test]
fn without_an_agent_inspected_connections_are_refused_and_steered_ones_live() {
    let steered = format!(
        "{THREE_DOMAINS}\n[[ip_set]]\nname = \"steered\"\naddresses = [\"{}\", \"{}\"]\nsteer = \"edges-b\"\n",
        VIP_2.v4, VIP_2.v6
    );
    lab_test("inspect-dead", &quiet(), |lab| {
        let _edge_a = EchoEdge::start(&lab.edge_a, "a")?;
        let edge_b = Edge::start(&lab.edge_b, SIP_TLS, None)?;
        // Somebody else's server on every address of the host must not take what is inspected.
        let other = lab
            .gateway
            .run(|| Ok(TcpListener::bind(("::", SIP_TLS))?))?;
        other.set_nonblocking(true)?;
        let mut gateway = Gateway::start(lab, &shared("preserve", "", &steered))?;
        // Connections are not to wait for the next agent.
        let impatient = ["--patience", "0s"];
        gateway.stop()?;
        gateway.run(&impatient)?;
        let hello = asking_for("sip.contoso.example")?;
        let mut connections = Vec::new();
        for address in both(VIP_2) {
            connections.push(tcp(lab).echo(address)?);
        }
        for _ in 0..2 {
            for address in both(VIP_1) {
                say(lab, address, &hello, Segments::Few)?;
            }
            gateway.kill()?;
            // The holder closes the listener when it has seen that the agent is gone.
            for address in both(VIP_1) {
                Deadline::after(TIMEOUT).poll("the refusal", || {
                    Ok(ensure_refused(lab, address).is_ok().then_some(()))
                })?;
            }
            for connection in &mut connections {
                connection.ping()?;
            }
            for address in both(VIP_2) {
                tcp(lab).exchange(address, 1000, 1000)?;
                ensure!(edge_b.report(TIMEOUT)?.end == End::Clean);
            }
            gateway.run(&impatient)?;
        }
        let taken = other.accept();
        ensure!(taken.is_err(), "another server was reached: {taken:?}");
        for connection in connections {
            connection.close()?;
        }
        Ok(())
    });
}

#[test]
fn direct_connections_to_an_edge_are_not_disturbed() {
    lab_test("inspect-direct", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let name = "sip.contoso.example";
        let edge_tls = EdgeTls::new(&pki.server("edge-a", &[name])?, &pki)?;
        let edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&edge_tls))?;
        let identity = pki.server("partner", &["sip.partner.example"])?;
        let tls = PartnerTls::new(name, &identity, &pki, None)?;
        let partner = Partner {
            tls: Some(&tls),
            ..tcp(lab)
        };
        // One is there before the gateway is, others come while it runs.
        let mut open = Vec::new();
        for address in both(EDGE_A) {
            open.push(partner.echo(address)?);
        }
        let _gateway = Gateway::start(lab, &shared("preserve", "", THREE_DOMAINS))?;
        for _ in 0..2 {
            for address in both(VIP_1).into_iter().chain(both(EDGE_A)) {
                let seen = partner.who_am_i(address)?;
                ensure!(PARTNER.both().contains(&seen.ip()), "{address}: {seen}");
                edge.report(TIMEOUT)?;
                open.push(partner.echo(address)?);
            }
            for connection in &mut open {
                connection.ping()?;
            }
        }
        // The other way: from the Edge to the partner, from the port of the service.
        let listener = lab
            .partner
            .run(|| Ok(TcpListener::bind(("::", SIP_TLS))?))?;
        for address in PARTNER.both() {
            let out = lab
                .edge_a
                .run(|| Ok(TcpStream::connect_timeout(&at(address), TIMEOUT)?))?;
            let (accepted, peer) = listener.accept()?;
            ensure!(EDGE_A.both().contains(&peer.ip().to_canonical()));
            drop((out, accepted));
        }
        for connection in open {
            connection.close()?;
            ensure!(edge.report(TIMEOUT)?.end == End::Clean);
        }
        Ok(())
    });
}
