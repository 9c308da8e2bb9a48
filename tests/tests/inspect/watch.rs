//! Every ClientHello as it comes.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use snigate_tests::{
    Lab, Process, Topology,
    addresses::{PARTNER, VIP_1, at, partner},
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
    peers::{Partner, PartnerTls, TlsVersion},
};

use crate::{
    TIMEOUT, both,
    federation::{Federation, domain, ip_set},
    quiet, tcp,
};

/// More than the agent keeps for a watcher, and than the socket holds.
const FLOOD: usize = 3000;

/// Names that are asked for only until a watcher has begun.
const BEGINS: [&str; 2] = ["edge.hoster.example", "begin.voip.adatum.example"];

/// `snigate watch`, which has begun: its first hello has been seen.
fn watching(
    lab: &Lab,
    gateway: &Gateway<'_>,
    name: &str,
    options: &[&str],
    begin: impl Fn() -> Result<()>,
) -> Result<Process> {
    let command = gateway.prepared(&[&["watch"], options].concat())?;
    let watcher = lab.spawn(name, command)?;
    Deadline::after(TIMEOUT).poll("a watcher's first line", || {
        begin()?;
        Ok(watcher
            .stdout()?
            .lines()
            .nth(usize::from(!options.contains(&"--json")))
            .map(drop))
    })?;
    Ok(watcher)
}

/// The lines of a watcher about these names, parsed, once there are as many as expected.
fn seen(watcher: &Process, expected: usize) -> Result<Vec<Value>> {
    Deadline::after(TIMEOUT).poll("what a watcher has to show", || {
        let output = watcher.stdout()?;
        let lines = output
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
        let lines: Vec<Value> = lines.collect::<Result<_>>()?;
        let lines: Vec<_> = lines
            .into_iter()
            .filter(|line| !BEGINS.iter().any(|name| line["server_name"] == *name))
            .collect();
        Ok((lines.len() >= expected).then_some(lines))
    })
}

#[test]
fn every_connection_is_shown() {
    let topology = Topology {
        partner_addresses: 2,
        ..quiet()
    };
    lab_test("watch-series", &topology, |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", VIP_1, "inspect = true\nbind = false")
            + &domain("contoso.example", "edges-a")
            + &domain("hoster.example", "edges-b")
                .replace("pool", "names = [\"edge.hoster.example\"]\npool")
            + "[[domain]]\nsip_domain = \"adatum.example\"\nnames = [\"*.voip.adatum.example\"]\npool = \"edges-b\"\n"
            + &federation.terminated("tailspin.example", "edges-a")?;
        let gateway = Gateway::start(lab, &tables)?;
        let probe = || federation.reach(BEGINS[0], at(VIP_1.v4.into())).map(drop);
        let all = watching(lab, &gateway, "watch-all", &["--json"], probe)?;
        let voip = watching(
            lab,
            &gateway,
            "watch-voip",
            &["--json", "--name", "*.VOIP.adatum.example"],
            || federation.reach(BEGINS[1], at(VIP_1.v4.into())).map(drop),
        )?;
        let other = partner(1);
        let from_other = format!("{}/32", other.v4);
        let second = watching(
            lab,
            &gateway,
            "watch-source",
            &["--json", "--source", &from_other],
            || {
                let tls = federation.tls(BEGINS[0])?;
                let partner = Partner {
                    tls: Some(&tls),
                    source: Some((other.v4, 0).into()),
                    ..tcp(lab)
                };
                partner.echo(at(VIP_1.v4.into()))?.close().map(drop)
            },
        )?;
        let text = watching(lab, &gateway, "watch-text", &[], probe)?;

        // Source, address, server name, version, route, matched, result.
        let mut expected = BTreeSet::new();
        let mut expect = |source: SocketAddr, address: SocketAddr, rest: [Value; 5]| {
            let [name, version, route, matched, result] = rest;
            expected.insert(
                json!([
                    source.to_string(),
                    address.to_string(),
                    name,
                    version,
                    route,
                    matched,
                    result
                ])
                .to_string(),
            );
        };
        for (family, address) in both(VIP_1).into_iter().enumerate() {
            let edge = |letter: &str| format!("edge-{letter}-v{}", [4, 6][family]);
            for source in [PARTNER, other].map(|host| host.both()[family]) {
                for (version, number) in [(TlsVersion::V12, "1.2"), (TlsVersion::V13, "1.3")] {
                    for (name, route, matched, result) in [
                        (
                            "sip.contoso.example",
                            "edges-a",
                            "exact",
                            format!("passed to {}", edge("a")),
                        ),
                        (
                            "b.voip.adatum.example",
                            "edges-b",
                            "wildcard",
                            format!("passed to {}", edge("b")),
                        ),
                        (
                            "sip.tailspin.example",
                            "terminate edges-a",
                            "exact",
                            format!("terminated to {}", edge("a")),
                        ),
                    ] {
                        let tls = PartnerTls::new(
                            name,
                            &federation.partner,
                            &federation.pki,
                            Some(version),
                        )?;
                        let partner = Partner {
                            tls: Some(&tls),
                            source: Some(SocketAddr::new(source, 0)),
                            ..tcp(lab)
                        };
                        let connection = partner.echo(address)?;
                        expect(
                            connection.local(),
                            address,
                            [
                                json!(name),
                                json!(number),
                                json!(route),
                                json!(matched),
                                json!(result),
                            ],
                        );
                        connection.close()?;
                    }
                }
            }
            // Refused ones: a name that nobody has, and no TLS at all.
            let refused = federation.open("sip.nobody.example", address).err();
            refused.context("a name that nobody has was not refused")?;
            let local = lab.partner.run(|| plain(address))?;
            expect(
                local,
                address,
                [
                    Value::Null,
                    Value::Null,
                    Value::Null,
                    Value::Null,
                    json!("refused: not-tls-http"),
                ],
            );
        }

        let shown = seen(&all, expected.len() + 2)?;
        let (strangers, shown): (Vec<_>, Vec<_>) = shown
            .into_iter()
            .partition(|line| line["server_name"] == "sip.nobody.example");
        ensure!(
            strangers.len() == 2
                && strangers.iter().all(|line| line["route"].is_null()
                    && line["matched"] == "nothing"
                    && line["result"] == "refused: unrecognized-name"),
            "{strangers:?}"
        );
        let rows: BTreeSet<String> = shown
            .iter()
            .map(|line| {
                json!([
                    line["source"],
                    line["address"],
                    line["server_name"],
                    line["version"],
                    line["route"],
                    line["matched"],
                    line["result"]
                ])
                .to_string()
            })
            .collect();
        ensure!(
            rows == expected,
            "shown and not expected: {:#?}\nexpected and not shown: {:#?}",
            rows.difference(&expected).collect::<Vec<_>>(),
            expected.difference(&rows).collect::<Vec<_>>()
        );
        let times: Vec<_> = shown
            .iter()
            .map(|line| line["at"].as_str().unwrap_or_default().to_owned())
            .collect();
        ensure!(
            times
                .iter()
                .all(|time| time.len() == "2026-01-01T00:00:00.000Z".len() && time.ends_with('Z')),
            "{times:?}"
        );
        ensure!(times.is_sorted(), "{times:?}");
        ensure!(
            shown.iter().all(|line| line["server_name"].is_null()
                || line["ja4"]
                    .as_str()
                    .is_some_and(|ja4| ja4.starts_with("t1"))),
            "{shown:?}"
        );

        // What does not pass a filter is not shown.
        let shown = seen(&voip, 8)?;
        ensure!(
            shown.iter().all(|line| line["server_name"]
                .as_str()
                .is_some_and(|name| name.ends_with(".voip.adatum.example"))),
            "{shown:?}"
        );
        let shown = seen(&second, 6)?;
        ensure!(
            shown.iter().all(|line| line["source"]
                .as_str()
                .is_some_and(|source| source.starts_with(&format!("{}:", other.v4)))),
            "{shown:?}"
        );
        // For people: the same, below headings.
        let text = text.stdout()?;
        let heading = text.lines().next().unwrap_or_default();
        for word in [
            "TIME (UTC)",
            "SOURCE",
            "ADDRESS",
            "SERVER NAME",
            "TLS",
            "ROUTE",
            "RESULT",
        ] {
            ensure!(heading.contains(word), "{heading}");
        }
        let line = text.lines().find(|line| {
            line.contains("sip.tailspin.example") && line.contains(&PARTNER.v4.to_string())
        });
        let line = line.with_context(|| format!("in {text}"))?;
        ensure!(
            line.contains("terminate edges-a") && line.ends_with("terminated to edge-a-v4"),
            "{line}"
        );
        Ok(())
    });
}

