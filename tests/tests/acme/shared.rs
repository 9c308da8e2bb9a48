//! A group of gateways: whichever the authority asks, it gets the answer.

use std::fs;

use anyhow::ensure;
use snigate_tests::{deadline::Deadline, gateway::Gateway, lab_test};

use crate::{
    TIMEOUT,
    names::script,
    scene::{Scene, get, quiet, said, wait_for_certificate},
};

/// The running gateway has tokens of its own domain and of the other gateway's, which has neither its state nor its account. Every address leads to the
/// running one.
#[test]
fn a_gateway_answers_the_tokens_of_another() {
    lab_test("acme-shared", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _pebble = scene.pebble()?;
        let shared = lab.dir().join("shared-tokens");
        let tokens = format!("tokens = {shared:?}");
        let tables = scene.tables(&tokens, &scene.domain("contoso.example", "true"));
        let gateway = Gateway::start(lab, &tables)?;
        wait_for_certificate(&gateway, &scene.certificate("contoso.example"))?;

        let state = lab.dir().join("other-state");
        let other = scene.domain("fabrikam.example", "true");
        let acme = format!("{tokens}\nstate = {state:?}");
        let config = scene.configuration("other.toml", &acme, &other)?;
        let issued = scene.run(&config, &["cert", "issue"])?;
        ensure!(issued.status.success(), "{}", said(&issued));
        ensure!(state.join("certs/fabrikam.example.pem").exists());
        ensure!(!scene.certificate("fabrikam.example").exists());
        let own = fs::read(scene.state().join("account.key"))?;
        ensure!(fs::read(state.join("account.key"))? != own, "one account");

        // By a program, where no directory is shared.
        let copy = format!(
            "#!/bin/sh\nset -eu\n[ \"$2\" = http-01 ]\ncase $1 in\nadd) printf %s \"$4\" > {dir}/\"$3\" ;;\nremove) rm {dir}/\"$3\" ;;\nesac\n",
            dir = shared.display()
        );
        let copy = script(lab, "copy-hook", &copy)?;
        let state = lab.dir().join("third-state");
        let acme = format!("http_hook = {copy:?}\nstate = {state:?}");
        let third = scene.domain("litware.example", "true");
        let config = scene.configuration("third.toml", &acme, &third)?;
        let issued = scene.run(&config, &["cert", "issue"])?;
        ensure!(issued.status.success(), "{}", said(&issued));
        ensure!(state.join("certs/litware.example.pem").exists());
        ensure!(fs::read_dir(&shared)?.count() == 0, "a token is left");
        Ok(())
    });
}

/// With one state directory, one gateway asks and both have the certificate.
#[test]
fn a_certificate_that_another_gateway_has_got_is_taken_up() {
    lab_test("acme-state", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _pebble = scene.pebble()?;
        let hook = scene.names.hook(lab, true)?;
        let acme = format!("dns_hook = {hook:?}");
        // The running one can't prove it by itself: nothing answers at port 80 where the name points.
        let domain = scene.domain("elsewhere.example", "true");
        let gateway = Gateway::start(lab, &scene.tables(&acme, &domain))?;
        let failing = || {
            Ok(gateway
                .log()?
                .contains("could not prove the names")
                .then_some(()))
        };
        Deadline::after(TIMEOUT).poll("the failure", failing)?;
        let config = scene.configuration("other.toml", &acme, &domain)?;
        let issue = || {
            let arguments = ["cert", "issue", "--force", "--challenge", "dns-01"];
            let issued = scene.run(&config, &arguments)?;
            // The agent may be at it.
            Ok(issued.status.success().then_some(()))
        };
        Deadline::after(TIMEOUT).poll("the certificate", issue)?;
        let active = || Ok((gateway.json(&["cert", "ls"])?[0]["state"] == "valid").then_some(()));
        Deadline::after(TIMEOUT).poll("a valid one", active)?;
        let reloaded = || Ok(gateway.log()?.contains("a file has changed").then_some(()));
        Deadline::after(TIMEOUT).poll("the reload", reloaded)?;
        let path = "/.well-known/acme-challenge/x";
        let address = snigate_tests::addresses::VIP_1.v4.into();
        ensure!(get(&lab.partner, address, path)?.contains("404"));
        Ok(())
    });
}
