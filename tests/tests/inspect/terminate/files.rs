//! Certificates, keys and roots that won't do: said at the start, by `snigate check` and at a reload, which then changes nothing.

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    addresses::{SIP_TLS, VIP_1, at},
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
    peers::{Edge, EdgeTls, Partner, PartnerTls},
    pki::Identity,
};

use super::{CONTOSO, Scene, said, shown_for, wait_for_log};
use crate::{TIMEOUT, quiet, tcp};

/// A configuration with a mistake in a file that it names, and what is said about it.
struct Mistake {
    tables: String,
    /// What is said: the file, whose it is, what is wrong.
    words: Vec<String>,
}

fn mistakes(scene: &Scene<'_>) -> Vec<Mistake> {
    let dir = scene.lab.dir();
    let path = |file: &str| dir.join(file).to_string_lossy().into_owned();
    let tables = |own: &Identity| {
        let domain = scene.terminated("contoso.example", "edges-a", own, "identity = \"mirror\"");
        scene.tables("preserve", &domain)
    };
    let mistake = |tables: String, words: &[&str]| Mistake {
        tables,
        words: words.iter().map(|&word| word.to_owned()).collect(),
    };
    let good = tables(&scene.contoso);
    let roots = scene.federation.roots().to_string_lossy().into_owned();
    let swapped = Identity {
        key: scene.partner.key.clone(),
        ..scene.contoso.clone()
    };
    let missing = Identity {
        chain: dir.join("missing.pem"),
        ..scene.contoso.clone()
    };
    let domain = "domain contoso.example";
    vec![
        mistake(
            tables(&swapped),
            &[
                &path("contoso.pem"),
                domain,
                "the private key in",
                &path("partner.key"),
                "belongs to none of the file's certificates",
                "put the certificate that was issued for this key",
            ],
        ),
        mistake(
            tables(&missing),
            &[&path("missing.pem"), domain, "the certificate is not there"],
        ),
        mistake(
            good.replace(
                &format!("client_roots = \"{roots}\""),
                "client_roots = \"nowhere.pem\"",
            ),
            &[
                &path("nowhere.pem"),
                domain,
                "the file of roots is not there",
            ],
        ),
        mistake(
            good.replace(
                &format!("roots = \"{roots}\" }}"),
                "roots = \"nowhere.pem\" }",
            ),
            &[
                &path("nowhere.pem"),
                "Edge edge-a",
                "the file of roots is not there",
            ],
        ),
        mistake(
            good.replace("ca/mirror.key", "ca/gateway.key"),
            &[
                &path("ca/mirror.pem"),
                "the mirror CA",
                &path("ca/gateway.key"),
            ],
        ),
    ]
}

fn ensure_said(output: &str, words: &[String]) -> Result<()> {
    // Tables for people break their lines.
    let joined = output.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        ensure!(joined.contains(word), "no {word:?} in {output}");
    }
    Ok(())
}

#[test]
fn the_gateway_does_not_start_with_a_file_that_will_not_do() {
    lab_test("terminate-files", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let bpffs = lab.bpffs()?;
        for mistake in mistakes(&scene) {
            let text = format!(
                "[gateway]\ninterfaces = [\"wan0\", \"lan0\", \"lan1\"]\npin_path = \"{}\"\n{}",
                bpffs.join("snigate").display(),
                mistake.tables
            );
            let config = lab.write_file("mistaken.toml", &text)?;
            let config = config.to_string_lossy();
            for command in ["check", "run"] {
                let output = scene.snigate(&[command, "--config", &config])?;
                ensure!(
                    output.status.code() == Some(1),
                    "{command}: {}",
                    said(&output)
                );
                ensure_said(&said(&output), &mistake.words).context(command)?;
            }
            // Nothing was begun.
            ensure!(!bpffs.join("snigate").exists());
        }
        Ok(())
    });
}

#[test]
fn a_reload_with_a_file_that_will_not_do_changes_nothing() {
    lab_test("terminate-reload", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let tls = EdgeTls::for_clients_of(&scene.mirror_ca(), &scene.edge)?;
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&tls))?;
        let domain = |own| {
            let line = "identity = \"mirror\"";
            let domain = scene.terminated("contoso.example", "edges-a", own, line);
            scene.tables("preserve", &domain)
        };
        let good = domain(&scene.contoso);
        let mut gateway = Gateway::start(lab, &good)?;
        let address = at(VIP_1.v4.into());
        let tls = PartnerTls::new(CONTOSO, &scene.partner, &scene.federation, None)?;
        let partner = Partner {
            tls: Some(&tls),
            ..tcp(lab)
        };
        let mut open = partner.echo(address)?;
        let generation = scene.agent()?["configuration"]["generation"].clone();
        for mistake in mistakes(&scene) {
            gateway.configure("", &mistake.tables)?;
            let output = scene.ask(&["reload"])?;
            ensure!(output.status.code() == Some(1), "{}", said(&output));
            ensure_said(&said(&output), &mistake.words)?;
            let words: Vec<&str> = mistake.words.iter().map(String::as_str).collect();
            let all = [words.as_slice(), &["what was active stays active"]].concat();
            wait_for_log(&gateway, &all)?;

            let active = scene.agent()?["configuration"].clone();
            ensure!(active["generation"] == generation, "{active}");
            let why = active["refused"]["why"].as_str().context("no refusal")?;
            ensure_said(why, &mistake.words)?;
            open.ping()?;
            partner.exchange(address, 1000, 1000)?;
            ensure!(shown_for(&scene, CONTOSO, address)? == scene.contoso.fingerprint()?);
        }

        // An expired certificate is served, since an Edge's partner may take it: but not without a word.
        let expired = scene.federation.certificate("expired").names(&[CONTOSO]);
        let expired = expired.validity(-7200..-3600).issue()?;
        gateway.configure("", &domain(&expired))?;
        let checked = scene.ask(&["check"])?;
        let output = scene.ask(&["reload"])?;
        ensure!(output.status.success(), "{}", said(&output));
        let file = expired.chain.to_string_lossy().into_owned();
        for output in [checked, output] {
            ensure_said(
                &said(&output),
                &[file.clone(), "expired".into(), "renew it".into()],
            )?;
        }
        wait_for_log(&gateway, &["WARN", &file, "expired"])?;
        ensure!(shown_for(&scene, CONTOSO, address)? == expired.fingerprint()?);
        let active = scene.agent()?["configuration"].clone();
        ensure!(active["refused"].is_null(), "{active}");

        // What is taken back is as it was, without a command.
        gateway.configure("", &good)?;
        let back = || -> Result<Option<()>> {
            let shown = shown_for(&scene, CONTOSO, address)?;
            Ok((shown == scene.contoso.fingerprint()?).then_some(()))
        };
        Deadline::after(TIMEOUT).poll("the old certificate", back)?;
        open.ping()?;
        open.close()?;
        Ok(())
    });
}
