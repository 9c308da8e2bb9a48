//! `snigate map`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sni_common::{
    Address,
    contract::{
        Account, AccountKey, BudgetKey, BudgetKind, FlowKey, HandingOff, HelloBytes, Learned, Link,
        Matched, NO_POOL, Pending, ROUTE_CONDITIONAL, RouteAction, SniName, SniRoute, SniRouteKey,
        Stage, SynSeen, VlanTag, client_options,
    },
    token_bucket::TokenBucket,
};
use sni_user::datapath::MAPS;
use snigate_tests::{addresses::PARTNER, lab_test};

use crate::{
    made_up::{insert_flows, slots},
    rig::{SECOND, datapath, monotonic_ns, quiet, words},
};

/// By which the kernel tells sockets apart.
fn cookie(socket: &impl std::os::fd::AsRawFd) -> Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes as many bytes as the value has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    ensure!(result == 0, "{}", std::io::Error::last_os_error());
    Ok(cookie)
}

/// A tuple as a dump shows it.
fn shown(key: &FlowKey) -> String {
    let endpoint =
        |address: Address, port_be| SocketAddr::new(address.into(), u16::from_be(port_be));
    format!(
        "{} > {}",
        endpoint(key.source, key.source_port_be),
        endpoint(key.destination, key.destination_port_be)
    )
}

