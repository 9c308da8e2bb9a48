//! Connections of every way are counted by it, and the exposition is what is promised.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use sni_user::metrics::FAMILIES;
use snigate_tests::{
    Lab, addresses::PARTNER, deadline::Deadline, gateway::Gateway, lab_test, peers::open_socket,
};

use crate::{
    TIMEOUT,
    promtool::Promtool,
    scene::{BOUND, HANDED_OFF, OWN, RELAYED, Scene, WAYS, quiet},
    scrape::{ADDRESS, Scrape, get},
};

/// Connections of each way.
const EACH: usize = 2;

/// Scrapes until it is so: sweeps and scrapes have their pauses.
fn until(lab: &Lab, what: &str, is_so: impl Fn(&Scrape) -> Result<bool>) -> Result<Scrape> {
    let poll = || {
        let scrape = Scrape::new(&lab.gateway)?;
        Ok(is_so(&scrape)?.then_some(scrape))
    };
    Deadline::after(TIMEOUT)
        .poll(what, poll)
        .with_context(|| Scrape::new(&lab.gateway).map_or_else(|e| e.to_string(), |it| it.text))
}

#[test]
fn connections_are_told_by_way_route_and_result() {
    lab_test("metrics-ways", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _gateway = scene.gateway("")?;
        let mut open = Vec::new();
        for way in WAYS {
            for _ in 0..EACH {
                open.push(scene.open(way).context(way.name)?);
            }
        }
        let scrape = until(lab, "all of them to be open", |scrape| {
            Ok(WAYS.iter().all(|way| {
                let labels = [
                    &*format!("edge=\"{}\"", way.edge),
                    &*format!("way=\"{}\"", way.name),
                ];
                scrape.sum("snigate_open_connections", &labels) as usize == EACH
            }))
        })?;
        for way in WAYS {
            let opened = format!("snigate_connections_opened_total{{way=\"{}\"}}", way.name);
            let opened = scrape.value(&opened)? as usize;
            // Some may have been relayed for a moment before they were handed off.
            let exactly = way.name != RELAYED.name;
            ensure!(
                opened == EACH || !exactly && opened > EACH,
                "{}: {opened} in\n{}",
                way.name,
                scrape.text
            );
        }
        for connection in open {
            connection.reset()?;
        }
        // The agent's at once, the datapath's ten seconds after the RST.
        let scrape = until(lab, "all of them to be over", |scrape| {
            Ok(WAYS.iter().all(|way| {
                let labels = [
                    &*format!("way=\"{}\"", way.name),
                    &*format!("route=\"{}\"", way.route),
                    "result=\"reset\"",
                ];
                scrape.sum("snigate_connections_ended_total", &labels) as usize == EACH
            }))
        })?;
        let ended = scrape.sum("snigate_connections_ended_total", &[]);
        ensure!(ended as usize == EACH * WAYS.len(), "{}", scrape.text);
        let open = scrape.sum("snigate_open_connections", &[]);
        ensure!(open == 0.0, "{}", scrape.text);
        Ok(())
    });
}

