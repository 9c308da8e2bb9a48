//! HTTP-01 and the running agent: the first certificate, once the authority is there, and the renewal under load.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    addresses::VIP_1,
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
    peers::{Connection, Limit, Storm},
};

use crate::{
    TIMEOUT,
    scene::{
        CONTOSO, Scene, ensure_secret, first_certificate, get, http, quiet, said,
        wait_for_certificate,
    },
};

const CLIENTS: usize = 4;
/// Where the agent serves its metrics by default.
const METRICS: &str = "127.0.0.1:9461";

/// A sample of the agent's metrics; nothing where it is not there.
fn metric(lab: &snigate_tests::Lab, sample: &str) -> Result<Option<f64>> {
    let text = lab.gateway.run(|| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let line = text.lines().find(|line| {
        line.strip_prefix(sample)
            .is_some_and(|it| it.starts_with(' '))
    });
    line.map(|line| {
        let value = line.rsplit(' ').next().unwrap_or_default();
        value.parse().context(line.to_owned())
    })
    .transpose()
}

fn wait_for_metric(lab: &snigate_tests::Lab, sample: &str, least: f64) -> Result<()> {
    let reached = || Ok(metric(lab, sample)?.filter(|it| *it >= least).map(drop));
    Deadline::after(TIMEOUT).poll(&format!("{sample} {least}"), reached)
}

#[test]
fn a_certificate_comes_when_the_authority_is_back_and_is_renewed_under_load() {
    lab_test("acme-issue", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let tables = scene.tables("", &scene.domain("contoso.example", "true"));
        let mut gateway = Gateway::start(lab, &tables)?;
        let file = scene.certificate("contoso.example");
        let vip = VIP_1.sip()[0];

        // The authority is down, and the domain without a certificate: its partners are told, and counted.
        let failed = "snigate_acme_attempts_total{result=\"unreachable\"}";
        wait_for_metric(lab, failed, 1.0)?;
        let missing = "snigate_acme_certificates{state=\"missing\"}";
        ensure!(metric(lab, missing)? == Some(1.0), "{missing}");
        ensure!(!file.exists());
        let tls = scene.tls(scene.pki.roots())?;
        let refused = scene.partner(&tls).echo(vip).err();
        let refused = format!("{:#}", refused.context("there is no certificate")?);
        ensure!(refused.contains("InternalError"), "{refused}");
        let agent = gateway.agent()?;
        ensure!(agent["counters"]["no-certificate"] == 1, "{agent}");
        let listed = gateway.command(&["cert", "ls"])?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        ensure!(
            listed.status.code() == Some(1) && text.contains("no certificate yet"),
            "{text}"
        );

        // It is back.
        let pebble = scene.pebble()?;
        let first = wait_for_certificate(&gateway, &file)?;
        let tls = scene.tls(&file)?;
        let partner = scene.partner(&tls);
        let mut open = Deadline::after(TIMEOUT)
            .poll("a connection", || Ok(partner.echo(vip).ok()))
            .with_context(|| gateway.log().unwrap_or_default())?;
        ensure_secret(&file)?;
        ensure_secret(&scene.state().join("account.key"))?;
        ensure_secret(&scene.state().join("domains/contoso.example.json"))?;
        let left: Vec<_> = fs::read_dir(scene.state().join("tokens"))?.collect();
        ensure!(left.is_empty(), "{left:?}");
        ensure!(!scene.state().join("domains/contoso.example.key").exists());
        let listed = gateway.json(&["cert", "ls"])?;
        let of = |key: &str| listed[0][key].clone();
        ensure!(
            of("key") == "RSA 2048" && of("state") == "valid",
            "{listed}"
        );
        ensure!(of("names") == serde_json::json!([CONTOSO]), "{listed}");
        ensure!(of("renewal")["due"].as_u64() > Some(0), "{listed}");
        wait_for_metric(lab, "snigate_acme_attempts_total{result=\"issued\"}", 1.0)?;
        wait_for_metric(lab, "snigate_acme_requests_total{result=\"answered\"}", 1.0)?;

        // Another certificate, while partners come and go.
        let storm = Storm::start(&partner, vip, CLIENTS, Limit::Time(TIMEOUT))?;
        storm.wait_for(4 * CLIENTS, TIMEOUT)?;
        let not_due = gateway.output(&["cert", "renew"])?;
        ensure!(not_due.contains("its time has not come"), "{not_due}");
        ensure!(first_certificate(&file)? == first);
        let generation = || -> Result<Option<u64>> {
            Ok(gateway.agent()?["configuration"]["generation"].as_u64())
        };
        let before = generation()?;
        let renewed = gateway.output(&["cert", "renew", "--force", "contoso.example"])?;
        ensure!(renewed.contains("contoso.example: renewed"), "{renewed}");
        ensure!(first_certificate(&file)? != first, "it is the same");
        Deadline::after(TIMEOUT)
            .poll("the reload", || Ok((generation()? > before).then_some(())))?;
        storm.wait_for(storm.ended() + 4 * CLIENTS, TIMEOUT)?;
        let report = storm.stop()?;
        report.ensure_no_failure()?;
        let seen = report.certificates().len();
        ensure!(seen == 2, "{seen} certificates were seen");
        open.ping()?;
        Connection::close(open)?;
        ensure!(pebble.log()?.contains("Issued certificate"), "pebble");
        gateway.stop()
    });
}

