//! The two hooks: traffic control where the offloads of virtual links stay on, and going over from one hook to the other.

use std::{
    io::ErrorKind,
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::net::if_::if_nametoindex;
use sni_common::contract::{EdgeState, LabelKind};
use sni_user::{
    config::Config,
    datapath::{
        AttachMode, Attached, Datapath, Maps, Origin, ReturnHook, Tables, attached_interfaces,
    },
};
use snigate_tests::{
    Lab, Tags, Topology,
    addresses::{EDGE_A, GATEWAY_LAN_A, PARTNER, SIP_TLS, VIP_1, at},
    deadline::Deadline,
    gateway::{Gateway, two_ip_sets, two_ip_sets_with_source},
    lab_test,
    peers::{Edge, End, TlsVersion},
};

use crate::{
    MEGABYTE, TIMEOUT, arrives, arrives_unchanged, count, drops, ends, finds_the_mtu,
    narrow_routes, start, tcp, vip,
};

const INTERFACES: [&str; 3] = ["wan0", "lan0", "lan1"];

/// Links as virtual machines and containers have them.
fn offloaded() -> Topology {
    Topology {
        offloads: true,
        capture: false,
        ..Topology::default()
    }
}

/// Where the pins say that the datapath is, by hook.
fn seats(gateway: &Gateway<'_>) -> Result<Vec<(String, &'static str)>> {
    let attached = attached_interfaces(gateway.pin_path())?;
    let seat = |it: Attached| (it.interface, it.mode.name());
    Ok(attached.into_iter().map(seat).collect())
}

/// All interfaces are at this hook, by the pins and by the kernel.
fn is_at(lab: &Lab, gateway: &Gateway<'_>, hook: &str) -> Result<()> {
    let found = seats(gateway)?;
    ensure!(
        found.len() == 3 && found.iter().all(|(_, at)| *at == hook),
        "{found:?} instead of {hook}"
    );
    // The kernel frees a link a moment after its last reference is gone.
    Deadline::after(Duration::from_secs(5)).poll("XDP as it should be", || {
        let link = lab.gateway.output("ip", &["-d", "link", "show", "lan0"])?;
        Ok((link.contains("xdp") == hook.starts_with("xdp")).then_some(()))
    })
}

#[test]
fn auto_on_veth_is_tcx_and_says_why() {
    lab_test("hooks-auto", &offloaded(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let mut gateway = start(lab, "auto", &two_ip_sets())?;
        is_at(lab, &gateway, "tcx")?;
        let log = gateway.log()?;
        for interface in INTERFACES {
            let line = format!("{interface}: tcx (veth keeps its offloads at this hook)");
            ensure!(log.contains(&line), "{log}");
            ensure!(gateway.output(&["status"])?.contains(&line));
        }
        let status = gateway.json(&["status"])?;
        ensure!(status["interfaces"][0]["interface"] == "lan0", "{status}");
        ensure!(status["interfaces"][0]["hook"] == "tcx", "{status}");
        let check = gateway.prepared(&["check"])?.output()?;
        let check = String::from_utf8_lossy(&check.stdout).into_owned();
        ensure!(check.contains("tcx (veth"), "{check}");
        ensure!(!check.contains("ethtool"), "{check}");
        arrives(lab, &edge, MEGABYTE)?;
        gateway.stop()?;
        ensure!(!gateway.pin_path().exists());
        for interface in INTERFACES {
            Deadline::after(Duration::from_secs(5)).poll("the detachment", || {
                lab.gateway.run(|| {
                    let (_, programs) = aya::programs::SchedClassifier::query_tcx(
                        interface,
                        aya::programs::TcAttachType::Ingress,
                    )?;
                    Ok(programs.is_empty().then_some(()))
                })
            })?;
        }
        Ok(())
    });
}

#[test]
fn bulk_arrives_unchanged_with_offloads() {
    lab_test("hooks-bulk", &offloaded(), |lab| {
        let gateway = start(lab, "tcx", &two_ip_sets())?;
        arrives_unchanged(lab, 100 * MEGABYTE, &[TlsVersion::V13])?;
        // Packets of the wire, not of the kernel's making, are counted.
        let (packets, bytes) = (
            count(&gateway, "forwarded")?,
            count(&gateway, "forwarded-bytes")?,
        );
        ensure!(
            (500..1600).contains(&(bytes / packets)),
            "{bytes} bytes in {packets} packets"
        );
        ensure!(count(&gateway, "dropped")? == 0);
        Ok(())
    });
}

#[test]
fn connections_live_and_end_with_offloads() {
    lab_test("hooks-ends", &offloaded(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = start(lab, "tcx", &two_ip_sets())?;
        ends(lab, &edge)?;
        let partner = tcp(lab);
        for address in vip(VIP_1) {
            let all = partner.exchange_in_parallel(50, address, 50_000, 50_000)?;
            ensure!(all.len() == 50);
            for _ in 0..50 {
                edge.report(TIMEOUT)?;
            }
        }
        for address in VIP_1.both().into_iter().chain(EDGE_A.both()) {
            lab.partner.ping(address, Duration::from_secs(5))?;
        }
        ensure!(count(&gateway, "dropped")? == 0);
        Ok(())
    });
}

#[test]
fn the_gateways_own_source_with_offloads() {
    lab_test("hooks-source", &offloaded(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let _gateway = start(lab, "tcx", &two_ip_sets_with_source("gateway"))?;
        for (address, expected) in vip(VIP_1).into_iter().zip(GATEWAY_LAN_A.both()) {
            let peer = tcp(lab).who_am_i(address)?;
            ensure!(peer.ip() == expected, "the Edge sees {peer}");
            edge.report(TIMEOUT)?;
            tcp(lab).exchange(address, 20 * MEGABYTE, 20 * MEGABYTE)?;
            ensure!(edge.report(TIMEOUT)?.end == End::Clean);
        }
        Ok(())
    });
}

#[test]
fn vlan_tags_with_offloads() {
    for (wan_tags, lan_a_tags, name) in [
        (Tags::Vlan(100), Tags::None, "hooks-vlan"),
        (
            Tags::QinQ {
                outer: 200,
                inner: 100,
            },
            Tags::None,
            "hooks-qinq",
        ),
        (Tags::Vlan(100), Tags::Vlan(300), "hooks-vlan-vlan"),
    ] {
        let topology = Topology {
            wan_tags,
            lan_a_tags,
            ..offloaded()
        };
        lab_test(name, &topology, |lab| {
            // Without the kernel's own VLAN interfaces the agent can't learn how to send there.
            if !lab.has_kernel_vlans() {
                if lan_a_tags != Tags::None {
                    return Ok(());
                }
                // Nor can the stand-in take what is merged, or has no checksum yet: as before a wire, the kernel finishes it.
                let finish = ["-K", "wan0", "tx", "off", "txvlan", "off"];
                lab.gateway.output("ethtool", &finish)?;
                // And it gets a copy of what traffic control takes, as packet sockets do; the gateway itself must not answer that.
                for command in [
                    "add table inet copies",
                    "add chain inet copies in { type filter hook input priority raw; }",
                    "add rule inet copies in tcp dport 5061 drop",
                ] {
                    lab.gateway.output("nft", &[command])?;
                }
            }
            let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
            let gateway = start(lab, "tcx", &two_ip_sets())?;
            arrives(lab, &edge, MEGABYTE)?;
            // An answer in the VLAN that it came from.
            refuse_new(&gateway)?;
            for address in vip(VIP_1) {
                is_refused(lab, address)?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_smaller_mtu_is_found_out_with_offloads() {
    let topology = Topology {
        router_mtu: Some(1400),
        ..offloaded()
    };
    lab_test("hooks-pmtu-router", &topology, |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = start(lab, "tcx", &two_ip_sets())?;
        finds_the_mtu(lab)?;
        ensure!(count(&gateway, "icmp-translated")? > 0);
        Ok(())
    });
    // Merged packets whose segments are too long for the route: answered by the datapath.
    lab_test("hooks-pmtu-route", &offloaded(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        narrow_routes(lab)?;
        let gateway = start(lab, "tcx", &two_ip_sets())?;
        finds_the_mtu(lab)?;
        ensure!(drops(&gateway, "too-big")? > 0);
        Ok(())
    });
}

/// All Edges are down: a new connection finds none.
fn refuse_new(gateway: &Gateway<'_>) -> Result<()> {
    let mut maps = Maps::open(gateway.pin_path())?;
    let labels = maps.labels.iter().collect::<Result<Vec<_>, _>>()?;
    for (key, _) in labels {
        if key.kind == LabelKind::Edge as u32 {
            maps.set_edge_state(u16::try_from(key.number)?, EdgeState::Down)?;
        }
    }
    Ok(())
}

fn is_refused(lab: &Lab, to: std::net::SocketAddr) -> Result<()> {
    let began = Instant::now();
    let answer = lab
        .partner
        .run(|| Ok(TcpStream::connect_timeout(&to, TIMEOUT)))?;
    let error = answer.err().map(|error| error.kind());
    ensure!(
        error == Some(ErrorKind::ConnectionRefused),
        "{to}: {error:?}"
    );
    ensure!(began.elapsed() < Duration::from_millis(900), "a SYN again");
    Ok(())
}

#[test]
fn a_reset_answers_a_syn_with_an_unfinished_checksum() {
    lab_test("hooks-reset", &offloaded(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = start(lab, "tcx", &two_ip_sets())?;
        let mut alive = tcp(lab).echo(at(VIP_1.v4.into()))?;
        refuse_new(&gateway)?;
        for address in vip(VIP_1) {
            is_refused(lab, address)?;
        }
        ensure!(drops(&gateway, "no-edge")? == 2);
        alive.ping()?;
        alive.close()?;
        ensure!(edge.report(TIMEOUT)?.end == End::Clean);
        let errors = lab.partner.tcp_counters()?.checksum_errors();
        ensure!(errors == 0, "{errors} checksum errors");
        Ok(())
    });
}

#[test]
fn the_agent_may_die_at_tcx() {
    lab_test("hooks-kill", &offloaded(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let mut gateway = start(lab, "tcx", &two_ip_sets())?;
        with_traffic(lab, || {
            for _ in 0..3 {
                gateway.kill()?;
                tcp(lab).exchange(at(VIP_1.v6.into()), 1000, 1000)?;
                gateway.run(&[])?;
                ensure!(gateway.log()?.contains("adopted"), "{}", gateway.log()?);
                is_at(lab, &gateway, "tcx")?;
            }
            Ok(())
        })?;
        drop(edge);
        Ok(())
    });
}

/// Connections that send and receive all the time, of both families, and must not notice what `body` does.
fn with_traffic(lab: &Lab, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let stop = AtomicBool::new(false);
    let pinging = |address| {
        let mut connection = tcp(lab).echo(address)?;
        let mut pings = 0u32;
        while !stop.load(Ordering::Relaxed) {
            connection.ping()?;
            pings += 1;
            thread::sleep(Duration::from_millis(2));
        }
        connection.ping()?;
        connection.close()?;
        Ok::<_, anyhow::Error>(pings)
    };
    let pouring = |address| {
        while !stop.load(Ordering::Relaxed) {
            tcp(lab).exchange(address, 20 * MEGABYTE, 20 * MEGABYTE)?;
        }
        Ok::<_, anyhow::Error>(1)
    };
    thread::scope(|scope| {
        let mut all = Vec::new();
        for address in vip(VIP_1) {
            all.push(scope.spawn(move || pinging(address)));
        }
        all.push(scope.spawn(|| pouring(at(VIP_1.v4.into()))));
        thread::sleep(Duration::from_millis(300));
        let result = body();
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        for one in all {
            let done = one
                .join()
                .map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
            ensure!(done > 0, "no traffic");
        }
        result
    })
}

#[test]
fn the_hook_is_changed_under_traffic() {
    // Without offloads, or XDP would forward what has no checksum.
    let topology = Topology {
        capture: false,
        ..Topology::default()
    };
    lab_test("hooks-change", &topology, |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let mut gateway = start(lab, "xdp", &two_ip_sets())?;
        let tables = two_ip_sets();
        with_traffic(lab, || {
            is_at(lab, &gateway, "xdp")?;
            for hook in ["tcx", "xdp"] {
                gateway.kill()?;
                gateway.set_hook(hook);
                gateway.configure("", &tables)?;
                gateway.run(&[])?;
                is_at(lab, &gateway, hook)?;
            }
            for hook in ["tcx", "xdp", "xdp-generic", "xdp", "tcx", "xdp-generic"] {
                gateway.set_hook(hook);
                gateway.configure("", &tables)?;
                gateway.output(&["reload"])?;
                is_at(lab, &gateway, hook)?;
                let status = gateway.output(&["status"])?;
                ensure!(
                    status.contains(&format!("wan0: {hook} (as configured)")),
                    "{status}"
                );
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        })
    });
}

/// As an agent on a kernel without TCX brings it up.
fn clsact(lab: &Lab, pins: &Path) -> Result<Datapath> {
    let text = format!("[gateway]\ninterfaces = [\"wan0\"]\n{}", two_ip_sets());
    let config = Config::parse(Path::new("/snigate.toml"), &text)?.config;
    let tables = Tables::new(&config, (0, 0), |_| Err("no Edge asks for it".into()))?;
    lab.gateway.run(|| {
        let mut datapath = Datapath::load(pins, 1000)?;
        tables.activate(&mut datapath.maps)?;
        let interfaces = interfaces()?;
        datapath.attach(&interfaces, AttachMode::Clsact)?;
        datapath.attach_return(&interfaces, ReturnHook::beside(AttachMode::Clsact))?;
        datapath.detach_others(&interfaces, AttachMode::Clsact)?;
        Ok(datapath)
    })
}

fn interfaces() -> Result<Vec<(String, u32)>> {
    let interface = |name: &&str| Ok(((*name).to_owned(), if_nametoindex(*name)?));
    INTERFACES.iter().map(interface).collect()
}

#[test]
fn filters_serve_where_there_is_no_tcx() {
    lab_test("hooks-clsact", &offloaded(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        // No agent keeps next hops resolved.
        for edge in EDGE_A.both().into_iter().chain(PARTNER.both()) {
            lab.gateway.ping(edge, TIMEOUT)?;
        }
        let filters = |name: &str| -> Result<usize> {
            let shown = lab
                .gateway
                .output("tc", &["filter", "show", "dev", "wan0", "ingress"])?;
            Ok(shown.matches(&format!(" name {name} ")).count())
        };
        let pins = lab.bpffs()?.join("snigate");
        let first = clsact(lab, &pins)?;
        let mut last = None;
        with_traffic(lab, || {
            // An orderly end without removing anything, and one by SIGKILL.
            drop(first);
            ensure!(filters("snigate_tc")? == 1, "it went with its agent");
            for _ in 0..3 {
                let next = clsact(lab, &pins)?;
                ensure!(next.origin == Origin::Adopted);
                ensure!(filters("snigate_tc")? == 1 && filters("snigate_return")? == 1);
                std::mem::forget(next);
            }
            last = Some(clsact(lab, &pins)?);
            let found = attached_interfaces(&pins)?;
            ensure!(
                found.len() == 3 && found.iter().all(|it| it.mode == AttachMode::Clsact),
                "{found:?}"
            );
            // To the links of a newer kernel, and back.
            if let Some(datapath) = &mut last {
                for mode in [AttachMode::Tcx, AttachMode::Clsact] {
                    lab.gateway.run(|| {
                        let interfaces = interfaces()?;
                        datapath.attach(&interfaces, mode)?;
                        datapath.detach_others(&interfaces, mode)?;
                        Ok(())
                    })?;
                    let expected = usize::from(mode == AttachMode::Clsact);
                    ensure!(filters("snigate_tc")? == expected);
                    thread::sleep(Duration::from_millis(100));
                }
            }
            Ok(())
        })?;
        let shown = lab
            .gateway
            .output("tc", &["filter", "show", "dev", "wan0", "ingress"])?;
        let order = [" name snigate_tc ", " name snigate_return "].map(|name| shown.find(name));
        ensure!(order[0].is_some() && order[0] < order[1], "{shown}");
        lab.gateway.run(|| {
            if let Some(datapath) = last {
                datapath.remove()?;
            }
            Ok(())
        })?;
        ensure!(filters("snigate_tc")? == 0 && filters("snigate_return")? == 0);
        ensure!(!pins.exists());
        std::mem::forget(clsact(lab, &pins)?);
        // Somebody tidies up; the next agent mends it.
        lab.gateway
            .output("tc", &["qdisc", "del", "dev", "wan0", "clsact"])?;
        ensure!(filters("snigate_tc")? == 0);
        std::mem::forget(clsact(lab, &pins)?);
        ensure!(filters("snigate_tc")? == 1 && filters("snigate_return")? == 1);
        // What `--fresh` removes.
        lab.gateway.run(|| Ok(Datapath::remove_pinned(&pins)?))?;
        ensure!(filters("snigate_tc")? == 0 && !pins.exists());

        Ok(())
    });
}