#[test]
fn what_is_not_carried_is_told_by_its_reason() {
    lab_test("metrics-refusals", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _gateway = scene.gateway("")?;
        let unknown = scene.ask("sip.unknown.example", HANDED_OFF.address);
        ensure!(unknown.is_err(), "an unknown name was let in");
        let source = (PARTNER.v4, 0).into();
        let mut plain = lab
            .partner
            .run(|| Ok(open_socket(Some(source), HANDED_OFF.address, TIMEOUT)?))?;
        std::io::Write::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n")?;
        std::io::Read::read_to_end(&mut plain, &mut Vec::new())?;
        let _kept = scene.open(&RELAYED)?;
        let _bound = scene.open(&BOUND)?;
        let _terminated = scene.open(&OWN)?;
        let scrape = until(lab, "two refusals", |scrape| {
            Ok(scrape.sum("snigate_connections_refused_total", &[]) == 2.0)
        })?;
        for (sample, expected) in [
            (
                "snigate_connections_refused_total{reason=\"unrecognized-name\"}",
                1.0,
            ),
            (
                "snigate_connections_refused_total{reason=\"not-tls-http\"}",
                1.0,
            ),
            (
                "snigate_connections_kept_total{reason=\"kept-by-configuration\"}",
                1.0,
            ),
            (
                "snigate_hellos_total{reader=\"agent\",result=\"not-tls-http\"}",
                1.0,
            ),
            // Of the unknown name, of the relayed connection and of the terminated one.
            (
                "snigate_hellos_total{reader=\"agent\",result=\"complete\"}",
                3.0,
            ),
            (
                "snigate_hellos_total{reader=\"datapath\",result=\"bound\"}",
                1.0,
            ),
            ("snigate_hello_seconds_count", 3.0),
            // Of the relayed connection and of the terminated one.
            (
                "snigate_edge_connect_seconds_count{result=\"completed\"}",
                2.0,
            ),
            (
                "snigate_tls_handshake_seconds_count{peer=\"partner\",result=\"completed\"}",
                1.0,
            ),
            (
                "snigate_tls_handshake_seconds_count{peer=\"edge\",result=\"completed\"}",
                1.0,
            ),
        ] {
            let value = scrape.value(sample)?;
            ensure!(value == expected, "{sample} is {value} in\n{}", scrape.text);
        }
        // The terminated one's name is the agent's to decide about; more than once where its ClientHello was repeated.
        let left = "snigate_hellos_total{reader=\"datapath\",result=\"left-name\"}";
        ensure!(scrape.value(left)? >= 1.0, "{}", scrape.text);
        Ok(())
    });
}

/// Every promised family is there, nothing else is, and Prometheus has nothing to criticise.
fn ensure_complete(scrape: &Scrape) -> Result<()> {
    let promised: BTreeSet<_> = FAMILIES
        .iter()
        .copied()
        .flatten()
        .map(|it| it.name)
        .collect();
    let found = scrape.families();
    ensure!(
        found == promised,
        "missing: {:?}; not promised: {:?}",
        promised.difference(&found),
        found.difference(&promised)
    );
    match Promtool::find("metrics-complete") {
        Some(promtool) => promtool.lint(&scrape.text),
        None => Ok(()),
    }
}

#[test]
fn the_exposition_is_complete() {
    lab_test("metrics-complete", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let gateway = scene.gateway("datapath_time = true")?;
        let _open: Vec<_> = WAYS
            .iter()
            .map(|way| scene.open(way))
            .collect::<Result<_>>()?;
        ensure!(
            scene
                .ask("sip.unknown.example", HANDED_OFF.address)
                .is_err()
        );
        let scrape = until(lab, "a sweep", |scrape| {
            Ok(scrape.sum("snigate_open_connections", &[]) as usize == WAYS.len())
        })?;
        ensure_complete(&scrape)?;
        state(&gateway, &scrape)?;
        lab.gateway.run(|| {
            let (head, _) = get(ADDRESS, "/")?;
            ensure!(head.starts_with("HTTP/1.1 404"), "{head}");
            Ok(())
        })?;
        Ok(())
    });
}

/// What the exposition says of the datapath is what the commands say of it.
fn state(gateway: &Gateway<'_>, scrape: &Scrape) -> Result<()> {
    for (sample, expected) in [
        ("snigate_edge_state{edge=\"edge-a\",state=\"up\"}", 1.0),
        ("snigate_edge_state{edge=\"edge-b\",state=\"down\"}", 0.0),
        ("snigate_pool_edges{pool=\"edges-b\",state=\"up\"}", 1.0),
        ("snigate_configuration_generation", 1.0),
        ("snigate_configuration_refused", 0.0),
        ("snigate_configuration_items{kind=\"domains\"}", 2.0),
        ("snigate_configuration_items{kind=\"terminated\"}", 1.0),
        ("snigate_attached{hook=\"xdp\",interface=\"wan0\"}", 1.0),
        ("snigate_binding", 1.0),
        (
            "snigate_certificates{purpose=\"domain\",state=\"valid\"}",
            1.0,
        ),
        (
            "snigate_certificates{purpose=\"gateway\",state=\"valid\"}",
            1.0,
        ),
        // Three flows, two entries each.
        ("snigate_map_entries{map=\"FLOWS\",type=\"hash\"}", 6.0),
    ] {
        let value = scrape.value(sample)?;
        ensure!(value == expected, "{sample} is {value} in\n{}", scrape.text);
    }
    let certificates = gateway.json(&["cert", "ls"])?;
    let domain = &certificates[0];
    let expiry = scrape
        .value("snigate_certificate_earliest_expiry_timestamp_seconds{purpose=\"domain\"}")?;
    ensure!(
        domain["not_after"].as_f64() == Some(expiry),
        "{certificates}"
    );
    for map in gateway.json(&["map", "ls"])?.as_array().context("maps")? {
        let (name, kind) = (&map["name"], &map["kind"]);
        let sample = format!("snigate_map_entries{{map={name},type={kind}}}");
        // Those that nothing comes to or goes from while this is compared.
        if ["SERVICES", "SNI_ROUTES", "LABELS", "ACCOUNTS"]
            .contains(&name.as_str().unwrap_or_default())
        {
            let value = scrape.value(&sample)?;
            ensure!(
                map["entries"].as_f64() == Some(value),
                "{sample} is {value}, and {map}"
            );
        }
    }
    for program in ["snigate_xdp", "snigate_dispatch"] {
        let of = |name: &str| scrape.value(&format!("{name}{{program=\"{program}\"}}"));
        ensure!(of("snigate_datapath_runs_total")? > 0.0);
        ensure!(of("snigate_datapath_run_seconds_total")? > 0.0);
    }
    Ok(())
}

