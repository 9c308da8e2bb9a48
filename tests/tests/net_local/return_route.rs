//! The rule and the table that lead marked packets to transparent sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sni_user::net::host::{self, Family};
use sni_user::net::{NetError, Network, PieceKind, ReturnRoute};
use snigate_tests::addresses::{EDGE_A, SIP_TLS};
use snigate_tests::{Lab, Namespace};
use socket2::{Domain, Socket, Type};

use crate::{LONG_ENOUGH, TIMEOUT, configuration, ensure_same, listen, net_test, talk};

const MARK: u32 = 0x0100_0000;
const ROUTE: ReturnRoute = ReturnRoute {
    mark: MARK,
    table: 5061,
    priority: 100,
};
/// Somebody behind the partner, whom nobody can ask: what is forwarded to him gets no answer, not even a refusal.
const CLIENT: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1)),
];

#[test]
fn an_edges_answers_come_back_to_transparent_sockets() {
    net_test("return-sockets", async |lab, network| {
        mark_answers(lab)?;
        let edge = listeners(lab, SIP_TLS)?;
        for (client, listener) in CLIENT.into_iter().zip(&edge) {
            let lost = connect_as(client, listener.local_addr()?, LONG_ENOUGH);
            ensure!(lost.is_err(), "connected from {client} without a way back");
        }
        let before = configuration(&lab.gateway)?;
        let installed = ROUTE.install(&network).await?;
        ensure!(
            installed.ipv6 && installed.added.len() == 4,
            "{installed:?}"
        );
        for (client, listener) in CLIENT.into_iter().zip(&edge) {
            let stream = connect_as(client, listener.local_addr()?, TIMEOUT)?;
            let seen = talk(stream, listener)?;
            ensure!(seen == client, "the Edge sees {seen} instead of {client}");
        }
        // The partner's own connections are forwarded as before.
        for listener in listeners(lab, SIP_TLS + 1)? {
            let stream = lab.partner.run(|| {
                Ok(TcpStream::connect_timeout(
                    &listener.local_addr()?,
                    TIMEOUT,
                )?)
            })?;
            talk(stream, &listener)?;
        }
        ReturnRoute::remove(&network).await?;
        ensure_same(&configuration(&lab.gateway)?, &before)
    });
}

