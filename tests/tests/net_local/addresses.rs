//! Addresses of IP sets, made local.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use sni_user::net::{Kept, LocalAddresses, NetError, Network, Placed};
use snigate_tests::Lab;
use snigate_tests::addresses::{
    EDGE_A, EDGE_B, GATEWAY_LAN_B, GATEWAY_WAN, Host, PARTNER, SIP_TLS, VIP_1, VIP_2,
};
use snigate_tests::deadline::Deadline;

use crate::{LONG_ENOUGH, TIMEOUT, configuration, ensure_same, listen, net_test, talk};

/// On the partner's subnet.
const NEAR: Host = Host {
    v4: Ipv4Addr::new(198, 51, 100, 30),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x30),
};
/// On no subnet: the partner sends to it by its default route.
const ROUTED: Host = Host {
    v4: Ipv4Addr::new(192, 0, 2, 77),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1),
};
const LOOPBACK: u32 = 1;

#[test]
fn neighbours_reach_what_has_been_made_local() {
    net_test("local-addresses", async |lab, network| {
        let before = configuration(&lab.gateway)?;
        let (links, wan0) = links(&network).await?;
        let wanted = [NEAR.both(), ROUTED.both()].concat();
        for address in &wanted {
            let answer = lab.partner.ping(*address, LONG_ENOUGH);
            ensure!(answer.is_err(), "{address} answers before it is local");
        }

        // Then the host answers ARP for nothing but what is on the interface itself: the strictest setting in common use.
        lab.gateway.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
        // A second in which the address can't be used yet, if it were asked for.
        lab.gateway.sysctl("net/ipv6/conf/wan0/accept_dad", "1")?;
        let routes = || {
            let arguments = ["-6", "route", "show", "table", "main"];
            lab.gateway.output("ip", &arguments)
        };
        let main = routes()?;
        let mut local = LocalAddresses::new(network.clone());
        let kept = local.keep(&wanted, &links).await?;
        let placed = [at(wan0, NEAR), at(LOOPBACK, ROUTED)].concat();
        ensure!(same(&kept.added, &placed) && kept.changed(), "{kept:?}");
        let listeners: Vec<_> = wanted
            .iter()
            .map(|address| listen(&lab.gateway, SocketAddr::new(*address, SIP_TLS)))
            .collect::<Result<_>>()
            .context("at once")?;
        ensure_same(&routes()?, &main)?;
        for listener in listeners {
            reach(lab, listener.local_addr()?.ip())?;
            let client = lab
                .partner
                .run(|| Ok(TcpStream::connect(listener.local_addr()?)?))?;
            talk(client, &listener)?;
        }

        // Once more, with nothing to do.
        let during = configuration(&lab.gateway)?;
        let kept = local.keep(&wanted, &links).await?;
        ensure!(same(&kept.standing, &placed) && !kept.changed(), "{kept:?}");
        ensure_same(&configuration(&lab.gateway)?, &during)?;

        let kept = local.keep(&ROUTED.both(), &links).await?;
        ensure!(same(&kept.removed, &at(wan0, NEAR)), "{kept:?}");
        ensure!(same(&kept.standing, &at(LOOPBACK, ROUTED)), "{kept:?}");
        let released = local.release().await?;
        ensure!(same(&released, &at(LOOPBACK, ROUTED)), "{released:?}");
        ensure_same(&configuration(&lab.gateway)?, &before)
    });
}

