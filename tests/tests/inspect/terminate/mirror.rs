//! Mutual TLS through a gateway that ends it: an Edge that checks its partners' certificates goes on doing so.

use std::{fs::File, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Namespace, Process, Topology,
    addresses::{EDGE_A, EDGE_B, PARTNER, SIP_TLS, VIP_1, at},
    gateway::Gateway,
    lab_test, output_within,
    peers::{KamailioEdge, KamailioPartner, Method, Partner, PartnerTls, TlsVersion, sipp},
    pki::{Attribute, Identity},
};

use super::{CONTOSO, FABRIKAM, PARTNER_DOMAIN, PARTNER_NAME, Scene, crl_url, said};
use crate::{TIMEOUT, both, quiet, tcp};

/// The subject that `snigate ca init` gives its authority.
const MIRROR_CA: &str = "CN=snigate mirror CA";

/// An Edge that requires certificates of the gateway's authority and checks them against the From domain, behind [`CONTOSO`].
fn kamailio(scene: &Scene<'_>) -> Result<KamailioEdge> {
    KamailioEdge::start(
        scene.lab,
        "kamailio-edge",
        &scene.lab.edge_a,
        (EDGE_A, SIP_TLS),
        &scene.edge,
        &scene.mirror_ca(),
    )
}

/// What the Edge answers to a partner with this certificate, of one domain or another.
fn statuses(
    scene: &Scene<'_>,
    identity: &Identity,
    name: &str,
    (address, version): (SocketAddr, TlsVersion),
    from_domains: &[&str],
) -> Result<Vec<u16>> {
    let tls = PartnerTls::new(name, identity, &scene.federation, Some(version))?;
    let partner = Partner {
        tls: Some(&tls),
        ..tcp(scene.lab)
    };
    let mut sip = partner.sip(address)?;
    let mut answers = Vec::new();
    for from in from_domains {
        for method in Method::BOTH {
            answers.push(sip.request(method, from, "contoso.example")?);
        }
    }
    Ok(answers)
}

#[test]
fn an_edge_checks_mirrored_partners_as_it_checks_partners() {
    lab_test("mirror-kamailio", &Topology::default(), |lab| {
        let scene = Scene::new(lab)?;
        let edge = kamailio(&scene)?;
        let _gateway = Gateway::start(
            lab,
            &scene.tables("preserve", &scene.three_domains("mirror")),
        )?;
        // A hoster of many domains, with a subject that is easily put together wrongly.
        let many: Vec<String> = (1..40)
            .map(|n| format!("sip.customer{n}.example"))
            .collect();
        let names: Vec<&str> = many.iter().map(String::as_str).collect();
        let certificate = scene.federation.certificate("hoster").names(&names);
        let hoster = certificate
            .subject(&[
                (Attribute::Organization, "Bäckerei & Söhne"),
                (Attribute::OrganizationalUnit, "Realtime"),
                (Attribute::OrganizationalUnit, "Edge"),
                (Attribute::CommonName, "sip.hoster.example"),
            ])
            .issue()?;
        let ways = both(VIP_1).into_iter().zip(TlsVersion::BOTH);
        for ((address, version), source) in ways.zip(PARTNER.both()) {
            let ask = |identity: &Identity, domains: &[&str]| {
                statuses(&scene, identity, CONTOSO, (address, version), domains)
            };
            ensure!(ask(&scene.partner, &[PARTNER_DOMAIN])? == [200, 202]);
            // One Edge serves many domains over one connection; a stranger's is refused on the same.
            let answers = ask(
                &hoster,
                &["hoster.example", PARTNER_DOMAIN, "customer39.example"],
            )?;
            ensure!(answers == [200, 202, 403, 403, 200, 202], "{answers:?}");
            ensure!(ask(&scene.partner, &["contoso.example", "example"])? == [403; 4]);

            let seen = edge.requests()?;
            let last = seen
                .iter()
                .rfind(|seen| seen.from_domain == "customer39.example");
            let last = last.context("a request of the hoster's")?;
            ensure!(
                last.subject == "CN=sip.hoster.example,OU=Edge,OU=Realtime,O=Bäckerei & Söhne"
                    && last.issuer == MIRROR_CA
                    && last.source == source,
                "{last:?}"
            );
        }
        ensure!(edge.requests()?.len() == 24);
        Ok(())
    });
}

