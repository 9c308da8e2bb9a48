//! An agent that dies in the middle of an order: the next one goes on with the same.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{deadline::Deadline, gateway::Gateway, lab_test};

use crate::{
    TIMEOUT,
    names::script,
    scene::{Scene, quiet, wait_for_certificate},
};

#[test]
fn an_order_outlives_the_agent() {
    lab_test("acme-restart", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let pebble = scene.pebble()?;
        let (begun, go_on) = (lab.dir().join("begun"), lab.dir().join("go-on"));
        let update = scene.names.hook(lab, true)?;
        let hook = format!(
            "#!/bin/sh\necho \"$SNIGATE_ACME_ACTION $SNIGATE_ACME_CHALLENGE $SNIGATE_ACME_NAME $SNIGATE_ACME_WHERE\" >> {begun}\n\
             while [ ! -e {go_on} ]; do sleep 0.1; done\nexec {update} \"$@\"\n",
            begun = begun.display(),
            go_on = go_on.display(),
            update = update.display(),
        );
        let hook = script(lab, "waiting-hook", &hook)?;
        let acme = format!("challenge = \"dns-01\"\ndns_hook = {hook:?}");
        let tables = scene.tables(&acme, &scene.domain("contoso.example", "true"));
        let mut gateway = Gateway::start(lab, &tables)?;
        let record = scene.state().join("domains/contoso.example.json");
        Deadline::after(TIMEOUT)
            .poll("the hook", || Ok(begun.exists().then_some(())))
            .with_context(|| gateway.log().unwrap_or_default())?;
        gateway.kill()?;
        let order = |key: &str| -> Result<serde_json::Value> {
            let record: serde_json::Value = serde_json::from_slice(&fs::read(&record)?)?;
            Ok(record.pointer(key).cloned().unwrap_or_default())
        };
        let open = order("/order/url")?;
        ensure!(open.is_string(), "no order is kept: {open}");
        fs::write(&go_on, "")?;

        gateway.run(&[])?;
        wait_for_certificate(&gateway, &scene.certificate("contoso.example"))?;
        let closed = || Ok((order("/issued_by")? == open).then_some(()));
        Deadline::after(TIMEOUT)
            .poll("the certificate by the same order", closed)
            .with_context(|| gateway.log().unwrap_or_default())?;
        let orders = pebble.log()?.matches("Added order").count();
        ensure!(orders <= 1, "{orders} orders: {}", pebble.log()?);
        let told = fs::read_to_string(&begun)?;
        let line = "add dns-01 sip.contoso.example _acme-challenge.sip.contoso.example";
        ensure!(told.lines().filter(|it| *it == line).count() == 2, "{told}");
        let name = "_acme-challenge.sip.contoso.example";
        let left = scene.names.lookup(lab, "TXT", name)?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    });
}