#[test]
fn what_others_have_configured_stays_as_it_is() {
    net_test("local-others", async |lab, network| {
        let (links, wan0) = links(&network).await?;
        // By hand on an interface, on `lo`, and whole subnets by route.
        let subnets = [host([192, 0, 2, 200], 0x200), host([192, 0, 2, 130], 0x130)];
        lab.gateway.ip(&format!(
            "addr add {}/32 dev lo
             addr add {}/128 dev lo nodad
             route add local 192.0.2.128/25 dev lo
             -6 route add local 2001:db8:77::/48 dev lo",
            host([192, 0, 2, 5], 5).v4,
            host([192, 0, 2, 5], 5).v6,
        ))?;
        let before = configuration(&lab.gateway)?;
        let by_hand = [
            VIP_1,
            VIP_2,
            host([192, 0, 2, 5], 5),
            subnets[0],
            subnets[1],
        ];
        let by_hand: Vec<IpAddr> = by_hand.iter().flat_map(Host::both).collect();
        let mut local = LocalAddresses::new(network);
        let kept = local.keep(&by_hand, &links).await?;
        let wanted: BTreeSet<_> = by_hand.iter().copied().collect();
        ensure!(
            kept.there.iter().copied().collect::<BTreeSet<_>>() == wanted,
            "{kept:?}"
        );
        ensure!(!kept.changed() && kept.standing.is_empty(), "{kept:?}");
        ensure_same(&configuration(&lab.gateway)?, &before)?;
        ensure!(local.keep(&[], &links).await? == Kept::default());
        ensure!(local.release().await?.is_empty());
        ensure_same(&configuration(&lab.gateway)?, &before)?;

        // What somebody else configures as well is his from then on, also on the same interface with another prefix.
        local.keep(&NEAR.both(), &links).await?;
        lab.gateway.ip(&format!(
            "addr add {}/24 dev wan0
             addr add {}/128 dev lan0 nodad",
            NEAR.v4, NEAR.v6
        ))?;
        let kept = local.keep(&NEAR.both(), &links).await?;
        ensure!(same(&kept.removed, &at(wan0, NEAR)), "{kept:?}");
        ensure!(same_addresses(&kept.there, NEAR), "{kept:?}");
        reach(lab, NEAR.v4.into())?;
        local.release().await?;
        lab.gateway.ip(&format!(
            "addr del {}/24 dev wan0
             addr del {}/128 dev lan0",
            NEAR.v4, NEAR.v6
        ))?;
        ensure_same(&configuration(&lab.gateway)?, &before)
    });
}

#[test]
fn what_a_killed_agent_has_left_is_adopted() {
    net_test("local-leftovers", async |lab, network| {
        let before = configuration(&lab.gateway)?;
        let (links, wan0) = links(&network).await?;
        let killed = Network::new()?;
        LocalAddresses::new(killed)
            .keep(&[NEAR.both(), ROUTED.both()].concat(), &links)
            .await?;
        let mut local = LocalAddresses::new(network);
        let kept = local.keep(&NEAR.both(), &links).await?;
        ensure!(same(&kept.standing, &at(wan0, NEAR)), "{kept:?}");
        ensure!(same(&kept.removed, &at(LOOPBACK, ROUTED)), "{kept:?}");
        let released = local.release().await?;
        ensure!(same(&released, &at(wan0, NEAR)), "{released:?}");
        ensure_same(&configuration(&lab.gateway)?, &before)
    });
}

/// The host's own connections come from where they came before, on links where the host has an address of its own and on one where
/// it has to take that of another interface.
#[test]
fn the_hosts_own_connections_keep_their_source_address() {
    net_test("local-sources", async |lab, network| {
        let (links, _) = links(&network).await?;
        lab.gateway.ip(&format!(
            "addr del {}/25 dev lan1
             addr del {}/64 dev lan1
             route add 203.0.113.128/25 dev lan1
             -6 route add 2001:db8:b::/64 dev lan1
             route add 192.0.2.0/26 via {}
             -6 route add 2001:db8:f::/64 via {}",
            GATEWAY_LAN_B.v4, GATEWAY_LAN_B.v6, PARTNER.v4, PARTNER.v6
        ))?;
        // The partner, beyond the partner, either Edge.
        let far = [
            Ipv4Addr::new(192, 0, 2, 1).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1).into(),
        ];
        let peers = [PARTNER.both(), far, EDGE_A.both(), EDGE_B.both()].concat();
        let sources = async || {
            let mut sources = Vec::new();
            for peer in &peers {
                let source = network.route_to(*peer, None).await?.source;
                sources.push((*peer, source));
            }
            anyhow::Ok(sources)
        };
        let before = sources().await?;
        let mut local = LocalAddresses::new(network.clone());
        // More of them than the host has, and on either side of its own in every order.
        let many = |octet: u8| {
            [
                IpAddr::from([198, 51, 100, octet]),
                IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, octet.into())),
            ]
        };
        let near = [2, 3, 40, 41, 252, 253].map(many).concat();
        local
            .keep(&[near, ROUTED.both().to_vec()].concat(), &links)
            .await?;
        let after = sources().await?;
        ensure!(after == before, "{after:?} instead of {before:?}");
        for peer in PARTNER.both() {
            let listener = listen(&lab.partner, SocketAddr::new(peer, SIP_TLS))?;
            let client = TcpStream::connect(listener.local_addr()?)?;
            let seen = talk(client, &listener)?;
            ensure!(
                before.contains(&(peer, Some(seen))),
                "{seen} instead of what {before:?} has for {peer}"
            );
        }
        // Also where the host has no address at all that could be one: it has none, rather than that of a customer.
        lab.gateway.ip("-4 addr flush dev lan0 scope global
             -4 addr flush dev wan0 scope global")?;
        let source = network.route_to(EDGE_B.v4.into(), None).await?.source;
        ensure!(source.is_none(), "{source:?}");
        Ok(())
    });
}

