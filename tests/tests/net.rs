//! What the agent sees of the host's network, and what it changes there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use sni_user::net::host::{self, Family, HostError};
use sni_user::net::{
    Change, Changes, Mac, Neighbour, NeighbourState, NetError, Network, RouteKind,
};
use snigate_tests::addresses::{
    EDGE_A, EDGE_B, GATEWAY_TRANSIT, GATEWAY_WAN, PARTNER, ROUTER, VIP_1,
};
use snigate_tests::{Lab, Namespace, Topology, lab_test};

/// How long the kernel may take for anything but noticing that a neighbour has changed.
const TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn interfaces_are_those_of_the_namespace() {
    net_test("net-interfaces", &quiet(), async |lab, network| {
        let mut names = lab.gateway.interfaces()?;
        names.push("lo".to_owned());
        let found = network.interfaces().await?;
        let mut seen: Vec<_> = found.iter().map(|i| i.name.clone()).collect();
        names.sort();
        seen.sort();
        ensure!(seen == names, "{seen:?} instead of {names:?}");

        lab.gateway.ip("link set lan0 mtu 1400
             link property add dev lan0 altname edge-a-link
             link set lan1 down")?;
        let lan0 = network.interface("lan0").await?;
        ensure!(lan0.mtu == 1400 && lan0.up, "{lan0:?}");
        ensure!(lan0.mac == Some(mac(&lab.gateway, "lan0")?), "{lan0:?}");
        ensure!(lan0.vlan.is_none(), "{lan0:?}");
        ensure!(network.interface("edge-a-link").await? == lan0);
        let lan1 = network.interface("lan1").await?;
        ensure!(!lan1.up, "{lan1:?}");

        let error = network.interface("wna0").await.err();
        let sentence = error.context("an interface wna0")?.to_string();
        ensure!(sentence.contains("did you mean `wan0`?"), "{sentence}");
        for name in names {
            ensure!(sentence.contains(&format!("`{name}`")), "{sentence}");
        }
        Ok(())
    });
}

#[test]
fn routes_are_what_the_kernel_would_do() {
    let topology = Topology {
        router_mtu: Some(1400),
        ..quiet()
    };
    net_test("net-routes", &topology, async |_, network| {
        let wan0 = network.interface("wan0").await?.index;
        let lan0 = network.interface("lan0").await?.index;
        for (n, edge) in EDGE_A.both().into_iter().enumerate() {
            let route = network.route_to(edge, None).await?;
            ensure!(route.kind == RouteKind::Unicast, "{route:?}");
            ensure!(route.ifindex == lan0, "{route:?}");
            ensure!(route.gateway == Some(ROUTER.both()[n]), "{route:?}");
            ensure!(route.next_hop(edge) == ROUTER.both()[n], "{route:?}");
            ensure!(route.source == Some(GATEWAY_TRANSIT.both()[n]), "{route:?}");

            let partner = PARTNER.both()[n];
            let from = VIP_1.both()[n];
            let route = network.route_to(partner, Some(from)).await?;
            ensure!(
                route.ifindex == wan0 && route.gateway.is_none(),
                "{route:?}"
            );
            ensure!(route.next_hop(partner) == partner, "{route:?}");

            let own = network.route_to(GATEWAY_WAN.both()[n], None).await?;
            ensure!(own.kind == RouteKind::Local, "{own:?}");
        }
        Ok(())
    });
}

#[test]
fn no_way_is_said_with_the_kernels_reason() {
    net_test("net-unreachable", &quiet(), async |lab, network| {
        lab.gateway.ip("route add unreachable 192.0.2.128/28
             route add prohibit 192.0.2.144/28
             route add blackhole 192.0.2.160/28
             -6 route add unreachable 2001:db8:dead::/48")?;
        let v4 = |last| IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
        let v6 = |third| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, third, 0, 0, 0, 0, 1));
        let cases = [
            (v4(1), None),
            (v4(129), None),
            (v4(145), None),
            (v4(161), None),
            (v6(0xdead), None),
            (v6(0xff), None),
            // An address that is not the gateway's.
            (EDGE_A.v4.into(), Some(v4(1))),
        ];
        for (to, from) in cases {
            let error = network.route_to(to, from).await.err();
            let error = error.with_context(|| format!("a route to {to} from {from:?}"))?;
            ensure!(matches!(error, NetError::Unreachable { .. }), "{error:?}");
            let wanted = match from {
                None => format!("`ip route get {to}`"),
                Some(from) => format!("`ip route get {to} from {from}`"),
            };
            ensure!(error.to_string().contains(&wanted), "{error}");
        }
        Ok(())
    });
}

