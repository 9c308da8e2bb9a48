//! Checks that look at the Edge's certificate, and those that ask it for OPTIONS.

use std::{
    net::{Ipv6Addr, TcpListener},
    path::Path,
};

use anyhow::{Result, ensure};
use snigate_tests::{
    Lab, Namespace,
    addresses::{EDGE_A, SIP_TLS},
    gateway::Gateway,
    lab_test,
    peers::{Edge, EdgeTls, KamailioEdge, Partner, PartnerTls},
    pki::{Identity, Pki},
};

use crate::{OFTEN, TIMEOUT, Way, all_become, quiet, tables};

/// The name that partners ask for, and the Edges' own.
const SIP: &str = "sip.contoso.example";
const OWN: [&str; 2] = ["edge-a.hoster.example", "edge-b.hoster.example"];

/// What is found of one who shows it.
const GOOD: &str = "its certificate is good until 20";

struct Scene<'lab> {
    lab: &'lab Lab,
    pki: Pki,
    gateway: Gateway<'lab>,
}

impl<'lab> Scene<'lab> {
    /// A gateway that shakes hands with its Edges to check them; `keys` are further ones of `health`, and `more` further tables.
    fn start(lab: &'lab Lab, pki: Pki, keys: &str, more: &str) -> Result<Self> {
        let health = format!("tls = true, {OFTEN}{keys}");
        let edge = format!(
            "tls = {{ name = \"edge-LETTER.hoster.example\", roots = \"{}\" }}",
            pki.roots().display()
        );
        let gateway = Gateway::start(lab, &(tables(&health, &edge) + more))?;
        Ok(Self { lab, pki, gateway })
    }

    /// The certificate that an Edge should have.
    fn right(&self, letter: usize) -> Result<Identity> {
        self.pki
            .server(["edge-a", "edge-b"][letter], &[OWN[letter], SIP])
    }

    /// A server of whoever it likes to be.
    fn serve(&self, namespace: &Namespace, identity: &Identity) -> Result<Edge> {
        Edge::start(namespace, SIP_TLS, Some(&EdgeTls::for_anybody(identity)?))
    }

    /// Steered partners all come to this Edge.
    fn all_reach(&self, edge: &Edge) -> Result<()> {
        let identity = self.pki.server("partner", &["sip.partner.example"])?;
        let tls = PartnerTls::new(SIP, &identity, &self.pki, None)?;
        for address in Way::Steered.addresses() {
            for _ in 0..8 {
                let partner = Partner {
                    namespace: &self.lab.partner,
                    source: None,
                    tls: Some(&tls),
                    timeout: TIMEOUT,
                };
                partner.exchange(address, 100, 100)?;
            }
        }
        // Checks come to nothing in the Edge's eyes.
        let mut arrived = 0;
        while arrived < 16 {
            let report = edge.report(TIMEOUT)?;
            if report.request.is_some() {
                arrived += 1;
            }
        }
        Ok(())
    }
}

/// edge-a serves with the wrong certificate, then with the right one.
fn wrong_then_right(
    name: &str,
    wrong: impl FnOnce(&Scene<'_>) -> Result<Identity>,
    expected: &str,
) {
    lab_test(name, &quiet(), |lab| {
        let pki = Pki::new("hoster", &lab.dir())?;
        let scene = Scene::start(lab, pki, "", "")?;
        let edge_b = scene.serve(&lab.edge_b, &scene.right(1)?)?;
        let edge_a = scene.serve(&lab.edge_a, &wrong(&scene)?)?;
        all_become(&scene.gateway, "a", "down", expected)?;
        all_become(&scene.gateway, "b", "up", GOOD)?;
        scene.all_reach(&edge_b)?;
        drop(edge_a);
        let _edge_a = scene.serve(&lab.edge_a, &scene.right(0)?)?;
        all_become(&scene.gateway, "a", "up", GOOD)?;
        Ok(())
    });
}

#[test]
fn an_edge_with_another_ones_certificate_is_down() {
    let wrong = |scene: &Scene<'_>| scene.pki.server("other", &["edge-z.hoster.example", SIP]);
    wrong_then_right(
        "health-other-name",
        wrong,
        "the Edge's certificate was refused",
    );
}

#[test]
fn an_edge_with_an_expired_certificate_is_down() {
    let wrong = |scene: &Scene<'_>| {
        let certificate = scene.pki.certificate("expired").names(&[OWN[0], SIP]);
        certificate.validity(-7200..-3600).issue()
    };
    wrong_then_right("health-expired", wrong, "expired");
}