/// IPv6 addresses go with the interface, and so does the subnet by which it is known where they belong.
#[test]
fn an_interface_that_comes_back_gets_its_addresses_back() {
    net_test("local-down-up", async |lab, network| {
        let before = configuration(&lab.gateway)?;
        let (links, wan0) = links(&network).await?;
        let mut local = LocalAddresses::new(network);
        local.keep(&NEAR.both(), &links).await?;
        lab.gateway.ip("link set wan0 down")?;
        let kept = local.keep(&NEAR.both(), &links).await?;
        ensure!(same(&kept.standing, &at(wan0, NEAR)[..1]), "{kept:?}");
        ensure!(same(&kept.added, &at(LOOPBACK, NEAR)[1..]), "{kept:?}");

        lab.gateway.ip("link set wan0 up")?;
        for own in [GATEWAY_WAN, VIP_1, VIP_2] {
            let prefix = if own == GATEWAY_WAN { 64 } else { 128 };
            lab.gateway
                .ip(&format!("addr add {}/{prefix} dev wan0 nodad", own.v6))?;
        }
        let kept = local.keep(&NEAR.both(), &links).await?;
        ensure!(same(&kept.standing, &at(wan0, NEAR)[..1]), "{kept:?}");
        ensure!(same(&kept.added, &at(wan0, NEAR)[1..]), "{kept:?}");
        ensure!(same(&kept.removed, &at(LOOPBACK, NEAR)[1..]), "{kept:?}");
        for address in NEAR.both() {
            reach(lab, address)?;
        }
        local.release().await?;
        let after = configuration(&lab.gateway)?;
        ensure_same(&sorted(&after), &sorted(&before))
    });
}

#[test]
fn an_ipv6_address_where_there_is_no_ipv6_is_refused_with_the_setting() {
    net_test("local-no-ipv6", async |lab, network| {
        let (links, _) = links(&network).await?;
        lab.gateway.sysctl("net/ipv6/conf/lo/disable_ipv6", "1")?;
        let mut local = LocalAddresses::new(network);
        let refused = local.keep(&ROUTED.both(), &links).await;
        let error = refused.err().context("an IPv6 address without IPv6")?;
        ensure!(matches!(error, NetError::Ipv6Off { .. }), "{error:?}");
        let sentence = error.to_string();
        for word in [
            &*ROUTED.v6.to_string(),
            "`sysctl -w net.ipv6.conf.lo.disable_ipv6=0`",
        ] {
            ensure!(sentence.contains(word), "{sentence}");
        }
        // The rest is served.
        reach(lab, ROUTED.v4.into())?;
        let kept = local.keep(&[ROUTED.v4.into()], &links).await?;
        ensure!(same(&kept.standing, &at(LOOPBACK, ROUTED)[..1]), "{kept:?}");
        Ok(())
    });
}

/// Waits until the partner gets an answer from there; the first request may still be queued behind a resolution that failed.
fn reach(lab: &Lab, address: IpAddr) -> Result<()> {
    let what = format!("an answer from {address}");
    Deadline::after(TIMEOUT).poll(&what, || Ok(lab.partner.ping(address, LONG_ENOUGH).ok()))?;
    Ok(())
}

/// The gateway's interfaces by index, and that to the partner.
async fn links(network: &Network) -> Result<(Vec<u32>, u32)> {
    let mut links = Vec::new();
    for name in ["lan0", "wan0", "lan1"] {
        links.push(network.interface(name).await?.index);
    }
    let wan0 = links[1];
    Ok((links, wan0))
}

fn at(ifindex: u32, host: Host) -> [Placed; 2] {
    host.both().map(|address| Placed { address, ifindex })
}

fn host(v4: [u8; 4], last: u16) -> Host {
    Host {
        v4: v4.into(),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, last),
    }
}

fn same(found: &[Placed], wanted: &[Placed]) -> bool {
    found.iter().collect::<BTreeSet<_>>() == wanted.iter().collect()
}

fn same_addresses(found: &[IpAddr], wanted: Host) -> bool {
    found.iter().copied().collect::<BTreeSet<_>>() == wanted.both().into()
}

/// Lines in order of the alphabet: what has been removed and added again is listed elsewhere.
fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}
