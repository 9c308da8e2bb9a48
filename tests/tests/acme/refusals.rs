//! An authority that says no, and one that refuses good nonces.

use anyhow::ensure;
use snigate_tests::lab_test;

use crate::scene::{Scene, quiet, said};

#[test]
fn refusals_are_quoted_and_not_asked_for_again_at_once() {
    lab_test("acme-refused", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _pebble = scene.pebble()?;
        let domains =
            scene.domain("blocked.example", "true") + &scene.domain("elsewhere.example", "true");
        let config = scene.configuration("refused.toml", "", &domains)?;
        // One it issues nothing for, and one whose name points somewhere else.
        let refused = scene.run(&config, &["cert", "issue"])?;
        ensure!(refused.status.code() == Some(1), "{}", said(&refused));
        for words in [
            "blocked.example: ordering the certificate",
            "rejectedIdentifier",
            "elsewhere.example: the authority could not prove the names",
            "sip.elsewhere.example",
            "acme:error:connection",
        ] {
            ensure!(
                said(&refused).contains(words),
                "{words}: {}",
                said(&refused)
            );
        }
        let again = scene.run(&config, &["cert", "issue"])?;
        ensure!(again.status.code() == Some(1), "{}", said(&again));
        ensure!(
            said(&again).matches("not asked for another").count() == 2,
            "{}",
            said(&again)
        );
        let forced = scene.run(&config, &["cert", "issue", "--force", "blocked.example"])?;
        ensure!(
            said(&forced).contains("rejectedIdentifier"),
            "{}",
            said(&forced)
        );

        let listed = scene.run(&config, &["cert", "ls", "--json"])?;
        ensure!(listed.status.code() == Some(1), "{}", said(&listed));
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
        ensure!(listed[0]["renewal"]["failures"] == 2, "{listed}");
        ensure!(listed[1]["renewal"]["failures"] == 1, "{listed}");
        ensure!(listed[0]["state"] == "awaited", "{listed}");
        Ok(())
    });
}

#[test]
fn bad_nonces_are_overcome() {
    lab_test("acme-nonces", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let pebble = scene.place.start(lab, &scene.names, 30)?;
        let hook = scene.names.hook(lab, true)?;
        let config = format!("challenge = \"dns-01\"\ndns_hook = {hook:?}");
        let customers: Vec<_> = (0..6).map(|n| format!("customer{n}.example")).collect();
        let domains = customers.iter().map(|name| scene.domain(name, "true"));
        let domains: Vec<_> = domains.collect();
        let config = scene.configuration("nonces.toml", &config, &domains.concat())?;
        // Three bad ones in a row are a failure, after which the same order goes on.
        let mut failed = 0;
        for customer in &customers {
            let mut issued = scene.run(&config, &["cert", "issue", customer])?;
            for _ in 0..20 {
                if issued.status.success() {
                    break;
                }
                ensure!(said(&issued).contains("badNonce"), "{}", said(&issued));
                failed += 1;
                issued = scene.run(&config, &["cert", "issue", "--force", customer])?;
            }
            ensure!(issued.status.success(), "{}", said(&issued));
        }
        // It says nothing of nonces. But a command takes each of the first two requests once if nothing is refused, and an order each of the others.
        let log = pebble.log()?;
        let count = |words: &str| log.matches(words).count();
        let (commands, orders) = (customers.len() + failed, count("Added order"));
        let asked: usize = [
            "sign-me-up",
            "my-account/",
            "order-plz",
            "finalize-order/",
            "certZ/",
        ]
        .map(|request| count(&format!("POST /{request} ")))
        .iter()
        .sum();
        ensure!(orders == customers.len(), "{orders} orders: {log}");
        ensure!(
            failed > 0 || asked > 2 * commands + 3 * orders,
            "no nonce was refused: {log}"
        );
        Ok(())
    });
}