#[test]
fn next_hops_of_every_kind_of_route_are_found() {
    net_test("net-next-hops", &quiet(), async |lab, network| {
        lab.gateway.ip(
            "route add default via 198.51.100.1
             route add 192.0.2.0/26 nexthop via 203.0.113.10 dev lan0 nexthop via 203.0.113.140 dev lan1
             route add 192.0.2.64/26 via inet6 2001:db8:a::10 dev lan0
             route add 192.0.2.128/26 via 203.0.113.20 dev lan0 table 100
             -6 route add 2001:db8:f::/64 nexthop via 2001:db8:a::11 dev lan0 nexthop via 2001:db8:b::11 dev lan1
             -6 route add default via fe80::1 dev wan0
             nexthop add id 7 via 203.0.113.30 dev lan0
             route add 192.0.2.192/26 nhid 7",
        )?;
        let index = async |name| anyhow::Ok(network.interface(name).await?.index);
        let (wan0, lan0, lan1) = (
            index("wan0").await?,
            index("lan0").await?,
            index("lan1").await?,
        );
        let found = network.default_next_hops(&[wan0, lan0]).await?;
        let mut wanted = vec![
            (wan0, "198.51.100.1"),
            (wan0, "fe80::1"),
            (lan0, "203.0.113.10"),
            (lan0, "203.0.113.20"),
            (lan0, "203.0.113.30"),
            (lan0, "2001:db8:a::10"),
            (lan0, "2001:db8:a::11"),
        ];
        wanted.sort_by_key(|(index, _)| *index);
        let mut seen: Vec<_> = found.iter().map(|(i, a)| (*i, a.to_string())).collect();
        seen.sort();
        let mut wanted: Vec<_> = wanted.into_iter().map(|(i, a)| (i, a.to_owned())).collect();
        wanted.sort();
        ensure!(seen == wanted, "{seen:?} instead of {wanted:?}");

        let found = network.default_next_hops(&[lan1]).await?;
        ensure!(found.len() == 2, "{found:?}");
        ensure!(network.default_next_hops(&[]).await?.is_empty());
        Ok(())
    });
}

/// The kernel allows one listing at a time on a socket, and clones share theirs.
#[test]
fn listings_may_be_asked_for_at_once() {
    net_test("net-at-once", &quiet(), async |lab, network| {
        let mut batch = String::new();
        // Several times what the kernel says in one go, in either family.
        for n in 0..1000 {
            let (high, low) = (n / 250, n % 250);
            batch.push_str(&format!(
                "route add 192.0.2.0/26 metric {n} via 203.0.113.10\n\
                 route add 2001:db8:f{high}:{low}::/64 via 2001:db8:a::{low}:2\n"
            ));
        }
        let file = lab.dir().join("routes");
        std::fs::write(&file, &batch)?;
        let file = file.to_str().context("a path that is no text")?;
        lab.gateway.output("ip", &["-batch", file])?;
        let lan0 = network.interface("lan0").await?.index;
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let network = network.clone();
            asked.spawn(async move { network.default_next_hops(&[lan0]).await });
        }
        for hops in asked.join_all().await {
            ensure!(hops?.len() == 251);
        }
        // A listing that nobody waits for any more is in nobody's way. In a task, because there the runtime does not look at the
        // socket before the next request goes out.
        let patient = tokio::spawn(async move {
            let links = [lan0];
            for _ in 0..16 {
                tokio::select! {
                    biased;
                    _ = network.default_next_hops(&links) => bail!("the kernel was not even asked"),
                    () = others_first() => {}
                }
                ensure!(network.default_next_hops(&links).await?.len() == 251);
            }
            Ok(())
        });
        patient.await??;
        Ok(())
    });
}

