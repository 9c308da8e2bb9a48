//! `snigate plan` and `snigate dns`.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{Lab, lab_test};

use crate::rig::{fails, ok, quiet};

const LIST: &str = "domain;customer;federation;apart\n\
    fabrikam.example;Fabrikam;;\n\
    bücher.example;Bücher;;\n\
    contoso.example;Contoso;;banks\n\
    woodgrove.example;Woodgrove;;banks\n\
    litware.example;Litware;explicit;\n\
    hoster.example;;;\n";

/// Two addresses and two Edges in both families.
const SITE: &str = "--name sip.hoster.example \
    --address 198.51.100.10,2001:db8:1::10 --edge edges-a=203.0.113.10:5061,[2001:db8::10]:5061 \
    --address 198.51.100.11,2001:db8:1::11 --edge edges-b=203.0.113.11:5061,[2001:db8::11]:5061";

fn json(lab: &Lab, arguments: &str) -> Result<Value> {
    let text = ok(lab, "snigate", arguments)?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

fn strings(value: &Value) -> BTreeSet<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|it| it.as_str().map(str::to_owned))
        .collect()
}

#[test]
fn openssl_takes_the_requests_and_finds_exactly_the_names() {
    lab_test("plan-requests", &quiet(), |lab| {
        lab.write_file("domains.csv", LIST)?;
        let subject = "--subject C=DE --subject O=Bücher#1$2";
        let plan = json(
            lab,
            &format!("plan domains.csv --write plan {subject} --json {SITE}"),
        )?;
        let certificates = plan["certificates"].as_array().context("certificates")?;
        ensure!(certificates.len() == 2, "{plan}");
        for certificate in certificates {
            let name = certificate["name"].as_str().context("a name")?;
            let request = format!("plan/requests/{name}.cnf");
            ok(
                lab,
                "openssl",
                &format!("req -new -config {request} -out {name}.csr"),
            )?;
            ok(
                lab,
                "openssl",
                &format!("req -in {name}.csr -noout -verify"),
            )?;
            let text = ok(
                lab,
                "openssl",
                &format!("req -in {name}.csr -noout -text -nameopt RFC2253,-esc_msb"),
            )?;
            let found: BTreeSet<_> = text
                .split(|character: char| character == ',' || character.is_whitespace())
                .filter_map(|word| word.strip_prefix("DNS:"))
                .map(str::to_owned)
                .collect();
            ensure!(found == strings(&certificate["names"]), "{text}");
            for line in [
                "Subject: CN=sip.hoster.example,O=Bücher#1$2,C=DE",
                "Public-Key: (2048 bit)",
                "Signature Algorithm: sha256WithRSAEncryption",
            ] {
                ensure!(text.contains(line), "{line}: {text}");
            }
            // The extension as it stands in the request is as large as was planned.
            let parsed = ok(lab, "openssl", &format!("asn1parse -in {name}.csr"))?;
            let lines: Vec<_> = parsed.lines().collect();
            let place = lines
                .iter()
                .position(|line| line.ends_with(":X509v3 Subject Alternative Name"))
                .context("the extension")?;
            let around = lines[place - 1];
            let number = |key: &str| -> Result<u64> {
                let (_, rest) = around.split_once(key).context("a length")?;
                let digits = rest.split_whitespace().next();
                Ok(digits.context("a number")?.parse()?)
            };
            let size = number("hl=")? + number(" l=")?;
            ensure!(
                Some(size) == certificate["san_bytes"].as_u64(),
                "{around}: {certificate}"
            );
        }
        Ok(())
    });
}

/// Records as a zone file has them that relies on what stands above, with their whole names.
fn absolute(zone: &str) -> BTreeSet<String> {
    let (mut origin, mut owner) = ("", String::new());
    let mut records = BTreeSet::new();
    for line in zone.lines() {
        let mut words = line.split_whitespace();
        if let Some(now) = line.strip_prefix("$ORIGIN ") {
            origin = now.trim_end_matches('.');
            continue;
        }
        if !line.starts_with(char::is_whitespace) {
            owner = match (words.next().unwrap_or_default(), origin) {
                (first, _) if first.ends_with('.') => first.to_owned(),
                (first, "") => format!("{first}."),
                (first, origin) => format!("{first}.{origin}."),
            };
        }
        let rest: Vec<_> = words.collect();
        records.insert(format!("{owner} {}", rest.join(" ")));
    }
    records
}