#[test]
fn an_edge_with_a_certificate_of_strangers_is_down() {
    let wrong = |scene: &Scene<'_>| {
        let strangers = Pki::new("strangers", &scene.lab.dir())?;
        strangers.server("stranger", &[OWN[0], SIP])
    };
    wrong_then_right("health-stranger", wrong, "no authority among");
}

#[test]
fn an_edge_that_accepts_and_says_nothing_is_down() {
    lab_test("health-hangs", &quiet(), |lab| {
        let pki = Pki::new("hoster", &lab.dir())?;
        let scene = Scene::start(lab, pki, "", "")?;
        let edge_b = scene.serve(&lab.edge_b, &scene.right(1)?)?;
        // Its kernel completes handshakes, and nobody ever reads.
        let hanging = lab
            .edge_a
            .run(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, SIP_TLS))?))?;
        let silent = "the TLS handshake was not done within 1 s";
        all_become(&scene.gateway, "a", "down", silent)?;
        all_become(&scene.gateway, "b", "up", GOOD)?;
        scene.all_reach(&edge_b)?;
        drop(hanging);
        Ok(())
    });
}

#[test]
fn an_edge_that_wants_a_certificate_of_the_gateway_is_well_without() {
    lab_test("health-mutual", &quiet(), |lab| {
        let pki = Pki::new("hoster", &lab.dir())?;
        let scene = Scene::start(lab, pki, "", "")?;
        let mut edges = Vec::new();
        for (letter, namespace) in [&lab.edge_a, &lab.edge_b].into_iter().enumerate() {
            let tls = EdgeTls::new(&scene.right(letter)?, &scene.pki)?;
            edges.push(Edge::start(namespace, SIP_TLS, Some(&tls))?);
        }
        for letter in ["a", "b"] {
            all_become(&scene.gateway, letter, "up", GOOD)?;
        }
        Ok(())
    });
}

/// What the gateway shows its Edges, as tables of the configuration.
fn identity(pki: &Pki) -> Result<String> {
    let own = pki.server("gateway", &["gateway.hoster.example"])?;
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    Ok(format!(
        "[identity]\ngateway_certificate = {}\ngateway_key = {}\n",
        quoted(&own.chain),
        quoted(&own.key)
    ))
}

#[test]
fn an_edge_must_answer_options_where_that_is_asked_for() {
    lab_test("health-options", &quiet(), |lab| {
        let pki = Pki::new("hoster", &lab.dir())?;
        let more = identity(&pki)?;
        let scene = Scene::start(lab, pki, ", options = true", &more)?;
        let right = scene.right(0)?;
        let place = (EDGE_A, SIP_TLS);
        let kamailio =
            KamailioEdge::start(lab, "edge-a", &lab.edge_a, place, &right, scene.pki.roots())?;
        // It speaks TLS, and no SIP.
        let _edge_b = scene.serve(&lab.edge_b, &scene.right(1)?)?;
        all_become(&scene.gateway, "a", "up", "it answers SIP OPTIONS with")?;
        let requests = kamailio.requests()?;
        ensure!(
            requests.iter().any(|request| request.method == "OPTIONS"
                && request.names == ["gateway.hoster.example"]),
            "{requests:?}"
        );
        all_become(
            &scene.gateway,
            "b",
            "down",
            "before SIP OPTIONS was answered",
        )
    });
}