/// The point of it all: nobody sends anything, and yet the entry is good, also when the Edge behind the address is another machine.
#[test]
fn a_kept_neighbour_follows_its_mac_address() {
    net_test("net-keep", &quiet(), async |lab, network| {
        // An entry is doubted after 15 to 45 seconds, and asked for five seconds later: too slow for a test.
        for family in ["ipv4", "ipv6"] {
            let neigh = format!("net/{family}/neigh/lan0");
            lab.gateway
                .sysctl(&format!("{neigh}/base_reachable_time_ms"), "1000")?;
            lab.gateway
                .sysctl(&format!("{neigh}/delay_first_probe_time"), "1")?;
            lab.gateway
                .sysctl(&format!("{neigh}/retrans_time_ms"), "200")?;
        }
        let lan0 = network.interface("lan0").await?.index;
        let edges = EDGE_A.both();
        for edge in edges {
            network.keep_neighbour(lan0, edge).await?;
        }
        let first = mac(&lab.edge_a, "eth0")?;
        for edge in edges {
            let entry = reachable(&network, lan0, edge, first, TIMEOUT).await?;
            ensure!(entry.managed, "{entry:?}");
        }

        let second = Mac([2, 0, 0, 0, 0, 0x77]);
        lab.edge_a.ip(&format!("link set eth0 address {second}"))?;
        for edge in edges {
            // Doubted after a second and a half, asked by its old address, given up, asked by broadcast: each at a tick of 5 seconds.
            reachable(&network, lan0, edge, second, Duration::from_secs(40)).await?;
        }

        for edge in edges {
            network.release_neighbour(lan0, edge).await?;
            let entry = network
                .neighbour_state(lan0, edge)
                .await?
                .context("the entry is gone")?;
            ensure!(!entry.managed, "{entry:?}");
            ensure!(entry.mac == Some(second), "{entry:?}");
            network.release_neighbour(lan0, edge).await?;
        }
        Ok(())
    });
}

#[test]
fn what_an_administrator_has_set_is_left_alone() {
    net_test("net-permanent", &quiet(), async |lab, network| {
        let lan0 = network.interface("lan0").await?.index;
        let set = Mac([2, 0, 0, 0, 0, 0x99]);
        for edge in EDGE_A.both() {
            lab.gateway.ip(&format!(
                "neigh add {edge} lladdr {set} dev lan0 nud permanent"
            ))?;
            network.keep_neighbour(lan0, edge).await?;
            network.resolve_neighbour(lan0, edge).await?;
            network.release_neighbour(lan0, edge).await?;
            let entry = network.neighbour_state(lan0, edge).await?;
            let wanted = Neighbour {
                state: NeighbourState::Permanent,
                mac: Some(set),
                managed: false,
            };
            ensure!(entry == Some(wanted), "{entry:?}");
        }
        Ok(())
    });
}

#[test]
fn a_neighbour_asked_for_once_is_not_kept() {
    net_test("net-resolve", &quiet(), async |lab, network| {
        let lan1 = network.interface("lan1").await?.index;
        let mac = mac(&lab.edge_b, "eth0")?;
        for edge in EDGE_B.both() {
            ensure!(
                network
                    .neighbour_state(lan1, edge)
                    .await?
                    .is_none_or(|entry| !entry.managed)
            );
            network.resolve_neighbour(lan1, edge).await?;
            let entry = reachable(&network, lan1, edge, mac, TIMEOUT).await?;
            ensure!(!entry.managed && entry.is_usable(), "{entry:?}");
            // Keeping takes over what is there, and asking once does not end it.
            network.keep_neighbour(lan1, edge).await?;
            network.resolve_neighbour(lan1, edge).await?;
            let entry = network
                .neighbour_state(lan1, edge)
                .await?
                .context("no entry")?;
            ensure!(entry.managed && entry.mac == Some(mac), "{entry:?}");
        }
        let nobody = IpAddr::from(Ipv4Addr::new(203, 0, 113, 99));
        let lan0 = network.interface("lan0").await?.index;
        network.release_neighbour(lan0, nobody).await?;
        ensure!(network.neighbour_state(lan0, nobody).await?.is_none());
        let error = network
            .keep_neighbour(9999, nobody)
            .await
            .err()
            .context("interface 9999")?;
        ensure!(error.to_string().contains("interface 9999"), "{error}");
        Ok(())
    });
}