#[test]
fn a_name_server_loads_the_records() {
    lab_test("plan-zone", &quiet(), |lab| {
        lab.write_file("domains.csv", LIST)?;
        ok(
            lab,
            "snigate",
            &format!("plan domains.csv --write plan {SITE}"),
        )?;
        let from_config = ok(lab, "snigate", "dns --config plan/snigate.toml --zone")?;
        let records = fs::read_to_string(lab.dir().join("plan/records.zone"))?;
        ensure!(from_config == records, "{from_config}\n{records}");
        let listed = ok(
            lab,
            "snigate",
            "dns --list domains.csv --address 198.51.100.10,198.51.100.20,2001:db8::1 --zone --ttl 60",
        )?;
        ensure!(listed.lines().count() == 5 * 4, "{listed}");
        for (zone, records) in [
            ("example", records),
            ("example", listed),
            (
                "xn--bcher-kva.example",
                ok(
                    lab,
                    "snigate",
                    "dns bücher.example --config plan/snigate.toml --zone",
                )?,
            ),
        ] {
            lab.write_file("records.zone", &records)?;
            let file = lab.write_file(
                "whole.zone",
                "@ 3600 IN SOA ns.hoster.example. admin.hoster.example. 1 3600 900 86400 60\n\
                 @ 3600 IN NS ns.hoster.example.\n\
                 ns.hoster 3600 IN A 192.0.2.53\n\
                 $INCLUDE records.zone\n",
            )?;
            let judged = ok(
                lab,
                "nsd-checkzone",
                &format!("-p {zone} {}", file.display()),
            )?;
            let loaded = absolute(&judged);
            for line in records.lines() {
                ensure!(loaded.contains(line), "{line}: {loaded:?}");
            }
        }
        let table = ok(
            lab,
            "snigate",
            "dns contoso.example --config plan/snigate.toml",
        )?;
        ensure!(
            table.lines().count() == 4 && table.contains("0 0 5061 sip.contoso.example."),
            "{table}"
        );
        let lines = json(lab, "dns contoso.example --config plan/snigate.toml --json")?;
        ensure!(
            lines[0]["type"] == "SRV" && lines[0]["target"] == "sip.contoso.example",
            "{lines}"
        );
        let unknown = fails(
            lab,
            "snigate",
            "dns litware.example --config plan/snigate.toml",
            1,
        )?;
        ensure!(
            unknown.contains("litware.example is none of the domains"),
            "{unknown}"
        );
        Ok(())
    });
}

#[test]
fn the_configuration_is_right_in_every_mode() {
    lab_test("plan-check", &quiet(), |lab| {
        lab.write_file("domains.csv", LIST)?;
        // With one address for two certificates, the server name decides; with a certificate for each customer, too.
        let one = "--name sip.hoster.example --address 198.51.100.10 \
            --edge edges-a=203.0.113.10:5061 --edge edges-b=203.0.113.11:5061,203.0.113.12:5061";
        let own = "--per-customer --name sip.hoster.example --edge-name edge.hoster.example \
            --address 198.51.100.10,2001:db8:1::10 --edge edges=203.0.113.10:5061,[2001:db8::10]:5061";
        for (mode, arguments, treatments) in [
            ("steered", SITE, ["san-1", "steered to edges-a"]),
            ("named", one, ["shared", "by server name, else to edges-a"]),
            ("own", own, ["shared", "by server name, else to edges"]),
        ] {
            let planned = ok(
                lab,
                "snigate",
                &format!("plan domains.csv --write {mode} --state {mode}.json {arguments}"),
            )?;
            ensure!(
                planned.contains(&format!("wrote {mode}/snigate.toml")),
                "{planned}"
            );
            let check = format!("check --offline --config {mode}/snigate.toml");
            let report = json(lab, &format!("{check} --json"))?;
            ensure!(
                report["diagnostics"].as_array().is_some_and(Vec::is_empty),
                "{report}"
            );
            let text = ok(lab, "snigate", &check)?;
            for word in treatments {
                ensure!(text.contains(word), "{mode}: {text}");
            }
            // The main file is the administrator's, the tables are the plan's.
            let main = lab.dir().join(mode).join("snigate.toml");
            fs::write(
                &main,
                fs::read_to_string(&main)?.replace("\"snigate\"", "\"other\""),
            )?;
            let again = format!("plan domains.csv --write {mode} --state {mode}.json {arguments}");
            let again = ok(lab, "snigate", &again)?;
            ensure!(
                again.contains("No certificate has to be issued."),
                "{again}"
            );
            ensure!(fs::read_to_string(&main)?.contains("\"other\""));
            ok(lab, "snigate", &check)?;
        }
        Ok(())
    });
}

