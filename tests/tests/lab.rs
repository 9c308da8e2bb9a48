//! The lab proves itself, over the kernel's own routing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use snigate_tests::addresses::{EDGE_A, EDGE_B, SIP_TLS, VIP_1, VIP_2};
use snigate_tests::peers::{Edge, OpensslClient, OpensslServer, Partner, TlsVersion};
use snigate_tests::pki::Pki;
use snigate_tests::{Lab, Tags, Topology, lab_test, leftovers};

const TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn partner_reaches_gateway_and_edges() {
    lab_test("ping", &Topology::default(), |lab| {
        for destination in [VIP_1, VIP_2, EDGE_A, EDGE_B]
            .iter()
            .flat_map(|host| host.both())
        {
            lab.partner.ping(destination, TIMEOUT)?;
        }
        Ok(())
    });
}

/// What native XDP needs of a veth; without it packets vanish silently.
#[test]
fn links_have_the_offloads_that_xdp_needs() {
    lab_test("offloads", &Topology::default(), |lab| {
        for machine in [&lab.partner, &lab.gateway, &lab.edge_a, &lab.edge_b] {
            for interface in machine.interfaces()? {
                let features = machine.output("ethtool", &["-k", &interface])?;
                for wanted in [
                    "tx-checksumming: off",
                    "tx-vlan-offload: off",
                    "generic-receive-offload: on",
                ] {
                    let found = features.lines().any(|line| line.trim() == wanted);
                    ensure!(found, "{} {interface}: no {wanted}", machine.name());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn openssl_partner_and_edge_speak_mutual_tls() {
    lab_test("mutual-tls", &Topology::default(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let names = ["sip.contoso.example", "sip.fabrikam.example"];
        let edge = pki.server("edge-a", &names)?;
        let partner = pki.server("partner", &["sip.partner.example"])?;
        let _server = OpensslServer::start(lab, "edge-a", &lab.edge_a, SIP_TLS, &edge, &pki)?;
        for address in EDGE_A.both() {
            for version in TlsVersion::BOTH {
                let session = OpensslClient::new(&lab.partner, names[0], &partner, &pki)
                    .version(version)
                    .connect(SocketAddr::new(address, SIP_TLS), TIMEOUT)?;
                ensure!(session.version == version.name(), "{session:?}");
                ensure!(session.names == names, "{session:?}");
                ensure!(session.subject == "CN=sip.contoso.example", "{session:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn openssl_edge_refuses_a_partner_without_certificate() {
    lab_test("no-client-certificate", &Topology::default(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let edge = pki.server("edge-a", &["sip.contoso.example"])?;
        let _server = OpensslServer::start(lab, "edge-a", &lab.edge_a, SIP_TLS, &edge, &pki)?;
        for version in TlsVersion::BOTH {
            let client = OpensslClient {
                namespace: &lab.partner,
                server_name: None,
                identity: None,
                roots: pki.roots(),
                version: Some(version),
                source: None,
                options: Vec::new(),
            };
            let refused = client.connect(SocketAddr::new(EDGE_A.v4.into(), SIP_TLS), TIMEOUT);
            let error = refused
                .err()
                .context("the Edge accepted a partner without certificate")?;
            ensure!(format!("{error:#}").contains("alert"), "{error:#}");
        }
        Ok(())
    });
}

#[test]
fn tagged_links_carry_packets() {
    for (name, wan_tags) in [
        ("vlan", Tags::Vlan(100)),
        (
            "qinq",
            Tags::QinQ {
                outer: 200,
                inner: 100,
            },
        ),
    ] {
        let topology = Topology {
            wan_tags,
            lan_a_tags: Tags::Vlan(300),
            ..Topology::default()
        };
        lab_test(name, &topology, |lab| {
            for destination in [VIP_1, EDGE_A, EDGE_B].iter().flat_map(|host| host.both()) {
                lab.partner.ping(destination, TIMEOUT)?;
            }
            let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
            let partner = Partner {
                namespace: &lab.partner,
                source: None,
                tls: None,
                timeout: TIMEOUT,
            };
            for address in EDGE_A.both() {
                partner.exchange(SocketAddr::new(address, SIP_TLS), 1_000_000, 1_000_000)?;
            }
            let ends = [
                (&lab.partner, "eth0", wan_tags),
                (&lab.edge_a, "eth0", Tags::Vlan(300)),
            ];
            for (machine, device, tags) in ends {
                let addresses = machine.output("ip", &["-o", "addr", "show", "dev", device])?;
                ensure!(!addresses.contains("inet "), "{addresses}");
                let addresses =
                    machine.output("ip", &["-o", "addr", "show", "dev", &tags.device(device)])?;
                ensure!(addresses.contains("inet "), "{addresses}");
            }
            Ok(())
        });
    }
}

/// The shape of every test to come: a connection to a virtual address arrives at an Edge.
#[test]
fn a_virtual_address_reaches_its_edge_through_nat() {
    lab_test("nat", &Topology::default(), |lab| {
        lab.gateway.output("nft", &["add table inet nat"])?;
        lab.gateway.output(
            "nft",
            &["add chain inet nat in { type nat hook prerouting priority dstnat; }"],
        )?;
        for (vip, edge) in [(VIP_1, EDGE_A), (VIP_2, EDGE_B)] {
            for rule in [
                format!(
                    "add rule inet nat in ip daddr {} tcp dport 5061 dnat ip to {}",
                    vip.v4, edge.v4
                ),
                format!(
                    "add rule inet nat in ip6 daddr {} tcp dport 5061 dnat ip6 to {}",
                    vip.v6, edge.v6
                ),
            ] {
                lab.gateway.output("nft", &[&rule])?;
            }
        }
        let pki = Pki::new("federation", &lab.dir())?;
        let partner = pki.server("partner", &["sip.partner.example"])?;
        for (name, vip, edge) in [
            ("edge-a", VIP_1, &lab.edge_a),
            ("edge-b", VIP_2, &lab.edge_b),
        ] {
            let own_name = format!("sip.{name}.example");
            let identity = pki.server(name, &[&own_name])?;
            let _server = OpensslServer::start(lab, name, edge, SIP_TLS, &identity, &pki)?;
            for address in vip.both() {
                let session = OpensslClient::new(&lab.partner, &own_name, &partner, &pki)
                    .connect(SocketAddr::new(address, SIP_TLS), TIMEOUT)?;
                ensure!(session.names == [own_name.as_str()], "{session:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn nothing_is_left_behind() {
    let Some(lab) = Lab::for_test("nothing-left", &Topology::default()) else {
        return;
    };
    let name = lab.name().to_owned();
    let bpffs = lab.bpffs().expect("a BPF filesystem");
    std::fs::create_dir_all(bpffs.join("snigate/links")).expect("directories on it");
    let mut command = lab.edge_a.command("sleep");
    command.arg("600");
    let mut sleeper = lab.spawn("sleeper", command).expect("a process");
    assert!(leftovers::labs().contains(&name));
    drop(lab);

    assert!(
        !leftovers::labs().contains(&name),
        "{:?}",
        leftovers::labs()
    );
    assert!(!bpffs.exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mount table");
    assert!(!mounts.contains(&name), "{mounts}");
    sleeper.wait_for_exit(TIMEOUT).expect("an ended process");
}

#[test]
fn a_panicking_test_keeps_its_captures_and_nothing_else() {
    let failed = std::panic::catch_unwind(|| {
        lab_test("panics-on-purpose", &Topology::default(), |lab| {
            lab.partner.ping(IpAddr::V4(VIP_1.v4), TIMEOUT)?;
            anyhow::bail!("on purpose: {}", lab.name())
        });
    });
    let Err(panic) = failed else {
        return; // No lab here; lab_test has said so.
    };
    let message = panic.downcast_ref::<String>().expect("a formatted message");
    let name = message
        .split("on purpose: ")
        .nth(1)
        .expect("the lab's name");
    let name = name.split_whitespace().next().expect("the lab's name");
    assert!(
        !leftovers::labs().iter().any(|lab| lab == name),
        "{message}"
    );

    let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/lab-failures")
        .join(format!("panics-on-purpose-{name}"));
    let capture = kept.join("partner-eth0.pcap");
    let length = std::fs::metadata(&capture).map(|file| file.len());
    std::fs::remove_dir_all(&kept).expect("the kept files");
    // A file header is 24 bytes; the ping is more.
    assert!(length.expect("a capture of the partner's link") > 24);
}

#[test]
fn a_dead_process_leaves_nothing_to_the_next_lab() -> Result<()> {
    let Some(_lab) = Lab::for_test(
        "orphans",
        &Topology {
            capture: false,
            ..Topology::default()
        },
    ) else {
        return Ok(());
    };
    // No process can have this id: it is above the kernel's limit (PID_MAX_LIMIT).
    let orphan = "sng-4194305-0";
    let namespace = snigate_tests::Namespace::create(&format!("{orphan}-gateway"))?;
    let mut command = namespace.command("sleep");
    let mut child = command.arg("600").spawn()?;
    std::mem::forget(namespace);
    let removed = leftovers::remove_orphans()?;
    child.wait()?;
    // Another test's lab may have been quicker.
    ensure!(removed.iter().all(|lab| lab == orphan), "{removed:?}");
    ensure!(!leftovers::labs().iter().any(|lab| lab == orphan));
    Ok(())
}