#[test]
fn changes_are_gathered_and_told() {
    net_test("net-changes", &quiet(), async |lab, network| {
        let mut changes = Changes::new()?;
        // What building the lab set going may still be on its way.
        while tokio::time::timeout(Duration::from_secs(1), changes.next())
            .await
            .is_ok()
        {}

        lab.gateway.ip("route add 192.0.2.0/26 via 203.0.113.10
             route add 192.0.2.64/26 via 203.0.113.10
             route add 192.0.2.128/26 via 203.0.113.10")?;
        let change = next(&mut changes).await?;
        let routes = Change {
            routes: true,
            ..Change::default()
        };
        ensure!(change == routes, "{change:?}");
        quiet_now(&mut changes).await?;

        lab.gateway.ip("addr add 192.0.2.7/32 dev lan0")?;
        let change = next(&mut changes).await?;
        ensure!(change.addresses && !change.links, "{change:?}");

        // A link that goes down takes its neighbours with it, kept ones too.
        let lan0 = network.interface("lan0").await?.index;
        let edge = EDGE_A.v4.into();
        network.keep_neighbour(lan0, edge).await?;
        reachable(&network, lan0, edge, mac(&lab.edge_a, "eth0")?, TIMEOUT).await?;
        lab.edge_a.ip("link set eth0 down")?;
        let mut seen = Change::default();
        while !(seen.links && seen.neighbours) {
            let change = next(&mut changes).await?;
            seen.links |= change.links;
            seen.neighbours |= change.neighbours;
        }
        ensure!(network.neighbour_state(lan0, edge).await?.is_none());
        Ok(())
    });
}

#[test]
fn the_hosts_settings_are_checked() {
    let topology = quiet();
    lab_test("net-settings", &topology, |lab| {
        let check = |interface: &'static str, family| {
            lab.gateway
                .run(move || Ok(host::require_forwarding(interface, family)))
        };
        for family in [Family::V4, Family::V6] {
            check("lan0", family)??;
        }
        lab.gateway.sysctl("net/ipv4/conf/lan0/forwarding", "0")?;
        lab.gateway.sysctl("net/ipv6/conf/lan0/forwarding", "0")?;
        for (family, name) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
            let error = check("lan0", family)?.err().context("lan0 forwards")?;
            ensure!(
                matches!(error, HostError::ForwardingOff { .. }),
                "{error:?}"
            );
            let sentence = error.to_string();
            let command = format!("`sysctl -w net.{name}.conf.lan0.forwarding=1`");
            ensure!(sentence.contains(&command), "{sentence}");
            check("lan1", family)??;
        }
        lab.gateway.sysctl("net/ipv4/conf/lan0/forwarding", "1")?;
        check("lan0", Family::V4)??;
        let error = check("wan7", Family::V4)?.err().context("wan7 forwards")?;
        ensure!(matches!(error, HostError::Setting { .. }), "{error:?}");

        lab.gateway
            .sysctl("net/ipv4/ip_local_port_range", "20000 60999")?;
        let owned = || lab.gateway.run(|| Ok(host::owned_ports()));
        ensure!(owned()?? == (1024, 18976));
        ensure!(lab.gateway.run(|| Ok(host::local_port_range()?))? == (20000, 60999));
        lab.gateway
            .sysctl("net/ipv4/ip_local_port_range", "1500 65000")?;
        let sentence = owned()?.err().context("enough ports")?.to_string();
        ensure!(sentence.contains("1500 to 65000"), "{sentence}");

        let note = || lab.gateway.run(|| Ok(host::reverse_path_note("wan0")?));
        ensure!(note()?.is_none());
        lab.gateway.sysctl("net/ipv4/conf/all/rp_filter", "1")?;
        let sentence = note()?.context("strict, and no word")?;
        ensure!(
            sentence.contains("`sysctl -w net.ipv4.conf.wan0.rp_filter=2`"),
            "{sentence}"
        );
        lab.gateway.sysctl("net/ipv4/conf/wan0/rp_filter", "2")?;
        ensure!(note()?.is_none());
        Ok(())
    });
}