#[test]
fn adding_a_domain_moves_nothing_and_says_what_is_issued() {
    lab_test("plan-stable", &quiet(), |lab| {
        let write = |from: usize, to: usize| -> Result<()> {
            let mut text = String::new();
            for n in from..to {
                writeln!(text, "customer{n}.example")?;
            }
            lab.write_file("domains.txt", &text).map(drop)
        };
        let homes = |plan: &Value| -> BTreeSet<(String, String)> {
            let placements = plan["placements"].as_array().into_iter().flatten();
            let home = |it: &Value| (it["domain"].to_string(), it["certificate"].to_string());
            placements.map(home).collect()
        };
        let plan = "plan domains.txt --state state.json --write out --json";
        write(0, 120)?;
        let first = json(lab, plan)?;
        ensure!(
            first["certificates"].as_array().map(Vec::len) == Some(3),
            "{first}"
        );
        ensure!(first["gap"] == 0, "{first}");
        write(0, 121)?;
        let second = json(lab, plan)?;
        ensure!(homes(&second).is_superset(&homes(&first)));
        ensure!(
            second["reissued"].as_array().map(Vec::len) == Some(1),
            "{second}"
        );
        ensure!(second["to_issue"] == second["reissued"], "{second}");
        // Asked what would be, it writes nothing.
        let state = fs::read_to_string(lab.dir().join("state.json"))?;
        write(100, 110)?;
        let dry = json(lab, &format!("{plan} --dry-run --repack"))?;
        ensure!(
            dry["certificates"].as_array().map(Vec::len) == Some(1),
            "{dry}"
        );
        ensure!(fs::read_to_string(lab.dir().join("state.json"))? == state);
        let requests = || fs::read_dir(lab.dir().join("out/requests")).map(Iterator::count);
        ensure!(requests()? == 3);
        json(lab, &format!("{plan} --repack"))?;
        ensure!(
            requests()? == 1,
            "requests of certificates that are no more are gone"
        );
        let why = ok(
            lab,
            "snigate",
            "plan domains.txt --state state.json --explain=customer105.example",
        )?;
        ensure!(
            why.contains("where the former plan has it") && why.lines().count() == 2,
            "{why}"
        );
        Ok(())
    });
}

#[test]
fn mistakes_are_reported_at_once_and_nothing_is_written() {
    lab_test("plan-mistakes", &quiet(), |lab| {
        lab.write_file(
            "bad.csv",
            "domain,federation\na_b.example,open\nx.example,opn\nx.example,open\n",
        )?;
        let found = fails(
            lab,
            "snigate",
            "plan bad.csv --write out --state state.json",
            1,
        )?;
        for line in [
            "bad.csv:2:1",
            "bad.csv:3:11",
            "bad.csv:4:1",
            "write `open`",
            "2 errors, 1 warning",
        ] {
            ensure!(found.contains(line), "{line}: {found}");
        }
        lab.write_file("good.csv", LIST)?;
        let few = "plan good.csv --write out --name sip.hoster.example --address 198.51.100.10 --edge a=203.0.113.10:5061";
        let found = fails(lab, "snigate", few, 2)?;
        ensure!(
            found.contains("2 certificates need as many Edges")
                && found.contains("nothing was written"),
            "{found}"
        );
        let mixed = format!(
            "plan good.csv --write out {}",
            SITE.replace(",[2001:db8::10]:5061", "")
        );
        let found = fails(lab, "snigate", &mixed, 2)?;
        ensure!(found.contains("don't make a configuration"), "{found}");
        lab.write_file("state.json", "{\"version\": 7}")?;
        let found = fails(
            lab,
            "snigate",
            "plan good.csv --name sip.hoster.example --state state.json",
            1,
        )?;
        ensure!(found.contains("version 7"), "{found}");
        ensure!(!lab.dir().join("out").exists());
        Ok(())
    });
}

#[test]
fn ten_thousand_domains_are_planned_at_the_bound_or_next_to_it() {
    lab_test("plan-many", &quiet(), |lab| {
        let mut text = String::from("domain,customer\n");
        for n in 0..10_000u32 {
            // Lengths as domains have them, none twice, in no order.
            let spread = n.wrapping_mul(2_654_435_761);
            let word = "abcdefghijklmnopqrstuvwxyz"
                .get(..(spread % 23) as usize)
                .unwrap_or_default();
            writeln!(text, "{word}{n}.example,customer {}", n / 3)?;
        }
        lab.write_file("many.csv", &text)?;
        let plan = json(lab, "plan many.csv --name edge.hoster.example --json")?;
        let certificates = plan["certificates"].as_array().context("certificates")?;
        ensure!(
            certificates
                .iter()
                .all(|it| it["san_bytes"].as_u64() <= Some(1024))
        );
        let (found, bound) = (certificates.len() as u64, plan["lower_bound"].as_u64());
        ensure!(
            bound.is_some_and(|bound| found <= bound + bound / 100),
            "{found} {bound:?}"
        );
        let placed: usize = certificates
            .iter()
            .map(|it| it["domains"].as_array().map_or(0, Vec::len))
            .sum();
        ensure!(placed == 10_000);
        ensure!(
            plan["statistics"]["peak_memory_bytes"].as_u64().is_some(),
            "{}",
            plan["statistics"]
        );
        Ok(())
    });
}
