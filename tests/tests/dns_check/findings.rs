//! Every finding, each where it belongs and nowhere else.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sni_user::federation::Kind;
use snigate_tests::{Lab, lab_test, output_within};

use crate::{
    cases::{CASES, ELSEWHERE},
    dns::Nsd,
    scene::{COMMAND, Scene, check, configuration, found, prepared, topology, usual, write, zone},
};

#[test]
fn every_finding_has_a_case() {
    let found = CASES.iter().flat_map(|case| case.found).chain(&ELSEWHERE);
    let found: BTreeSet<&str> = found.copied().collect();
    let all: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.id()).collect();
    assert_eq!(found, all);
}

/// The zones of the cases; the parents of the last two are served by nobody.
fn zones() -> [(&'static str, String); 3] {
    [
        ("example", zone(CASES)),
        (
            "_tcp.caa-failed.test",
            "_sipfederationtls SRV 0 0 5061 sip.caa-failed.test.\n".to_owned(),
        ),
        ("sip.caa-failed.test", "@ A 198.51.100.10\n".to_owned()),
    ]
}

#[test]
fn what_is_wrong_is_found_and_nothing_else() {
    lab_test("dns-check-findings", &topology(), |lab| {
        let _dns = Nsd::start(lab, &zones())?;
        let scene = Scene::start(lab, CASES)?;
        let config = write(
            lab,
            &configuration(CASES.iter().map(|it| (it.domain, it.names))),
        )?;
        let usual = usual(&scene.pki);
        let usual: Vec<&str> = usual.iter().map(String::as_str).collect();

        let arguments = [&usual[..], &["--caa", "ca.example"]].concat();
        let (report, is_well) = check(lab, &config, &arguments)?;
        ensure!(!is_well, "nothing is wrong, it says");
        all_as_expected(&report)?;
        consistent(&report)?;

        let only = |domain: &str, more: &[&str]| {
            let arguments = [&usual[..], &["--domain", domain], more].concat();
            check(lab, &config, &arguments)
        };
        // Of an authority that nobody knows, it is asked for.
        let (report, is_well) = only("caa-right.example", &[])?;
        ensure!(is_well && found(&report, "caa-right.example")? == ["caa-unknown"]);
        // Warnings are no failure unless they are meant to be one, and what is known need not be said.
        let (report, is_well) = only("srv-several.example", &[])?;
        ensure!(is_well && found(&report, "srv-several.example")? == ["srv-several"]);
        ensure!(!only("srv-several.example", &["--strict"])?.1);
        let (report, is_well) = only("expired.example", &["--ignore", "certificate-expired"])?;
        ensure!(is_well && found(&report, "expired.example")?.is_empty());
        // How soon is soon.
        let (report, _) = only("right.example", &["--soon", "1y"])?;
        ensure!(found(&report, "right.example")? == ["certificate-expiring"]);
        told_to_people(lab, &config, &usual)
    });
}

fn all_as_expected(report: &Value) -> Result<()> {
    let mut wrong = Vec::new();
    for case in CASES {
        let found = found(report, case.domain)?;
        let mut expected = case.found.to_vec();
        expected.sort_unstable();
        if found != expected {
            let domains = report["domains"].as_array().context("domains")?;
            let whole = domains.iter().find(|it| it["domain"] == case.domain);
            wrong.push(format!(
                "{}: {found:?} and not {expected:?}: {whole:#?}",
                case.domain
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The report says the same in different places.
fn consistent(report: &Value) -> Result<()> {
    let domains = report["domains"].as_array().context("domains")?;
    let order = domains
        .iter()
        .map(|it| it["domain"].as_str().unwrap_or_default());
    ensure!(
        order.eq(CASES.iter().map(|case| case.domain)),
        "another order"
    );
    ensure!(report["summary"]["domains"] == CASES.len());
    ensure!(report["summary"]["findings"]["chain-order"] == 1);
    let findings = domains.iter().filter_map(|it| it["findings"].as_array());
    let findings: Vec<_> = findings.flatten().collect();
    for (number, severity) in [
        ("errors", "error"),
        ("warnings", "warning"),
        ("notes", "note"),
    ] {
        let counted = findings
            .iter()
            .filter(|it| it["severity"] == severity)
            .count();
        ensure!(report["summary"][number] == counted, "{number}: {counted}");
    }
    for finding in findings {
        let says = |key: &str| finding[key].as_str().is_some_and(|it| it.len() > 4);
        ensure!(says("message") && says("mend"), "{finding}");
    }
    let right = domains.iter().find(|it| it["domain"] == "both.example");
    let right = right.context("both.example")?;
    ensure!(
        right["target"] == "sip.both.example" && right["port"] == 5061,
        "{right}"
    );
    ensure!(
        right["addresses"] == serde_json::json!(["198.51.100.10", "2001:db8:1::10"]),
        "{right}"
    );
    ensure!(right["tls"] == serde_json::json!(["1.2", "1.3"]), "{right}");
    ensure!(
        right["certificate"]["subject"] == "sip.both.example",
        "{right}"
    );
    // One list, however many certificates name it.
    let lists = report["work"]["revocation_lists"]["all"]
        .as_u64()
        .context("lists")?;
    ensure!(lists < 12, "{lists} fetches of revocation lists");
    Ok(())
}

fn told_to_people(lab: &Lab, config: &std::path::Path, usual: &[&str]) -> Result<()> {
    let chosen = ["--domain", "expired.example", "--domain", "right.example"];
    let arguments = [usual, &chosen].concat();
    let output = output_within(&mut prepared(lab, config, &arguments)?, COMMAND)?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1), "{output:?}");
    let line = text
        .lines()
        .find(|line| line.starts_with("expired.example"));
    let line = line.with_context(|| text.to_string())?;
    ensure!(
        line.contains("error") && line.contains("certificate-expired"),
        "{line}"
    );
    let summary = text.lines().last().context("nothing")?;
    let expected = "2 domains, 1 without errors and warnings: 1 error, 0 warnings, 0 notes; DNS by 198.51.100.1:5300";
    ensure!(summary == expected, "{summary}");
    Ok(())
}
