//! DNS-01: by dynamic updates that are signed, without an agent, before anything points at the gateway.

use std::fs;

use anyhow::ensure;
use snigate_tests::lab_test;

use crate::scene::{Scene, ensure_secret, quiet, said};

#[test]
fn dns_01_issues_without_an_agent_and_for_wildcards() {
    lab_test("acme-dns", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _pebble = scene.pebble()?;
        let hook = scene.names.hook(lab, true)?;
        let domains = scene.domain("contoso.example", "true")
            + &scene.domain(
                "adatum.example",
                "{ challenge = \"dns-01\", key_type = \"ecdsa-p256\" }\n\
                 names = [\"sip.adatum.example\", \"*.voip.adatum.example\", \"voip.adatum.example\"]",
            );
        let config = format!("dns_hook = {hook:?}");
        let config = scene.configuration("dns.toml", &config, &domains)?;
        let issued = scene.run(&config, &["cert", "issue", "adatum.example"])?;
        ensure!(issued.status.success(), "{}", said(&issued));
        // This one is proven at port 80 otherwise, where nobody answers yet.
        let arguments = ["cert", "issue", "contoso.example", "--challenge", "dns-01"];
        let issued = scene.run(&config, &arguments)?;
        ensure!(issued.status.success(), "{}", said(&issued));

        let listed = scene.run(&config, &["cert", "ls", "--json"])?;
        ensure!(listed.status.success(), "{}", said(&listed));
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
        let keys = [&listed[0]["key"], &listed[1]["key"]];
        ensure!(keys == ["RSA 2048", "P-256"], "{listed}");
        let names = listed[1]["names"].as_array().map(Vec::len);
        ensure!(names == Some(3), "{listed}");
        for domain in ["contoso.example", "adatum.example"] {
            ensure_secret(&scene.certificate(domain))?;
        }
        // What has proven them is gone.
        for name in ["sip.contoso", "sip.adatum", "voip.adatum"] {
            let name = format!("_acme-challenge.{name}.example");
            let left = scene.names.lookup(lab, "TXT", &name)?;
            ensure!(left.is_empty(), "{name} TXT {left}");
        }
        // There is nothing more to be done.
        let again = scene.run(&config, &["cert", "issue"])?;
        ensure!(again.status.success(), "{}", said(&again));
        ensure!(
            said(&again).matches("its time has not come").count() == 2,
            "{}",
            said(&again)
        );
        Ok(())
    });
}

#[test]
fn a_hook_that_fails_is_quoted_and_nothing_is_left_half_done() {
    lab_test("acme-hook", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _pebble = scene.pebble()?;
        let hook = scene.names.hook(lab, false)?;
        let config = format!("challenge = \"dns-01\"\ndns_hook = {hook:?}");
        let domains = scene.domain("contoso.example", "true");
        let config = scene.configuration("hook.toml", &config, &domains)?;
        let failed = scene.run(&config, &["cert", "issue"])?;
        ensure!(failed.status.code() == Some(1), "{}", said(&failed));
        ensure!(
            said(&failed).contains("_acme-challenge.sip.contoso.example")
                && said(&failed).contains("BADSIG"),
            "{}",
            said(&failed)
        );
        ensure!(!scene.certificate("contoso.example").exists());

        // With the right key, the same order goes on.
        let known = scene.names.hook(lab, true)?;
        fs::copy(known, &hook)?;
        let issued = scene.run(&config, &["cert", "issue", "--force"])?;
        ensure!(issued.status.success(), "{}", said(&issued));
        Ok(())
    });
}
