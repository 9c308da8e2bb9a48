//! Edges that can't be reached, or must not be: the partner's handshake is complete by then, and it is told all the same.

use std::{net::TcpListener, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use snigate_tests::{
    addresses::{EDGE_A, SIP_TLS, VIP_1, at},
    gateway::Gateway,
    lab_test,
    peers::{Edge, EdgeTls, Partner, PartnerTls, TlsVersion},
};

use super::{CONTOSO, EDGE_NAME, Scene, alert, edge_table, ip_set, wait_for_log};
use crate::{quiet, tcp};

const INTERNAL_ERROR: u8 = 80;

/// A domain whose one Edge, at this port, has a fault; and what is counted and said for it.
struct Fault {
    name: &'static str,
    port: u16,
    counter: &'static str,
    words: &'static str,
}

const FAULTS: [Fault; 6] = [
    Fault {
        name: "closed",
        port: 5071,
        counter: "edge-refused",
        words: "Connection refused",
    },
    Fault {
        name: "silent",
        port: 5072,
        counter: "edge-silent",
        words: "no answer within 4 s",
    },
    Fault {
        name: "hanging",
        port: 5073,
        counter: "edge-timeout",
        words: "hanging (203.0.113.10:5073): the Edge did not complete its handshake in time",
    },
    Fault {
        name: "misnamed",
        port: 5074,
        counter: "edge-certificate",
        words: "misnamed (203.0.113.10:5074): the Edge's certificate was refused: certificate not valid for name \"other.hoster.example\"",
    },
    Fault {
        name: "untrusted",
        port: 5075,
        counter: "edge-certificate",
        words: "untrusted (203.0.113.10:5075): the Edge's certificate was refused: no authority among the Edge's `tls.roots` has issued it",
    },
    Fault {
        name: "strict",
        port: 5076,
        counter: "edge-alert",
        words: "refused the connection, most likely for the certificate it was shown",
    },
];

#[test]
fn partners_are_told_of_edges_that_fail() {
    lab_test("terminate-edges", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let tls = EdgeTls::for_clients_of(&scene.mirror_ca(), &scene.edge)?;
        // One that knows partners only, and nothing of the gateway's authority.
        let strict = EdgeTls::new(&scene.edge, &scene.federation)?;
        let start = |port, tls: &EdgeTls| Edge::start(&lab.edge_a, port, Some(tls));
        let _edges = [
            start(SIP_TLS, &tls)?,
            start(5074, &tls)?,
            start(5075, &tls)?,
            start(5076, &strict)?,
        ];
        for rule in [
            "add table inet silent",
            "add chain inet silent in { type filter hook input priority raw; }",
            "add rule inet silent in tcp dport 5072 drop",
        ] {
            lab.edge_a.output("nft", &[rule])?;
        }
        // The kernel takes its connections, and nobody ever reads from them.
        let _hanging = lab
            .edge_a
            .run(|| Ok(TcpListener::bind((EDGE_A.v4, 5073))?))?;
        let gateway = Gateway::start(lab, &tables(&scene))?;

        let tls = PartnerTls::new(CONTOSO, &scene.partner, &scene.federation, None)?;
        let partner = Partner {
            tls: Some(&tls),
            ..tcp(lab)
        };
        let address = at(VIP_1.v4.into());
        let mut other = partner.echo(address)?;
        thread::scope(|scope| -> Result<()> {
            let mut clients = Vec::new();
            for fault in &FAULTS {
                for version in TlsVersion::BOTH {
                    let name = format!("sip.{}.example", fault.name);
                    let scene = &scene;
                    let told = move || -> Result<u8> {
                        let client = scene.openssl(&name).version(version);
                        alert(&client, at(VIP_1.v4.into())).context(name.clone())
                    };
                    clients.push((fault, version, scope.spawn(told)));
                }
            }
            for (fault, version, client) in clients {
                // Meanwhile.
                other.ping()?;
                partner.exchange(address, 1000, 1000)?;
                let told = client.join().map_err(|_| anyhow!("a client panicked"))??;
                ensure!(
                    told == INTERNAL_ERROR,
                    "{told}, {}, {version:?}",
                    fault.name
                );
            }
            Ok(())
        })?;
        for fault in &FAULTS {
            let counted = FAULTS
                .iter()
                .filter(|it| it.counter == fault.counter)
                .count();
            scene.ensure_counted(fault.counter, 2 * u64::try_from(counted)?)?;
            wait_for_log(&gateway, &[fault.counter, fault.name, fault.words])?;
        }
        // One that fails is no reason to refuse where its pool has another one.
        let tls = PartnerTls::new("sip.both.example", &scene.partner, &scene.federation, None)?;
        let partner = Partner {
            tls: Some(&tls),
            ..tcp(lab)
        };
        for _ in 0..4 {
            partner.exchange(address, 1000, 1000)?;
        }
        let words = [
            "untrusted (203.0.113.10:5075)",
            "the next one of its pool was",
        ];
        wait_for_log(&gateway, &words)?;
        other.close().map(drop)
    });
}

fn tables(scene: &Scene<'_>) -> String {
    let mut text = scene.identity() + &ip_set();
    let names: Vec<String> = ["contoso", "both"]
        .into_iter()
        .chain(FAULTS.iter().map(|fault| fault.name))
        .map(|name| format!("sip.{name}.example"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let domain = |name: &str, pool: &str, own| {
        let sip_domain = format!("{name}.example");
        scene.terminated(&sip_domain, pool, own, "identity = \"mirror\"")
    };
    let own = scene.federation.server("all", &names);
    let own = own.as_ref().expect("the names are names");
    let edge = |name: &str, port: u16, verified: &str, roots: &std::path::Path| {
        edge_table(
            name,
            &format!("{}:{port}", EDGE_A.v4),
            "preserve",
            verified,
            roots,
        ) + &format!("\n[[pool]]\nname = \"{name}\"\nedges = [\"{name}\"]\n")
    };
    let federation = scene.federation.roots();
    text += &edge("contoso", SIP_TLS, EDGE_NAME, federation);
    text += &domain("contoso", "contoso", own);
    for fault in &FAULTS {
        let (verified, roots) = match fault.name {
            "misnamed" => ("other.hoster.example", federation.to_owned()),
            "untrusted" => (EDGE_NAME, scene.mirror_ca()),
            _ => (EDGE_NAME, federation.to_owned()),
        };
        text += &edge(fault.name, fault.port, verified, &roots);
        text += &domain(fault.name, fault.name, own);
    }
    text += "\n[[pool]]\nname = \"both\"\nbalance = \"least-connections\"\nedges = [\"untrusted\", \"contoso\"]\n";
    text + &domain("both", "both", own)
}
