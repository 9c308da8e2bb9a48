//! The PROXY protocol: towards an Edge that asks for it, and from load balancers in front of the gateway.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::ensure;
use snigate_tests::{
    Topology,
    addresses::{GATEWAY_LAN_A, PARTNER, SIP_TLS, VIP_1, at, partner},
    gateway::Gateway,
    lab_test,
    peers::{EchoEdge, Introduction, Segments, is_reset},
};

use crate::{
    THREE_DOMAINS, TIMEOUT, both,
    echo::{connect, say, say_on},
    ensure_counted,
    hellos::asking_for,
    quiet, shared,
};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Clients behind a load balancer; the way back to them leads through the gateway.
const BEHIND_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const BEHIND_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 7);
const PORT: u16 = 40_007;
/// Others behind it, who get nothing.
const DENIED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 200)),
];

fn version_1(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (ip, port) = (client.ip(), client.port());
    format!(
        "PROXY {family} {ip} {} {port} {}\r\n",
        local.ip(),
        local.port()
    )
    .into_bytes()
}

fn version_2(command: u8, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (family, mut addresses) = match (client.ip(), local.ip()) {
        (IpAddr::V4(client), IpAddr::V4(local)) => {
            (0x11, [client.octets(), local.octets()].concat())
        }
        (IpAddr::V6(client), IpAddr::V6(local)) => {
            (0x21, [client.octets(), local.octets()].concat())
        }
        mixed => unreachable!("{mixed:?}"),
    };
    for end in [client, local] {
        addresses.extend(end.port().to_be_bytes());
    }
    let length = u16::try_from(addresses.len()).expect("a short header");
    let length = length.to_be_bytes();
    [
        SIGNATURE.as_slice(),
        &[command, family],
        &length,
        &addresses,
    ]
    .concat()
}

#[test]
fn an_edge_that_asks_for_it_is_told_the_client() {
    lab_test("inspect-proxy-out", &quiet(), |lab| {
        let _edge = EchoEdge::start(&lab.edge_a, "a")?;
        let config = shared("gateway", "", THREE_DOMAINS);
        let asks = "source = \"gateway\"\nproxy_protocol = true";
        let config = config.replace("source = \"gateway\"", asks);
        let _gateway = Gateway::start(lab, &config)?;
        let hello = asking_for("sip.contoso.example")?;
        for (address, own) in both(VIP_1).into_iter().zip(GATEWAY_LAN_A.both()) {
            let client = connect(lab, None, address)?;
            let source = client.local_addr()?;
            let echo = say_on(client, &hello, Segments::Few)?;
            ensure!(echo.peer.ip() == own, "{echo:?}");
            let expected = [version_2(PROXY, source, address), hello.clone()].concat();
            ensure!(echo.bytes == expected, "{:02x?}", echo.bytes);
        }
        Ok(())
    });
}

#[test]
fn haproxy_as_the_edge_takes_the_header() {
    lab_test("inspect-proxy-haproxy", &quiet(), |lab| {
        let _behind = EchoEdge::start_at(&lab.edge_a, "behind", SIP_TLS + 1)?;
        let haproxy = lab.write_file(
            "haproxy.cfg",
            &format!(
                "global\n log stdout format raw local0\n\
                 defaults\n mode tcp\n log global\n timeout connect 10s\n timeout client 1m\n timeout server 1m\n\
                 frontend edge\n bind :::{SIP_TLS} v4v6 accept-proxy\n log-format \"client %ci at %fi\"\n default_backend behind\n\
                 backend behind\n server behind 127.0.0.1:{}\n",
                SIP_TLS + 1
            ),
        )?;
        let mut command = lab.edge_a.command("haproxy");
        command.args(["-db", "-f"]).arg(haproxy);
        let mut edge = lab.spawn("haproxy", command)?;
        edge.wait_for_listener(&lab.edge_a, SIP_TLS, TIMEOUT)?;

        let config = shared("preserve", "", THREE_DOMAINS);
        let asks = "source = \"preserve\"\nproxy_protocol = true";
        let _gateway = Gateway::start(lab, &config.replace("source = \"preserve\"", asks))?;
        let hello = asking_for("sip.contoso.example")?;
        for (address, client) in both(VIP_1).into_iter().zip(PARTNER.both()) {
            let echo = say(lab, address, &hello, Segments::Few)?;
            ensure!(echo.edge == "behind" && echo.bytes == hello, "{echo:?}");
            let line = format!("client {client} at {}", address.ip());
            edge.wait_for_line(&line, TIMEOUT)?;
        }
        Ok(())
    });
}

