//! Partners that are refused: each is told by TLS's own alert, logged and counted, and nobody else notices.

use anyhow::{Context as _, Result, ensure};
use rcgen::ExtendedKeyUsagePurpose;
use snigate_tests::{
    Lab,
    addresses::{PARTNER, SIP_TLS, VIP_1},
    gateway::Gateway,
    lab_test,
    peers::{
        Answer, Connection, Edge, EdgeTls, Partner, PartnerTls, Segments, TlsVersion,
        captured_hello, replay,
    },
    pki::{Identity, Pki},
};

use super::{ADATUM, CONTOSO, FABRIKAM, PARTNER_NAME, Scene, alert, wait_for_log};
use crate::{TIMEOUT, both, quiet, tcp};

/// Alerts (RFC 8446 section 6, RFC 6066 section 3).
const UNSUPPORTED_CERTIFICATE: u8 = 43;
const CERTIFICATE_REVOKED: u8 = 44;
const CERTIFICATE_EXPIRED: u8 = 45;
const UNKNOWN_CA: u8 = 48;
const PROTOCOL_VERSION: u8 = 70;
const UNRECOGNIZED_NAME: u8 = 112;
const CERTIFICATE_REQUIRED: u8 = 116;

const HOUR: i64 = 3600;

/// Connections of others, open all the while.
struct Others(Vec<Connection>);

impl Others {
    /// One that ends at the gateway and one that is passed through, of each family.
    fn open(scene: &Scene<'_>) -> Result<Self> {
        let mut open = Vec::new();
        for name in [CONTOSO, ADATUM] {
            let tls = PartnerTls::new(name, &scene.partner, &scene.federation, None)?;
            for address in both(VIP_1) {
                open.push(over(scene.lab, &tls).echo(address)?);
            }
        }
        Ok(Self(open))
    }