#[test]
fn bpf_filesystems_and_offloads_are_recognised() {
    lab_test("net-host", &quiet(), |lab| {
        let bpffs = lab.bpffs()?;
        for path in [bpffs.clone(), bpffs.join("snigate/not/yet")] {
            host::require_bpffs(&path)?;
        }
        ensure!(!host::is_bpffs(&lab.dir())?);

        for (setting, wanted) in [("off", false), ("on", true)] {
            lab.gateway
                .output("ethtool", &["-K", "wan0", "rxvlan", setting])?;
            let stripped = lab.gateway.run(|| Ok(host::rx_vlan_offload("wan0")?))?;
            ensure!(stripped == wanted, "rxvlan {setting} and yet {stripped}");
        }
        let error = lab
            .gateway
            .run(|| Ok(host::rx_vlan_offload("wan7").err()))?;
        ensure!(error.is_some_and(|error| error.to_string().contains("wan7")));

        let (major, minor) = host::kernel_version()?;
        host::require_kernel(host::OLDEST_KERNEL.0, host::OLDEST_KERNEL.1)?;
        ensure!(host::require_kernel(major, minor + 1).is_err());
        host::require_capabilities()?;
        Ok(())
    });
}

fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// Runs `body` inside the gateway's namespace, with a connection to it.
fn net_test(
    name: &str,
    topology: &Topology,
    body: impl AsyncFnOnce(&Lab, Network) -> Result<()> + Send,
) {
    lab_test(name, topology, |lab| {
        lab.gateway.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async { body(lab, Network::new()?).await })
        })
    });
}

/// Lets other tasks run, but nothing that waits for a socket.
async fn others_first() {
    let mut first = true;
    std::future::poll_fn(|context| {
        if std::mem::take(&mut first) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

async fn reachable(
    network: &Network,
    ifindex: u32,
    address: IpAddr,
    mac: Mac,
    within: Duration,
) -> Result<Neighbour> {
    let mut last = None;
    let answer = tokio::time::timeout(within, async {
        loop {
            last = network.neighbour_state(ifindex, address).await?;
            match &last {
                Some(entry)
                    if entry.state == NeighbourState::Reachable && entry.mac == Some(mac) =>
                {
                    return anyhow::Ok(entry.clone());
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    match answer {
        Ok(entry) => entry,
        Err(_) => bail!("{address} is not reachable at {mac} after {within:?}: {last:?}"),
    }
}

async fn next(changes: &mut Changes) -> Result<Change> {
    let change = tokio::time::timeout(TIMEOUT, changes.next()).await;
    Ok(change.context("no change was told")??)
}

async fn quiet_now(changes: &mut Changes) -> Result<()> {
    match tokio::time::timeout(Duration::from_millis(500), changes.next()).await {
        Err(_) => Ok(()),
        Ok(change) => bail!("a change too many: {change:?}"),
    }
}

/// The address of an interface, by `ip`.
fn mac(namespace: &Namespace, interface: &str) -> Result<Mac> {
    let line = namespace.output("ip", &["-brief", "link", "show", "dev", interface])?;
    let text = line
        .split_whitespace()
        .nth(2)
        .context("no address in what ip says")?;
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    let bytes = bytes.with_context(|| format!("{text} is no Ethernet address"))?;
    Ok(Mac(bytes.try_into().map_err(|_| {
        anyhow::anyhow!("{text} is no Ethernet address")
    })?))
}