#[test]
fn a_reload_moves_the_endpoint_and_is_told() {
    lab_test("metrics-reload", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let mut gateway = scene.gateway("")?;
        Scrape::new(&lab.gateway)?;

        gateway.configure(
            "metrics = \"127.0.0.1:9462\"\ndatapath_time = true",
            &scene.tables(),
        )?;
        gateway.output(&["reload"])?;
        let moved = std::net::SocketAddr::new(ADDRESS.ip(), 9462);
        let _held = scene.open(WAYS[0])?;
        let ask = |address| lab.gateway.run(|| get(address, "/metrics"));
        ensure!(ask(ADDRESS).is_err(), "the old port answers");
        let scrape = Deadline::after(TIMEOUT).poll("runs to be measured", || {
            let scrape = Scrape::parse(ask(moved)?.1)?;
            let runs = scrape.sum("snigate_datapath_runs_total", &[]);
            Ok((runs > 0.0).then_some(scrape))
        })?;
        ensure!(scrape.value("snigate_configuration_generation")? == 2.0);

        // Another hook's program is loaded only now.
        gateway.set_hook("tcx");
        gateway.configure(
            "metrics = \"127.0.0.1:9462\"\ndatapath_time = true",
            &scene.tables(),
        )?;
        gateway.output(&["reload"])?;
        let _held = scene.open(WAYS[0])?;
        Deadline::after(TIMEOUT).poll("runs of the other program", || {
            let scrape = Scrape::parse(ask(moved)?.1)?;
            let runs = scrape.sum("snigate_datapath_runs_total", &["program=\"snigate_tc\""]);
            Ok((runs > 0.0).then_some(()))
        })?;

        gateway.configure("metrics = \"127.0.0.1:9462\"", "[[edge]]\nname = 7\n")?;
        gateway.refusal(&["reload"])?;
        Deadline::after(TIMEOUT).poll("the refusal to be told", || {
            let scrape = Scrape::parse(ask(moved)?.1)?;
            let refused = scrape.value("snigate_configuration_refused")?;
            Ok((refused == 1.0).then_some(()))
        })
    });
}

#[test]
fn an_address_that_comes_later_is_listened_on() {
    lab_test("metrics-later", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let late = "192.0.2.99:9461";
        let gateway = scene.gateway(&format!("metrics = \"{late}\""))?;
        Deadline::after(TIMEOUT).poll("a word about it", || {
            let said = gateway.log()?.contains("metrics can't be served there");
            Ok(said.then_some(()))
        })?;
        let check = gateway.output(&["check", "--json"])?;
        ensure!(
            check.contains("192.0.2.99:9461 is no address of this host"),
            "{check}"
        );
        lab.gateway.ip("addr add 192.0.2.99/32 dev lo")?;
        Deadline::after(TIMEOUT).poll("the metrics to be served", || {
            let answer = lab.gateway.run(|| get(late.parse()?, "/metrics"));
            Ok(answer.ok())
        })?;
        Ok(())
    });
}