#[test]
fn a_certificate_that_is_about_to_end_is_renewed_by_itself() {
    lab_test("acme-renewal", &quiet(), |lab| {
        const DAY: i64 = 86_400;
        let scene = Scene::new(lab)?;
        let old = scene.pki.certificate("old").names(&[CONTOSO]);
        let old = old.validity(-80 * DAY..10 * DAY).issue()?;
        let file = scene.certificate("contoso.example");
        fs::create_dir_all(file.parent().context("a directory")?)?;
        let text = fs::read_to_string(&old.chain)? + &fs::read_to_string(&old.key)?;
        fs::write(&file, text)?;
        let before = first_certificate(&file)?;

        let tables = scene.tables("", &scene.domain("contoso.example", "true"));
        let gateway = Gateway::start(lab, &tables)?;
        let vip = VIP_1.sip()[0];
        let tls = scene.tls(scene.pki.roots())?;
        let mut open = scene.partner(&tls).echo(vip)?;
        let pebble = scene.pebble()?;
        let changed = || Ok((first_certificate(&file)? != before).then_some(()));
        Deadline::after(TIMEOUT)
            .poll("the renewal", changed)
            .with_context(|| gateway.log().unwrap_or_default())?;
        let tls = scene.tls(&file)?;
        let partner = scene.partner(&tls);
        let new = Deadline::after(TIMEOUT).poll("the new one", || Ok(partner.echo(vip).ok()))?;
        Connection::close(new)?;
        open.ping()?;
        Connection::close(open)?;
        wait_for_metric(lab, "snigate_acme_attempts_total{result=\"renewed\"}", 1.0)?;
        drop(pebble);
        Ok(())
    });
}

#[test]
fn port_80_serves_nothing_but_tokens() {
    lab_test("acme-port-80", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let tables = scene.tables("", &scene.domain("contoso.example", "true"));
        let mut gateway = Gateway::start(lab, &tables)?;
        let tokens = scene.state().join("tokens");
        fs::write(tokens.join("abc_-1"), "abc_-1.thumb_-print")?;
        fs::write(tokens.join("note"), "what somebody has left here")?;
        let path = "/.well-known/acme-challenge/abc_-1";
        for address in VIP_1.both() {
            let served = Deadline::after(TIMEOUT).poll("port 80", || {
                Ok(get(&lab.partner, address, path)
                    .ok()
                    .filter(|it| !it.is_empty()))
            });
            let served = served.with_context(|| gateway.log().unwrap_or_default())?;
            ensure!(
                served.starts_with("HTTP/1.1 200 OK")
                    && served.ends_with("\r\n\r\nabc_-1.thumb_-print"),
                "{served}"
            );
            for other in [
                "/",
                "/metrics",
                "/mirror.crl",
                "/.well-known/acme-challenge/",
                "/.well-known/acme-challenge/note",
                "/.well-known/acme-challenge/absent",
                "/.well-known/acme-challenge/../account.key",
                "/.well-known/acme-challenge/%2e%2e/account.key",
            ] {
                ensure_bare_404(&get(&lab.partner, address, other)?)?;
            }
            for method in ["HEAD", "POST", "PUT", "OPTIONS", "DELETE"] {
                let request = format!("{method} {path} HTTP/1.1\r\nHost: {CONTOSO}\r\n\r\n");
                ensure_bare_404(&http(&lab.partner, address, request.as_bytes())?)?;
            }
            // No more than a little is read of whatever comes.
            let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
            let answer = http(&lab.partner, address, long.as_bytes()).unwrap_or_default();
            ensure!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
                "{answer}"
            );
        }
        // Beside the revocation list of the mirror CA, where that is at the same place.
        let identity = format!(
            "[identity]\nca = \"ca/mirror.pem\"\nkey = \"ca/mirror.key\"\ncrl_url = \"http://{}/mirror.crl\"\n",
            VIP_1.v4
        );
        let config = format!("[gateway]\ninterfaces = [\"wan0\"]\n{identity}");
        let config = lab.write_file("ca.toml", &config)?;
        let made = scene.run(&config, &["ca", "init"])?;
        ensure!(made.status.success(), "{}", said(&made));
        gateway.configure("", &tables.replace("[identity]\n", &identity))?;
        gateway.output(&["reload"])?;
        for (address, status) in VIP_1.both().into_iter().zip(["200", "404"]) {
            let list = get(&lab.partner, address, "/mirror.crl")?;
            ensure!(
                list.starts_with(&format!("HTTP/1.1 {status}")),
                "{address}: {list}"
            );
            let served = get(&lab.partner, address, path)?;
            ensure!(
                served.ends_with("abc_-1.thumb_-print"),
                "{address}: {served}"
            );
            ensure_bare_404(&get(
                &lab.partner,
                address,
                "/.well-known/acme-challenge/absent",
            )?)?;
        }

        // It ends with the last domain that needs it.
        gateway.configure("", &scene.tables("", ""))?;
        gateway.output(&["reload"])?;
        for address in VIP_1.both() {
            let closed = get(&lab.partner, address, path).err();
            let closed = format!("{:#}", closed.context("port 80 is still open")?);
            ensure!(closed.contains("refused"), "{closed}");
        }
        Ok(())
    });
}

fn ensure_bare_404(answer: &str) -> Result<()> {
    let (head, body) = answer.split_once("\r\n\r\n").context(answer.to_owned())?;
    ensure!(head.starts_with("HTTP/1.1 404 Not Found"), "{answer}");
    ensure!(head.contains("connection: close"), "{answer}");
    ensure!(body.is_empty(), "{answer}");
    Ok(())
}