    fn are_undisturbed(&mut self) -> Result<()> {
        for connection in &mut self.0 {
            connection.ping().context("a connection of others")?;
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        for connection in self.0 {
            connection.close().context("a connection of others")?;
        }
        Ok(())
    }
}

fn over<'a>(lab: &'a Lab, tls: &'a PartnerTls) -> Partner<'a> {
    Partner {
        tls: Some(tls),
        ..tcp(lab)
    }
}

/// Both Edges: one that takes what is mirrored, one that takes partners.
fn edges(scene: &Scene<'_>) -> Result<[Edge; 2]> {
    let lab = scene.lab;
    let mirrored = EdgeTls::for_clients_of(&scene.mirror_ca(), &scene.edge)?;
    let passed = EdgeTls::new(&scene.other_edge, &scene.federation)?;
    Ok([
        Edge::start(&lab.edge_a, SIP_TLS, Some(&mirrored))?,
        Edge::start(&lab.edge_b, SIP_TLS, Some(&passed))?,
    ])
}

/// A partner's certificate, what it is refused for, and the words for it.
struct Case {
    identity: Option<Identity>,
    counter: &'static str,
    alert: u8,
    words: &'static str,
}

fn cases(scene: &Scene<'_>, revoked: Identity) -> Result<Vec<Case>> {
    let names = [PARTNER_NAME];
    let certificate = |file| scene.federation.certificate(file).names(&names).ecdsa();
    let others = Pki::new("others", &scene.lab.dir())?;
    let case = |identity, counter, alert, words| Case {
        identity,
        counter,
        alert,
        words,
    };
    let expired = certificate("expired").validity(-2 * HOUR..-HOUR).issue()?;
    let signing = [ExtendedKeyUsagePurpose::CodeSigning];
    Ok(vec![
        case(
            None,
            "client-certificate-missing",
            CERTIFICATE_REQUIRED,
            "showed no certificate",
        ),
        case(
            Some(others.server("stranger", &names)?),
            "client-certificate-unknown-issuer",
            UNKNOWN_CA,
            "no authority among the domain's `client_roots` has issued it",
        ),
        case(
            Some(expired),
            "client-certificate-expired",
            CERTIFICATE_EXPIRED,
            "the partner's certificate was refused: certificate expired",
        ),
        case(
            Some(revoked),
            "client-certificate-revoked",
            CERTIFICATE_REVOKED,
            "the partner's certificate was refused: its authority has revoked it",
        ),
        case(
            Some(certificate("signer").usages(&signing).issue()?),
            "client-certificate-refused",
            UNSUPPORTED_CERTIFICATE,
            "neither for servers nor for clients",
        ),
    ])
}

#[test]
fn a_certificate_that_will_not_do_is_refused_with_its_reason() {
    lab_test("terminate-partners", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _edges = edges(&scene)?;
        let revoked = scene.federation.server("revoked", &[PARTNER_NAME])?;
        let list = scene.federation.revocation_list(&[&revoked])?;
        let more = format!(
            "identity = \"mirror\"\nclient_crls = [\"{}\"]",
            list.display()
        );
        let domains = scene.terminated("contoso.example", "edges-a", &scene.contoso, &more)
            + "\n[[domain]]\nsip_domain = \"adatum.example\"\npool = \"edges-b\"\n";
        let gateway = Gateway::start(lab, &scene.tables("preserve", &domains))?;
        let mut others = Others::open(&scene)?;
        for case in cases(&scene, revoked)? {
            for (address, version) in both(VIP_1).into_iter().zip(TlsVersion::BOTH) {
                let mut client = scene.openssl(CONTOSO).version(version);
                client.identity = case.identity.as_ref();
                let told = alert(&client, address).context(case.counter)?;
                ensure!(
                    told == case.alert,
                    "{}: {told} in {version:?}",
                    case.counter
                );
            }
            scene.ensure_counted(case.counter, 2)?;
            let source = format!("{}", PARTNER.v4);
            wait_for_log(&gateway, &[case.counter, case.words, CONTOSO, &source])?;
            others.are_undisturbed()?;
        }
        // What public authorities issue since 2026.
        let server_only = scene.federation.server_only("server", &[PARTNER_NAME])?;
        for (address, version) in both(VIP_1).into_iter().zip(TlsVersion::BOTH) {
            let tls = PartnerTls::new(CONTOSO, &server_only, &scene.federation, Some(version))?;
            over(lab, &tls).exchange(address, 1000, 1000)?;
        }
        others.close()
    });
}

#[test]
fn old_versions_and_unknown_names_are_told_so() {
    lab_test("terminate-hellos", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let _edges = edges(&scene)?;
        // The captured hello of TLS 1.0 asks for fabrikam.
        let fabrikam = scene.federation.server("fabrikam", &[FABRIKAM])?;
        let line = "identity = \"mirror\"";
        let domains = scene.terminated("contoso.example", "edges-a", &scene.contoso, line)
            + &scene.terminated("fabrikam.example", "edges-a", &fabrikam, line)
            + "\n[[domain]]\nsip_domain = \"adatum.example\"\npool = \"edges-b\"\n";
        let gateway = Gateway::start(lab, &scene.tables("preserve", &domains))?;
        let mut others = Others::open(&scene)?;
        let old = ["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"];
        let tls10 = captured_hello("openssl-tls10")?;
        for address in both(VIP_1) {
            let told = alert(&scene.openssl(CONTOSO).options(&old), address)?;
            ensure!(told == PROTOCOL_VERSION, "{told}");
            let answer = replay(&lab.partner, address, &tls10, Segments::Few, TIMEOUT)?;
            ensure!(answer == Answer::PROTOCOL_VERSION, "{answer:?}");
            let told = alert(&scene.openssl("sip.northwind.example"), address)?;
            ensure!(told == UNRECOGNIZED_NAME, "{told}");
        }
        scene.ensure_counted("no-common-version", 4)?;
        scene.ensure_counted("unrecognized-name", 2)?;
        wait_for_log(
            &gateway,
            &["no-common-version", "nothing newer than TLS 1.1"],
        )?;
        wait_for_log(&gateway, &["unrecognized-name", "sip.northwind.example"])?;
        others.are_undisturbed()?;
        others.close()
    });
}