#[test]
fn what_is_missing_is_said_and_mended() {
    net_test("return-repair", async |lab, network| {
        let before = configuration(&lab.gateway)?;
        let missing = ROUTE.missing(&network).await?;
        ensure!(missing.len() == 4, "{missing:?}");
        ensure_same(&configuration(&lab.gateway)?, &before)?;
        let first = ROUTE.install(&network).await?;
        ensure!(first.added == missing, "{first:?}");
        ensure!(ROUTE.missing(&network).await?.is_empty());
        let whole = configuration(&lab.gateway)?;
        let again = ROUTE.install(&network).await?;
        ensure!(again.added.is_empty(), "{again:?}");
        ensure_same(&configuration(&lab.gateway)?, &whole)?;

        // What a network manager may do.
        lab.gateway.ip("-4 rule del priority 100
             -6 route flush table 5061")?;
        let missing = ROUTE.missing(&network).await?;
        let kinds: Vec<_> = missing.iter().map(|one| (one.family, one.kind)).collect();
        let wanted = [
            (Family::V4, PieceKind::Rule),
            (Family::V6, PieceKind::Route),
        ];
        ensure!(kinds == wanted, "{missing:?}");
        let mended = ROUTE.install(&network).await?;
        ensure!(mended.added == missing, "{mended:?}");
        ensure_same(&configuration(&lab.gateway)?, &whole)?;

        // The commands that are told do the same.
        ReturnRoute::remove(&network).await?;
        ensure_same(&configuration(&lab.gateway)?, &before)?;
        for piece in ROUTE.missing(&network).await? {
            let command = piece.to_string();
            let arguments = command.strip_prefix("ip ").context(command.clone())?;
            lab.gateway.ip(arguments)?;
        }
        ensure!(ROUTE.missing(&network).await?.is_empty());
        ensure_same(&configuration(&lab.gateway)?, &whole)?;
        ReturnRoute::remove(&network).await?;
        ReturnRoute::remove(&network).await?;
        ensure_same(&configuration(&lab.gateway)?, &before)
    });
}

#[test]
fn what_another_agent_has_left_is_adopted_or_replaced() {
    net_test("return-leftovers", async |lab, network| {
        let before = configuration(&lab.gateway)?;
        let killed = Network::new()?;
        ROUTE.install(&killed).await?;
        drop(killed);
        let whole = configuration(&lab.gateway)?;
        let adopted = ROUTE.install(&network).await?;
        ensure!(adopted.added.is_empty(), "{adopted:?}");

        // An older one of another mark, of another table (also one of the small numbers), of another place.
        let others = [
            ReturnRoute {
                mark: 0x10,
                ..ROUTE
            },
            ReturnRoute { table: 61, ..ROUTE },
            ReturnRoute {
                priority: 7,
                ..ROUTE
            },
        ];
        for other in others {
            other.install(&network).await?;
            ensure!(!ROUTE.missing(&network).await?.is_empty());
            ROUTE.install(&network).await?;
            ensure_same(&configuration(&lab.gateway)?, &whole)?;
        }
        others[1].install(&network).await?;
        ReturnRoute::remove(&network).await?;
        ensure_same(&configuration(&lab.gateway)?, &before)
    });
}

#[test]
fn what_is_another_s_is_left_alone_or_refused() {
    net_test("return-others", async |lab, network| {
        // In the way of nothing: other bits, the bit's absence, a whole mark without it, the same priority.
        lab.gateway
            .ip("-4 rule add fwmark 0x2/0x2 lookup 7 priority 100
             -6 rule add fwmark 0x2/0x2 lookup 7 priority 100
             -4 rule add fwmark 0/0x1000000 lookup 7 priority 200
             -4 rule add not fwmark 51820 lookup 7 priority 300
             -4 route add local default dev lo table 7
             -6 route add local default dev lo table 7")?;
        let before = configuration(&lab.gateway)?;
        ROUTE.install(&network).await?;
        ReturnRoute::remove(&network).await?;
        ensure_same(&configuration(&lab.gateway)?, &before)?;

        let table = 5061;
        for ip in ["-4", "-6"] {
            let route = if ip == "-4" {
                "203.0.113.7/32"
            } else {
                "2001:db8:a::7/128"
            };
            let cases = [
                (
                    format!("rule add fwmark {MARK:#x}/{MARK:#x} lookup 8 priority 321"),
                    true,
                ),
                (
                    format!("rule add fwmark {:#x} lookup 8 priority 321", MARK | 1),
                    true,
                ),
                (
                    format!("rule add from all iif wan0 lookup {table} priority 321"),
                    false,
                ),
                (format!("route add {route} dev lan0 table {table}"), false),
                // The same route, and yet somebody else's.
                (
                    format!("route add local default dev lo table {table}"),
                    false,
                ),
            ];
            for (add, mark) in cases {
                lab.gateway.ip(&format!("{ip} {add}"))?;
                let taken = configuration(&lab.gateway)?;
                let installed = ROUTE.install(&network).await.err();
                let error = installed.with_context(|| format!("in spite of {ip} {add}"))?;
                let checked = ROUTE.missing(&network).await.err().context("unnoticed")?;
                let sentence = error.to_string();
                ensure!(checked.to_string() == sentence, "{checked}");
                ensure!(
                    matches!(error, NetError::MarkTaken { .. }) == mark,
                    "{sentence}"
                );
                ensure!(
                    matches!(error, NetError::TableTaken { .. }) != mark,
                    "{sentence}"
                );
                // The command that is told shows it.
                let command = sentence.split('`').nth(1).context(sentence.clone())?;
                let arguments: Vec<_> = command.split(' ').skip(1).collect();
                let shown = lab.gateway.output("ip", &arguments)?;
                ensure!(!shown.trim().is_empty(), "{sentence}");
                ensure_same(&configuration(&lab.gateway)?, &taken)?;
                lab.gateway
                    .ip(&format!("{ip} {}", add.replacen(" add ", " del ", 1)))?;
            }
        }
        ensure_same(&configuration(&lab.gateway)?, &before)
    });
}

#[test]
fn a_host_without_ipv6_is_served_for_ipv4() {
    net_test("return-no-ipv6", async |lab, network| {
        let switched_off = "net/ipv6/conf/lo/disable_ipv6";
        lab.gateway.sysctl(switched_off, "1")?;
        mark_answers(lab)?;
        let before = configuration(&lab.gateway)?;
        let installed = ROUTE.install(&network).await?;
        ensure!(
            !installed.ipv6 && installed.added.len() == 2,
            "{installed:?}"
        );
        ensure!(ROUTE.missing(&network).await?.is_empty());
        let [listener, _] = listeners(lab, SIP_TLS)?;
        let stream = connect_as(CLIENT[0], listener.local_addr()?, TIMEOUT)?;
        talk(stream, &listener)?;
        ReturnRoute::remove(&network).await?;
        ensure_same(&configuration(&lab.gateway)?, &before)?;

        // Switched off in between.
        lab.gateway.sysctl(switched_off, "0")?;
        ROUTE.install(&network).await?;
        lab.gateway.sysctl(switched_off, "1")?;
        ReturnRoute::remove(&network).await?;
        ensure_same(&configuration(&lab.gateway)?, &before)
    });
}

/// The note about the setting is no superstition: with it, the answers are dropped.
#[test]
fn the_setting_that_drops_marked_packets_is_told() {
    net_test("return-valid-mark", async |lab, network| {
        mark_answers(lab)?;
        ROUTE.install(&network).await?;
        let [listener, _] = listeners(lab, SIP_TLS)?;
        ensure!(host::source_mark_note("lan0")?.is_none());
        for key in ["all", "lan0"] {
            let setting = format!("net/ipv4/conf/{key}/src_valid_mark");
            lab.gateway.sysctl(&setting, "1")?;
            let lost = connect_as(CLIENT[0], listener.local_addr()?, LONG_ENOUGH);
            ensure!(lost.is_err(), "{setting} does no harm");
            let sentence = host::source_mark_note("lan0")?.context("no note")?;
            let command = format!("`sysctl -w net.ipv4.conf.{key}.src_valid_mark=0`");
            ensure!(sentence.contains(&command), "{sentence}");
            lab.gateway.sysctl(&setting, "0")?;
        }
        let stream = connect_as(CLIENT[0], listener.local_addr()?, TIMEOUT)?;
        talk(stream, &listener)?;
        Ok(())
    });
}

/// In place of the classifier: marks what the Edge sends from its port, beside bits that others have set.
fn mark_answers(lab: &Lab) -> Result<()> {
    let gateway: &Namespace = &lab.gateway;
    for rule in [
        "add table inet classifier".to_owned(),
        "add chain inet classifier in { type filter hook prerouting priority mangle; }".to_owned(),
        format!(
            "add rule inet classifier in iifname lan0 tcp sport {SIP_TLS} meta mark set {:#x}",
            MARK | 0x7
        ),
    ] {
        gateway.output("nft", &[&rule])?;
    }
    Ok(())
}

/// Edge A's, in either family.
fn listeners(lab: &Lab, port: u16) -> Result<[std::net::TcpListener; 2]> {
    let [v4, v6] = EDGE_A.both().map(|edge| SocketAddr::new(edge, port));
    Ok([listen(&lab.edge_a, v4)?, listen(&lab.edge_a, v6)?])
}

/// Connects from an address that is not the host's.
fn connect_as(client: IpAddr, to: SocketAddr, within: Duration) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    match client {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
    }
    socket.bind(&SocketAddr::new(client, 0).into())?;
    socket.connect_timeout(&to.into(), within)?;
    Ok(socket.into())
}