#[test]
fn sipp_reaches_an_edge_through_the_gateway_and_a_kamailio_of_the_partner() {
    lab_test("mirror-sipp", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let edge = kamailio(&scene)?;
        let _gateway = Gateway::start(
            lab,
            &scene.tables("preserve", &scene.three_domains("mirror")),
        )?;
        let unnamed = scene
            .federation
            .server("unnamed", &["sip.wingtip.example"])?;
        let partners = [(&scene.partner, [200, 202]), (&unnamed, [403, 403])];
        let ways = VIP_1.both().into_iter().zip(PARTNER.both());
        for (port, (address, source)) in [5070, 5080].into_iter().zip(ways) {
            for (port, (identity, expected)) in (port..).zip(partners) {
                let partner = KamailioPartner::start(
                    lab,
                    "kamailio-partner",
                    &lab.partner,
                    (PARTNER, port),
                    (identity, &scene.federation),
                    (CONTOSO, at(address)),
                )?;
                for (method, expected) in Method::BOTH.into_iter().zip(expected) {
                    let domains = (PARTNER_DOMAIN, "contoso.example");
                    let status = sipp(lab, &lab.partner, partner.local, method, domains, TIMEOUT)?;
                    ensure!(status == expected, "{status} to {:?}", identity.names);
                }
                let seen = edge.requests()?;
                let last = seen.last().context("no request")?;
                ensure!(
                    last.names == identity.names
                        && last.issuer == MIRROR_CA
                        && last.source == source,
                    "{last:?}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn the_gateways_own_certificate_breaks_federation_and_pass_through_keeps_it() {
    lab_test("mirror-others", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let edge = kamailio(&scene)?;
        let identity = scene.federation.server("fabrikam", &[FABRIKAM])?;
        let other = KamailioEdge::start(
            lab,
            "kamailio-other",
            &lab.edge_b,
            (EDGE_B, SIP_TLS),
            &identity,
            scene.federation.roots(),
        )?;
        let domains = scene.terminated(
            "contoso.example",
            "edges-a",
            &scene.contoso,
            "identity = \"gateway\"",
        ) + "\n[[domain]]\nsip_domain = \"fabrikam.example\"\npool = \"edges-b\"\n";
        let _gateway = Gateway::start(lab, &scene.tables("preserve", &domains))?;
        for way in both(VIP_1).into_iter().zip(TlsVersion::BOTH) {
            let ask = |name, from: &[&str]| statuses(&scene, &scene.partner, name, way, from);
            // The Edge takes the connection, and knows nobody but the gateway.
            ensure!(ask(CONTOSO, &[PARTNER_DOMAIN])? == [403, 403]);
            let seen = edge.requests()?;
            let last = seen.last().context("no request")?;
            ensure!(
                last.issuer == MIRROR_CA && !last.names.iter().any(|name| name == PARTNER_NAME),
                "{last:?}"
            );
            ensure!(ask(FABRIKAM, &[PARTNER_DOMAIN, "wingtip.example"])? == [200, 202, 403, 403]);
            let seen = other.requests()?;
            let last = seen.last().context("no request")?;
            ensure!(last.issuer == "CN=federation root", "{last:?}");
        }
        Ok(())
    });
}

#[test]
fn an_edge_that_checks_revocation_fetches_the_list_from_the_gateway() {
    lab_test("mirror-crl", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let domains = scene.terminated(
            "contoso.example",
            "edges-a",
            &scene.contoso,
            "identity = \"mirror\"",
        ) + &scene.terminated(
            "adatum.example",
            "edges-b",
            &scene.federation.server("adatum", &["sip.adatum.example"])?,
            "identity = \"mirror\"",
        );
        let _gateway = Gateway::start(lab, &scene.tables("preserve", &domains))?;

        // OpenSSL as an Edge that looks for the list where the certificate says; the other one looks nowhere, and has none.
        let edge =
            |name, namespace, option: &[&str]| checking_edge(&scene, name, namespace, option);
        let mut looks = edge("edge-a", &lab.edge_a, &["-crl_download"])?;
        let mut does_not = edge("edge-b", &lab.edge_b, &[])?;
        say_a_line(&scene, CONTOSO)?;
        looks.wait_for_line("what the partner says", TIMEOUT)?;
        say_a_line(&scene, "sip.adatum.example")?;
        does_not.wait_for_line("unable to get certificate CRL", TIMEOUT)?;
        ensure!(!does_not.stdout()?.contains("what the partner says"));

        // By hand, with what the Edge was shown.
        let output = looks.stdout()?;
        let begin = output
            .find("-----BEGIN CERTIFICATE-----")
            .context("no certificate")?;
        let shown = lab.write_file("shown.pem", &output[begin..])?;
        let list = lab.dir().join("mirror.crl.pem");
        let (shown, list) = (shown.to_string_lossy(), list.to_string_lossy());
        let ca = scene.mirror_ca();
        let ca = ca.to_string_lossy();
        let openssl = |arguments: &[&str]| -> Result<String> {
            let mut command = lab.edge_a.command("openssl");
            let output = output_within(command.args(arguments), TIMEOUT)?;
            ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
            Ok(said(&output))
        };
        let url = crl_url();
        let verified = openssl(&["crl", "-in", &url, "-CAfile", &ca, "-out", &list, "-text"])?;
        ensure!(verified.contains("verify OK"), "{verified}");
        openssl(&[
            "verify",
            "-crl_check",
            "-CAfile",
            &ca,
            "-CRLfile",
            &list,
            &shown,
        ])?;
        let text = openssl(&["x509", "-in", &shown, "-noout", "-text"])?;
        for part in [&format!("URI:{url}"), &format!("DNS:{PARTNER_NAME}")] {
            ensure!(text.contains(part), "{text}");
        }
        let headers = lab
            .edge_a
            .output("curl", &["-sSi", "-o", "/dev/null", "-D", "-", &url])?;
        ensure!(
            headers.contains("content-type: application/pkix-crl"),
            "{headers}"
        );
        Ok(())
    });
}

/// An Edge that demands certificates of the gateway's authority which are not revoked, and prints what it is shown and told.
fn checking_edge(
    scene: &Scene<'_>,
    name: &str,
    namespace: &Namespace,
    options: &[&str],
) -> Result<Process> {
    let mut command = namespace.command("openssl");
    command
        .args(["s_server", "-accept", "5061", "-cert"])
        .arg(&scene.edge.chain)
        .arg("-key")
        .arg(&scene.edge.key)
        .arg("-verifyCAfile")
        .arg(scene.mirror_ca())
        .args(["-Verify", "3", "-verify_return_error", "-crl_check"])
        .args(options);
    let mut server = scene.lab.spawn(name, command)?;
    server.wait_for_listener(namespace, SIP_TLS, TIMEOUT)?;
    Ok(server)
}

/// One line from a partner, whatever comes of it.
fn say_a_line(scene: &Scene<'_>, name: &str) -> Result<()> {
    let line = scene
        .lab
        .write_file("line.txt", "what the partner says\n")?;
    let mut command = scene.lab.partner.command("openssl");
    command
        .args(["s_client", "-connect", &at(VIP_1.v4.into()).to_string()])
        .args(["-servername", name, "-cert"])
        .arg(&scene.partner.chain)
        .arg("-key")
        .arg(&scene.partner.key)
        .stdin(File::open(line)?);
    output_within(&mut command, TIMEOUT).map(drop)
}