/// Sends something that is not TLS, from the caller's own namespace, and returns the end it was sent from.
fn plain(address: SocketAddr) -> Result<SocketAddr> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let local = stream.local_addr()?;
    // Until the gateway has closed, or reset it.
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    Ok(local)
}

#[test]
fn a_watcher_that_does_not_read_stops_nobody() {
    lab_test("watch-slow", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", VIP_1, "inspect = true\nbind = false")
            + "[limits]\nsyn_per_source = \"100000/s\"\nhello_per_source = \"100000/s\"\n"
            + &domain("contoso.example", "edges-a");
        let gateway = Gateway::start(lab, &tables)?;
        let address = at(VIP_1.v4.into());
        let mut open = federation.open("sip.contoso.example", address)?;

        let mut slow = UnixStream::connect(gateway.control())?;
        slow.write_all(b"{\"version\":1,\"request\":\"watch\"}\n")?;
        slow.set_read_timeout(Some(TIMEOUT))?;
        let mut slow = BufReader::new(slow);
        let mut line = String::new();
        slow.read_line(&mut line)?;
        ensure!(line.contains("\"watching\":true"), "{line}");

        let flood: Vec<_> = (0..4)
            .map(|_| {
                let body = move || (0..FLOOD / 4).try_for_each(|_| plain(address).map(drop));
                lab.partner.thread("flood", body)
            })
            .collect::<Result<_>>()?;
        for client in flood {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        // New connections, open ones and commands go on.
        federation.reach("sip.contoso.example", address)?;
        open.ping()?;
        gateway.output(&["reload"])?;
        let counters = gateway.json(&["status"])?["agent"]["counters"].clone();
        ensure!(counters["not-tls-http"] == FLOOD, "{counters}");

        // And nothing is missing that is not said to be: the last one shown is the connection after all the others.
        let (mut shown, mut lost) = (0, 0);
        loop {
            line.clear();
            slow.read_line(&mut line)?;
            let notice: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            if let Some(count) = notice["lost"].as_u64() {
                lost += count;
                continue;
            }
            if notice["hello"]["server_name"] == "sip.contoso.example" {
                break;
            }
            ensure!(
                notice["hello"]["result"] == "refused: not-tls-http",
                "{notice}"
            );
            shown += 1;
        }
        ensure!(
            lost > 0 && shown + lost == FLOOD as u64,
            "{shown} shown, {lost} lost of {FLOOD}"
        );
        open.ping()?;
        Ok(())
    });
}