#[test]
fn every_map_is_listed_and_decoded() {
    lab_test("cli-maps", &quiet(), |lab| {
        let (mut datapath, commands) = datapath(lab)?;
        let slots = slots(&commands)?;
        insert_flows(&mut datapath, slots)?;
        let bucket = TokenBucket {
            refilled_ns: monotonic_ns().saturating_sub(5 * SECOND),
            millitokens: 1500,
        };
        datapath.maps.budget.insert(
            BudgetKey {
                source: Address::from(PARTNER.v6),
                kind: BudgetKind::Syn as u32,
            },
            bucket,
            0,
        )?;
        let tag = |protocol: u16, id: u16| VlanTag {
            protocol_be: protocol.to_be(),
            control_be: id.to_be(),
        };
        let link = Link {
            ifindex: 1,
            tags: [tag(0x88a8, 200), tag(0x8100, 7)],
        };
        datapath.maps.links.insert(4711, link, 0)?;

        for (name, action, flags, pool_v4) in [
            ("sip.fabrikam.example", RouteAction::Pass, 0, 0),
            (
                "*.voip.contoso.example",
                RouteAction::Terminate,
                ROUTE_CONDITIONAL,
                NO_POOL,
            ),
        ] {
            let key = SniRouteKey {
                generation: 1,
                name: SniName::new(name)?,
            };
            let route = SniRoute {
                pool_v4,
                pool_v6: 1,
                action: action as u8,
                flags,
                ..SniRoute::default()
            };
            datapath.maps.sni_routes.insert(key, route, 0)?;
        }
        let now = monotonic_ns();
        let passed = Learned {
            generation: 1,
            action: RouteAction::Pass as u8,
            matched: Matched::Wildcard as u8,
            pool_v4: 0,
            pool_v6: NO_POOL,
            hits: 1,
            ..Learned::default()
        };
        let refused = Learned {
            generation: 1,
            matched: Matched::Nothing as u8,
            pool_v4: NO_POOL,
            pool_v6: NO_POOL,
            hits: 1,
            ..Learned::default()
        };
        let name = SniName::new("Sip.Voip.contoso.example")?;
        for seconds_ago in [9, 7] {
            let at = now.saturating_sub(seconds_ago * SECOND);
            datapath.maps.learn(1, &name, passed, at)?;
        }
        datapath
            .maps
            .learn(1, &SniName::EMPTY, refused, now.saturating_sub(3 * SECOND))?;
        let (tuple, _) = datapath.maps.all_flows()?[0];
        let handing_off = HandingOff {
            need_ack: 4711,
            padding: 0,
        };
        datapath.maps.handing_off.insert(tuple, handing_off, 0)?;
        let seen = SynSeen {
            ts_value: 815,
            flags: SynSeen::TIMESTAMPS | SynSeen::LINUX,
            seq: 4712,
        };
        datapath.maps.client_syns.insert(tuple, seen, 0)?;
        datapath
            .maps
            .edge_syn_acks
            .insert(tuple, SynSeen::default(), 0)?;
        let route = SniName::new("*.voip.contoso.example")?;
        for key in [
            AccountKey::edge(slots[0]),
            AccountKey::route(route.number(), 0),
        ] {
            let account = Account {
                connections: 3,
                to_edge: 3400,
                to_client: 98_000,
            };
            datapath.maps.accounts.insert(key, account, 0)?;
        }
        let hello = include_bytes!("../../../sni-user/tests/hellos/openssl-tls13.bin");
        let mut bytes = HelloBytes::default();
        bytes.0[..hello.len()].copy_from_slice(hello);
        datapath.maps.hellos.insert(tuple, bytes, 0)?;
        let pending = Pending {
            since_ns: now.saturating_sub(2 * SECOND),
            received: u16::try_from(hello.len())?,
            mss: 1300,
            options: client_options::TIMESTAMPS | client_options::LINUX,
            stage: Stage::Bound as u8,
            tries: 3,
            ip_set: 1,
            ..Pending::default()
        };
        datapath.maps.pending.insert(tuple, pending, 0)?;
        let listener = lab
            .gateway
            .run(|| Ok(std::net::TcpListener::bind("[::]:0")?))?;
        datapath.serve_listener(&listener)?;

        let listed = commands.json("map ls")?;
        let names: Vec<_> = listed
            .as_array()
            .context("a list")?
            .iter()
            .map(|map| map["name"].clone())
            .collect();
        ensure!(
            names == MAPS.iter().map(|(name, _)| json!(name)).collect::<Vec<_>>(),
            "{names:?}"
        );
        commands.shows(
            "map ls",
            &[
                "MAP TYPE HOLDS ENTRIES MAX FULL",
                "FLOWS hash established flows, one entry per direction 4 2,000 0.2%",
                "SNI_ROUTES hash configured server name to action, pools 2 262,144 0.0%",
                "SNI_LEARNED lruhash server names that clients asked for, by IP set 2 65,536 0.0%",
                "LISTENERS sockmap the agent's listener for inspected services 1 1 100.0%",
                "CONTROL array ABI version, active generation, flags, listener's port, what is announced, wanted events, end of the capture - 7 -",
            ],
        )?;

        let [a, b, _] = slots;
        for (map, line) in [
            ("control", "0 ABI version 6 this program's"),
            (
                "CONTROL",
                "4 what SYN-ACKs of the datapath announce 0 none: it answers no SYNs",
            ),
            ("CONTROL", "1 active generation 1 bank 1"),
            ("SETTINGS", "20000-20999 3"),
            ("FILTER", "services 4 65,536"),
            ("FILTER", "Edges 3 65,536"),
            ("SERVICES", "1 198.51.100.20 443 6 inspect, bind - shared"),
            ("SERVICES", "1 198.51.100.10 0 0 vip - san-group-1"),
            ("POOLS", "1 (active) 0 edges IPv4 edge-a (1), edge-b (3)"),
            ("POOLS", "1 (active) 1 edges IPv6 edge-six (1)"),
            (
                "MAGLEV",
                "1 (active) 1 edges new flows edge-six 4,093 100.0%",
            ),
            (
                "EDGES",
                &format!("{a} edge-a 203.0.113.10:5061 preserve - up"),
            ),
            (
                "EDGES",
                &format!("{b} edge-b 203.0.113.140:5061 gateway 203.0.113.129 up"),
            ),
            (
                "FLOWS",
                "198.51.100.1:4002 > 198.51.100.10:5061 203.0.113.129:20005 > 203.0.113.140:5061 edge-b to-edge steered fin 1000 2000 12 3.4 kB 1m 30s",
            ),
            (
                "HALF_OPEN",
                "[2001:db8:1::1]:4004 > [2001:db8:1::10]:5061 [2001:db8:1::1]:4004 > [2001:db8:a::10]:5061 edge-six to-edge steered recovered 1000 2000 12 3.4 kB 1m 30s",
            ),
            ("HANDING_OFF", &format!("{} 4711", shown(&tuple))),
            ("CLIENT_SYNS", &format!("{} 815 as Linux's", shown(&tuple))),
            ("EDGE_SYN_ACKS", &format!("{} none others", shown(&tuple))),
            ("ACCOUNTS", "edge edge-a datapath 3 3.4 kB 98.0 kB"),
            (
                "ACCOUNTS",
                "route *.voip.contoso.example datapath 3 3.4 kB 98.0 kB",
            ),
            ("SNI_ROUTES", "1 sip.fabrikam.example pass name edges edges"),
            (
                "SNI_ROUTES",
                "1 *.voip.contoso.example terminate agent - edges",
            ),
            (
                "SNI_LEARNED",
                "shared sip.voip.contoso.example wildcard pass edges - 2 7s ago",
            ),
            ("SNI_LEARNED", "shared (none) nothing refuse - - 1 3s ago"),
            (
                "PENDING",
                &format!(
                    "{} bound shared 3 326 B 1300 timestamps linux 2s",
                    shown(&tuple)
                ),
            ),
            (
                "HELLOS",
                &format!("{} 326 yes sip.fabrikam.example", shown(&tuple)),
            ),
            ("LISTENERS", &format!("0 sk:{:x}", cookie(&listener)?)),
            ("ACL", "1 192.0.2.0/24 deny"),
            ("ACL", "1 192.0.2.7/32 allow"),
            ("ACL", "1 2001:db8:dead::/48 deny"),
            ("BUDGET", "2001:db8:1::1/64 syn 1.5 5s ago"),
            ("LINKS", "4711 lo (1) VLAN 200 (802.1ad), VLAN 7 (802.1Q)"),
            ("STATS", "38 drop no-edge 0"),
            ("LABELS", "ip-set 0 1 shared"),
        ] {
            let text = commands.text(&format!("map dump {map}"))?;
            ensure!(
                text.lines()
                    .any(|shown| words(shown).contains(&words(line))),
                "map dump {map} shows no {line:?} but:\n{text}"
            );
        }
        let rings = ["EVENTS", "CAPTURED"];
        for (map, _) in MAPS.iter().filter(|(map, _)| !rings.contains(map)) {
            let dumped = commands.json(&format!("map dump {map}"))?;
            ensure!(
                dumped.as_array().is_some_and(|entries| !entries.is_empty()),
                "{map}: {dumped}"
            );
            let limited = commands.json(&format!("map dump {map} --limit 1"))?;
            ensure!(
                limited.as_array().is_some_and(|entries| entries.len() == 1),
                "{map}: {limited}"
            );
        }
        let shares = commands.json("map dump MAGLEV")?;
        let share = shares
            .as_array()
            .context("a list")?
            .iter()
            .find(|share| share["edge"] == "edge-b");
        let share = share
            .and_then(|share| share["share"].as_f64())
            .context("a share")?;
        ensure!((0.74..0.76).contains(&share), "{shares}");
        commands.fails("map dump EVENTS", 1, "would take events away")?;
        commands.fails("map dump CAPTURED", 1, "`snigate capture` reads it")?;
        commands.fails(
            "map dump NONSENSE",
            1,
            "`snigate map ls` shows what there is",
        )
    });
}