#[test]
fn only_trusted_load_balancers_say_who_the_client_is() {
    let topology = Topology {
        partner_addresses: 2,
        ..quiet()
    };
    let trusted = partner(1);
    let ip_set = format!(
        "proxy_protocol_from = [\"{}\", \"{}\"]",
        trusted.v4, trusted.v6
    );
    lab_test("inspect-proxy-in", &topology, |lab| {
        let edge = EchoEdge::start(&lab.edge_a, "a")?;
        let [v4, v6] = DENIED;
        let tables = format!("{THREE_DOMAINS}\n[limits]\ndeny = [\"{v4}\", \"{v6}\"]\n");
        let gateway = Gateway::start(lab, &shared("preserve", &ip_set, &tables))?;
        let hello = asking_for("sip.contoso.example")?;
        let balancers = trusted.both().map(|source| SocketAddr::new(source, 0));
        let clients = [
            SocketAddr::from((BEHIND_V4, PORT)),
            SocketAddr::from((BEHIND_V6, PORT)),
        ];
        let through = |balancer, address, header: Vec<u8>| {
            let connection = connect(lab, Some(balancer), address)?;
            let own = connection.local_addr()?;
            // Header and hello in small pieces, which end anywhere.
            let segments = Segments::Of(11, Duration::ZERO);
            let echo = say_on(connection, &[header, hello.clone()].concat(), segments)?;
            ensure!(echo.bytes == hello, "the Edge got {:02x?}", echo.bytes);
            Ok((echo.peer, own))
        };
        for ((address, balancer), client) in both(VIP_1).into_iter().zip(balancers).zip(clients) {
            // The connection's own family, and the other one: the client's counts.
            for (client, local) in [(client, address), other_family(client)] {
                for header in [version_1(client, local), version_2(PROXY, client, local)] {
                    let (seen, _) = through(balancer, address, header)?;
                    ensure!(seen.ip() == client.ip(), "{seen} instead of {client}");
                }
            }
            // A health check of the load balancer's own.
            let header = version_2(LOCAL, client, address);
            let (seen, own) = through(balancer, address, header)?;
            ensure!(seen == own, "{seen}");
        }
        // Of two families, and open for longer than any hand-off waits: it stays with the agent, which alone can carry it.
        for ((address, balancer), client) in both(VIP_1).into_iter().zip(balancers).zip(clients) {
            let (client, local) = other_family(client);
            let mut connection = connect(lab, Some(balancer), address)?;
            let header = version_2(PROXY, client, local);
            connection.write_all(&[header, hello.clone()].concat())?;
            let seen = Introduction::read(&mut connection)?.peer;
            ensure!(seen.ip() == client.ip(), "{seen} instead of {client}");
            let mut back = vec![0; hello.len()];
            connection.read_exact(&mut back)?;
            thread::sleep(Duration::from_millis(1500));
            connection.write_all(b"still there?")?;
            let mut back = [0; 12];
            connection.read_exact(&mut back)?;
            ensure!(&back == b"still there?", "{back:02x?}");
        }
        let kept = gateway.agent()?["counters"]["kept-families"].as_u64();
        ensure!(kept >= Some(2), "{kept:?}");
        let before = edge.connections();

        // Without a header, or with half a one.
        for (address, balancer) in both(VIP_1).into_iter().zip(balancers) {
            for bytes in [hello.as_slice(), b"PROXY TCP9 198"] {
                let mut connection = connect(lab, Some(balancer), address)?;
                connection.write_all(bytes)?;
                connection.shutdown(Shutdown::Write)?;
                let mut answer = Vec::new();
                connection.read_to_end(&mut answer)?;
                ensure!(answer.is_empty(), "{answer:02x?}");
            }
        }
        ensure_counted(&gateway, "proxy-header", 2)?;
        ensure_counted(&gateway, "proxy-header-missing", 2)?;
        // Behind a load balancer `deny` is about whom it names.
        for ((address, balancer), client) in both(VIP_1).into_iter().zip(balancers).zip(DENIED) {
            let header = version_2(PROXY, SocketAddr::new(client, PORT), address);
            let error = through(balancer, address, header).expect_err("it is denied");
            ensure!(is_reset(&error), "{error:#}");
        }
        ensure_counted(&gateway, "denied", 2)?;
        // Whoever else sends one speaks another protocol than TLS.
        for (address, client) in both(VIP_1).into_iter().zip(clients) {
            for header in [
                version_1(client, address),
                version_2(PROXY, client, address),
            ] {
                let bytes = [header, hello.clone()].concat();
                let mut connection = connect(lab, None, address)?;
                connection.write_all(&bytes)?;
                let mut answer = Vec::new();
                connection.read_to_end(&mut answer)?;
                ensure!(answer.is_empty(), "{answer:02x?}");
            }
        }
        ensure_counted(&gateway, "not-tls-proxy", 4)?;
        ensure!(edge.connections() == before, "an Edge was reached");
        // And is a client like any other without it.
        let echo = say(lab, at(VIP_1.v4.into()), &hello, Segments::Few)?;
        ensure!(echo.peer.ip() == IpAddr::from(PARTNER.v4), "{echo:?}");
        Ok(())
    });
}

/// A client of the other family, and the address that it came to.
fn other_family(client: SocketAddr) -> (SocketAddr, SocketAddr) {
    if client.is_ipv4() {
        (SocketAddr::from((BEHIND_V6, PORT + 1)), at(VIP_1.v6.into()))
    } else {
        (SocketAddr::from((BEHIND_V4, PORT + 1)), at(VIP_1.v4.into()))
    }
}
