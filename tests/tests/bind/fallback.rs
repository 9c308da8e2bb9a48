//! What the datapath can't bind: the agent takes it as before, and what it passes through can still be handed off.

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    addresses::{SIP_TLS, vips},
    gateway::{Gateway, Tuning},
    lab_test,
    peers::{
        Answer, Edge, EdgeTls, Partner, PartnerTls, Segments, captured_hello, client_hello, replay,
    },
    pki::Pki,
};

use crate::{
    BOUND, DOMAINS, HANDED_OFF, HOOKS, NAME, OTHER, SOURCES, Scene, TIMEOUT, config, in_scenes,
    on_hooks, quiet,
};

/// A wildcard beside the exact names.
const WILDCARD: &str = r#"
[[domain]]
sip_domain = "litware.example"
names = ["*.litware.example"]
pool = "edges-b"
"#;

/// A connection for which this counter goes up.
fn counting(scene: &Scene<'_>, counter: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = scene.counter(counter)?;
    body()?;
    let added = scene.counter(counter)? - before;
    ensure!(added > 0, "{counter} stands still");
    Ok(())
}

#[test]
fn names_that_are_not_in_the_maps_are_the_agents_until_it_has_learned_them() {
    in_scenes("names", &quiet(), |scene| {
        let _edges = scene.edges()?;
        let tables = format!("{DOMAINS}{WILDCARD}");
        scene.configure("default = \"edges-a\"", &tables)?;
        for address in vips() {
            counting(scene, "bound", || scene.reaches(address, NAME, "a", BOUND))?;
            counting(scene, "bound", || scene.reaches(address, OTHER, "b", BOUND))?;
        }
        // What is learned holds for both families.
        for (address, number) in vips().into_iter().zip([1, 2]) {
            for (stem, edge) in [("litware.example", "b"), ("unheard-of.example", "a")] {
                let name = format!("n{number}.{stem}");
                counting(scene, "left-name", || {
                    scene.reaches(address, &name, edge, HANDED_OFF)
                })?;
                for address in vips() {
                    counting(scene, "bound", || {
                        scene.reaches(address, &name, edge, BOUND)
                    })?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn options_survive_the_cookie() {
    in_scenes("options", &quiet(), |scene| {
        let _edges = scene.edges()?;
        scene.configure("default = \"edges-a\"", DOMAINS)?;
        let announced = scene.gateway.borrow().json(&["status"])?["announced"].clone();
        let scale = announced["scale"].as_u64().context("a scale")?;
        for (number, address) in vips().into_iter().enumerate() {
            let unknown = client_hello(&format!("options-{number}.example"))?;
            for (hello, way) in [(unknown, HANDED_OFF), (client_hello(NAME)?, BOUND)] {
                let mut client = scene.open(address, &hello)?;
                scene.goes(&client, "a", way)?;
                let options = client.options()?;
                ensure!(
                    options.timestamps && options.sack && options.scaling,
                    "{way}: {options:?}"
                );
                ensure!(
                    u64::from(options.peer_scale) == scale,
                    "{way}: {options:?}, and {scale} was announced"
                );
                // Timestamps take twelve bytes of it.
                let largest = if address.is_ipv4() { 1460 } else { 1440 } - 12;
                ensure!(options.mss == largest, "{way}: {options:?}");
                client.ping()?;
                client.close()?;
            }
        }
        Ok(())
    });
}

#[test]
fn what_names_nobody_or_is_no_hello_is_left_to_the_agent() {
    on_hooks("no-name", &quiet(), |scene| {
        let _edges = scene.edges()?;
        scene.configure("default = \"edges-b\"", DOMAINS)?;
        for address in vips() {
            for program in ["openssl-no-name", "gnutls-no-name"] {
                let hello = captured_hello(program)?;
                counting(scene, "left-hello", || {
                    let mut client = scene.open(address, &hello)?;
                    scene.goes(&client, "b", HANDED_OFF)?;
                    client.ping()?;
                    client.close()
                })
                .with_context(|| format!("{program} to {address}"))?;
            }
            let (http, sip) = (
                &b"GET / HTTP/1.1\r\nHost: sip.fabrikam.example\r\n\r\n"[..],
                &b"OPTIONS sip:sip.fabrikam.example SIP/2.0\r\n\r\n"[..],
            );
            for bytes in [http, sip, b"x", b"\x16\x03\x01\0\0"] {
                counting(scene, "left-hello", || {
                    let partner = &scene.lab.partner;
                    // Less than a record is waited for in vain, and that takes its time; a reset is no answer.
                    if bytes.len() < 6 {
                        let mut stream = crate::client::connect(partner, None, address)?;
                        std::io::Write::write_all(&mut stream, bytes)?;
                        stream.shutdown(std::net::Shutdown::Write)?;
                        let mut answer = Vec::new();
                        std::io::Read::read_to_end(&mut stream, &mut answer)?;
                        return Ok(());
                    }
                    let answer = replay(partner, address, bytes, Segments::Few, TIMEOUT)?;
                    ensure!(answer == Answer::Closed, "{answer:?}");
                    Ok(())
                })
                .with_context(|| format!("{:?} to {address}", String::from_utf8_lossy(bytes)))?;
            }
            // And what is known is bound all the while.
            scene.reaches(address, NAME, "a", BOUND)?;
        }
        Ok(())
    });
}

#[test]
fn a_changed_route_holds_for_the_next_connection() {
    on_hooks("routes", &quiet(), |scene| {
        let _edges = scene.edges()?;
        let wildcard = |pool: &str| {
            format!(
                "{DOMAINS}{}",
                WILDCARD.replace("\"edges-b\"", &format!("{pool:?}"))
            )
        };
        scene.configure("", &wildcard("edges-b"))?;
        let learned = "voip.litware.example";
        let mut held = Vec::new();
        for address in vips() {
            held.push(scene.open(address, &client_hello(NAME)?)?);
        }
        scene.reaches(vips()[0], learned, "b", HANDED_OFF)?;
        for address in vips() {
            scene.reaches(address, NAME, "a", BOUND)?;
            scene.reaches(address, learned, "b", BOUND)?;
        }
        // Both go elsewhere; what was learned is worth nothing any more.
        let moved = wildcard("edges-a").replacen("\"edges-a\"", "\"edges-b\"", 1);
        scene.configure("", &moved)?;
        scene.reaches(vips()[0], learned, "a", HANDED_OFF)?;
        for address in vips() {
            scene.reaches(address, NAME, "b", BOUND)?;
            scene.reaches(address, learned, "a", BOUND)?;
        }
        // Neither is there any more.
        let (_, others) = DOMAINS.split_once("\n\n").context("several domains")?;
        scene.configure("", others)?;
        for address in vips() {
            for name in [NAME, learned] {
                let hello = client_hello(name)?;
                let answer = replay(&scene.lab.partner, address, &hello, Segments::Few, TIMEOUT)?;
                ensure!(answer == Answer::UNRECOGNIZED_NAME, "{name}: {answer:?}");
            }
            scene.reaches(address, OTHER, "b", BOUND)?;
        }
        for (client, address) in held.iter_mut().zip(vips()) {
            client
                .ping()
                .with_context(|| format!("{address}, from before all that"))?;
        }
        Ok(())
    });
}

#[test]
fn without_bind_nothing_is_bound() {
    on_hooks("off", &quiet(), |scene| {
        let _edges = scene.edges()?;
        for address in vips() {
            scene.reaches(address, NAME, "a", BOUND)?;
        }
        for (mode, way) in [
            ("bind = false", HANDED_OFF),
            ("hand_off = false", "relayed"),
        ] {
            scene.configure(mode, DOMAINS)?;
            let before = (scene.counter("cookies")?, scene.counter("bound")?);
            for address in vips() {
                scene.reaches(address, NAME, "a", way)?;
            }
            let after = (scene.counter("cookies")?, scene.counter("bound")?);
            ensure!(before == after, "{mode}: {before:?}, {after:?}");
        }
        scene.configure("", DOMAINS)?;
        for address in vips() {
            scene.reaches(address, NAME, "a", BOUND)?;
        }
        Ok(())
    });
}

#[test]
fn what_ends_at_the_gateway_is_the_agents() {
    for hook in HOOKS {
        lab_test(&format!("bind-terminated-{hook}"), &quiet(), |lab| {
            let pki = Pki::new("federation", &lab.dir())?;
            let name = "sip.tailspin.example";
            let (own, edge) = (
                pki.server("tailspin", &[name])?,
                pki.server("edge", &["edge.hoster.example"])?,
            );
            let gateway = pki.server("gateway", &["gateway.hoster.example"])?;
            let tables = format!(
                "[identity]\ngateway_certificate = {:?}\ngateway_key = {:?}\n{}\
                 [[domain]]\nsip_domain = \"tailspin.example\"\npool = \"edges-a\"\ncertificate = {:?}\nkey = {:?}\n\
                 client_roots = {:?}\nclient_certificate = \"required\"\nidentity = \"gateway\"\n",
                gateway.chain,
                gateway.key,
                config(SOURCES[0], "", DOMAINS).replace(
                    "source = \"preserve\"",
                    &format!(
                        "tls = {{ name = \"edge.hoster.example\", roots = {:?} }}",
                        pki.roots()
                    )
                ),
                own.chain,
                own.key,
                pki.roots()
            );
            let _edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&EdgeTls::new(&edge, &pki)?))?;
            let tuning = Tuning {
                hook: Some(hook),
                ..Tuning::default()
            };
            let gateway = Gateway::start_tuned(lab, tuning, "", &tables)?;
            let scene = Scene {
                lab,
                gateway: gateway.into(),
                source: SOURCES[0],
            };
            let identity = pki.server("partner", &["sip.partner.example"])?;
            let tls = PartnerTls::new(name, &identity, &pki, None)?;
            let partner = Partner {
                namespace: &lab.partner,
                source: None,
                tls: Some(&tls),
                timeout: TIMEOUT,
            };
            for address in vips() {
                // The second one is learned, and stays the agent's all the same.
                for _ in 0..2 {
                    counting(&scene, "left-name", || {
                        let mut connection = partner.echo(address)?;
                        connection.ping()?;
                        let flow = scene.flow(connection.local())?;
                        ensure!(flow["way"] != BOUND && flow["way"] != HANDED_OFF, "{flow}");
                        connection.close()?;
                        Ok(())
                    })?;
                }
            }
            ensure!(scene.counter("bound")? == 0, "what ends here was bound");
            Ok(())
        });
    }
}
