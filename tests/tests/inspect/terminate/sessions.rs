//! What a handshake brings along: sessions that are resumed, and the OCSP response.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use rcgen::ExtendedKeyUsagePurpose;
use snigate_tests::{
    addresses::{SIP_TLS, VIP_1, at},
    deadline::Deadline,
    gateway::Gateway,
    lab_test, output_within,
    peers::{OpensslServer, Session, TlsVersion},
    pki::Identity,
};

use super::{CONTOSO, Scene, said};
use crate::{TIMEOUT, quiet};

const TAILSPIN: &str = "sip.tailspin.example";

#[test]
fn sessions_are_resumed_within_their_domain_only() {
    lab_test("terminate-sessions", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _edge = OpensslServer::start_trusting(
            lab,
            "edge-a",
            &lab.edge_a,
            SIP_TLS,
            &scene.edge,
            &scene.mirror_ca(),
        )?;
        // Both names are in both certificates: nothing but the domain tells the sessions apart.
        let names = [CONTOSO, TAILSPIN];
        let own = scene.federation.server("contoso", &names)?;
        let other = scene.federation.server("tailspin", &names)?;
        let mirror = "identity = \"mirror\"";
        let domains = scene.terminated("contoso.example", "edges-a", &own, mirror)
            + &scene.terminated("tailspin.example", "edges-a", &other, mirror);
        let _gateway = Gateway::start(lab, &scene.tables("preserve", &domains))?;

        let (tls13, tls12) = (TlsVersion::V13, TlsVersion::V12);
        for (version, option) in [(tls13, None), (tls12, None), (tls12, Some("-no_ticket"))] {
            let file = lab
                .dir()
                .join(format!("{}{}", version.name(), option.is_some()));
            let file = file.to_string_lossy();
            let connect = |name, session: &str| -> Result<Session> {
                let mut options = vec![session, &file];
                options.extend(option);
                let client = scene.openssl(name).version(version).options(&options);
                client.connect(at(VIP_1.v4.into()), TIMEOUT)
            };
            let summary = |kind: &str| format!("{kind}, {}, Cipher is", version.name());
            let first = connect(CONTOSO, "-sess_out")?;
            ensure!(first.output.contains(&summary("New")), "{}", first.output);
            let elsewhere = connect(TAILSPIN, "-sess_in")?;
            ensure!(
                elsewhere.output.contains(&summary("New")),
                "{}",
                elsewhere.output
            );
            let again = connect(CONTOSO, "-sess_in")?;
            ensure!(
                again.output.contains(&summary("Reused")),
                "{}",
                again.output
            );
        }
        Ok(())
    });
}

#[test]
fn an_ocsp_response_is_stapled_once_it_is_there() {
    lab_test("terminate-ocsp", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _edge = OpensslServer::start_trusting(
            lab,
            "edge-a",
            &lab.edge_a,
            SIP_TLS,
            &scene.edge,
            &scene.mirror_ca(),
        )?;
        let tables = scene.tables("preserve", &scene.three_domains("mirror"));
        let _gateway = Gateway::start(lab, &tables)?;
        let status = |version| -> Result<String> {
            let client = scene
                .openssl(CONTOSO)
                .version(version)
                .options(&["-status"]);
            Ok(client.connect(at(VIP_1.v6.into()), TIMEOUT)?.output)
        };
        for version in TlsVersion::BOTH {
            let output = status(version)?;
            ensure!(
                output.contains("OCSP response: no response sent"),
                "{output}"
            );
        }
        // Beside the certificate's file, and noticed there.
        let staple = lab.dir().join("contoso.pem.ocsp");
        ocsp_response(&scene, &scene.contoso, &staple)?;
        for version in TlsVersion::BOTH {
            Deadline::after(TIMEOUT).poll("a stapled response", || {
                let output = status(version)?;
                let good = output.contains("OCSP Response Status: successful")
                    && output.contains("Cert Status: good");
                Ok(good.then_some(()))
            })?;
        }
        fs::remove_file(staple)?;
        Deadline::after(TIMEOUT).poll("no stapled response", || {
            let output = status(TlsVersion::V13)?;
            Ok(output.contains("no response sent").then_some(()))
        })
    });
}

/// What the authority's responder says about a certificate.
fn ocsp_response(scene: &Scene<'_>, identity: &Identity, file: &Path) -> Result<()> {
    let responder = scene
        .federation
        .certificate("responder")
        .names(&["ocsp.federation.example"])
        .usages(&[ExtendedKeyUsagePurpose::OcspSigning])
        .issue()?;
    let serial: String = identity
        .serial()?
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    // OpenSSL's own database: valid, until when, not revoked, serial number, no file, subject.
    let index = format!("V\t491231235959Z\t\t{serial}\tunknown\t/CN={CONTOSO}\n");
    let index = scene.lab.write_file("index.txt", &index)?;
    let mut command = scene.lab.partner.command("openssl");
    let roots = scene.federation.roots();
    command.args(["ocsp", "-ndays", "1", "-noverify"]);
    for (option, path) in [
        ("-index", index.as_path()),
        ("-CA", roots),
        ("-issuer", roots),
        ("-rsigner", &responder.chain),
        ("-rkey", &responder.key),
        ("-cert", &identity.chain),
        ("-respout", file),
    ] {
        command.arg(option).arg(path);
    }
    let output = output_within(command.stdin(Stdio::null()), TIMEOUT)?;
    ensure!(output.status.success(), "{}", said(&output));
    fs::metadata(file).with_context(|| said(&output)).map(drop)
}
