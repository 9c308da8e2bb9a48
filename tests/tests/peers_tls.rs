//! GnuTLS, replayed hellos, storms and the proxies to compare with prove themselves, over the kernel's own routing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::ServerName;
use snigate_tests::addresses::{EDGE_A, EDGE_B, SIP_TLS, VIP_1};
use snigate_tests::peers::{
    Answer, Edge, EdgeTls, GnutlsClient, Limit, Make, OpensslServer, Partner, PartnerTls, Proxy,
    Segments, Size, Storm, TlsVersion, Upstream, Way, in_records, replay,
};
use snigate_tests::pki::{Identity, Pki};
use snigate_tests::{Lab, Topology, lab_test};

const TIMEOUT: Duration = Duration::from_secs(20);
const NAME: &str = "sip.contoso.example";
const OTHER: &str = "sip.fabrikam.example";

fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

fn partner<'a>(lab: &'a Lab, tls: &'a PartnerTls) -> Partner<'a> {
    Partner {
        namespace: &lab.partner,
        source: None,
        tls: Some(tls),
        timeout: TIMEOUT,
    }
}

#[test]
fn gnutls_verifies_and_is_verified() {
    lab_test("gnutls", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let edge = pki.server("edge-a", &[NAME])?;
        let identity = pki.server("partner", &["sip.partner.example"])?;
        let server = OpensslServer::start(lab, "edge", &lab.edge_a, SIP_TLS, &edge, &pki)?;
        let address = SocketAddr::new(EDGE_A.v4.into(), SIP_TLS);
        let client = GnutlsClient::new(&lab.partner, NAME, &identity, &pki);
        for version in TlsVersion::BOTH {
            let session = client
                .clone()
                .version(version)
                .connect(lab, address, TIMEOUT)?;
            ensure!(session.version == version, "{session:?}");
            ensure!(session.names == [NAME], "{session:?}");
        }
        let silent = GnutlsClient {
            sends_name: false,
            ..client.clone()
        };
        silent.connect(lab, SocketAddr::new(EDGE_A.v6.into(), SIP_TLS), TIMEOUT)?;
        ensure!(
            server
                .process
                .stderr()?
                .matches("CONNECTION ESTABLISHED")
                .count()
                == 3
        );

        let elsewhere = GnutlsClient {
            name: OTHER,
            ..client.clone()
        };
        ensure!(elsewhere.connect(lab, address, TIMEOUT).is_err());
        let nobody = GnutlsClient {
            identity: None,
            ..client
        };
        ensure!(nobody.connect(lab, address, TIMEOUT).is_err());
        Ok(())
    });
}

/// What rustls sends first.
fn hello() -> Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from(NAME)?)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn hellos_are_replayed_in_any_pieces() {
    lab_test("replay", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let tls = EdgeTls::new(&pki.server("edge-a", &[NAME])?, &pki)?;
        let edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&tls))?;
        let hello = hello()?;
        let address = SocketAddr::new(EDGE_A.v4.into(), SIP_TLS);
        let send = |bytes: &[u8], segments| replay(&lab.partner, address, bytes, segments, TIMEOUT);
        let single = Segments::Of(1, Duration::ZERO);
        for (bytes, segments) in [
            (hello.clone(), Segments::Few),
            (in_records(&hello, 1)?, Segments::Few),
            (
                in_records(&hello, 16)?,
                Segments::Of(7, Duration::from_millis(1)),
            ),
        ] {
            let answer = send(&bytes, segments)?;
            ensure!(matches!(answer, Answer::ServerHello(_)), "{answer:?}");
            let name = edge.report(TIMEOUT)?.server_name;
            ensure!(name.is_none(), "the handshake went on: {name:?}");
        }
        // One byte in each segment, as the kernel counts them.
        let before = lab.partner.tcp_counters()?;
        let answer = send(&hello, single)?;
        ensure!(matches!(answer, Answer::ServerHello(_)), "{answer:?}");
        let segments = lab
            .partner
            .tcp_counters()?
            .since(&before)
            .value("TcpOutSegs");
        let length = u64::try_from(hello.len())?;
        ensure!(segments >= length, "{length} bytes in {segments} segments");

        // rustls answers what is no TLS with an alert: decode_error or unexpected_message, or so.
        let answer = send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Segments::Few)?;
        ensure!(matches!(answer, Answer::Alert(2, _)), "{answer:?}");
        drop(edge);
        ensure!(send(&hello, Segments::Few).is_err());
        Ok(())
    });
}

#[test]
fn a_storm_tells_which_certificates_it_got_and_what_failed() {
    lab_test("storm", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let identity = pki
            .certificate("partner")
            .names(&["sip.partner.example"])
            .ecdsa()
            .issue()?;
        let tls = PartnerTls::new(NAME, &identity, &pki, None)?;
        let certificate = |file: &str| pki.certificate(file).names(&[NAME]).ecdsa().issue();
        let (old, new) = (certificate("old")?, certificate("new")?);
        let start =
            |edge: &Identity| Edge::start(&lab.edge_a, SIP_TLS, Some(&EdgeTls::new(edge, &pki)?));
        let address = SocketAddr::new(EDGE_A.v6.into(), SIP_TLS);
        let storm = |limit| Storm::start(&partner(lab, &tls), address, 8, limit);

        let edge = start(&old)?;
        let report = storm(Limit::Connections(100))?.finish()?;
        report.ensure_no_failure()?;
        ensure!(report.connections.len() == 100 && report.per_second() > 0.0);
        ensure!(report.certificates() == [(old.fingerprint()?, 100)].into());

        // An Edge that changes its certificate by being away for a while: both are seen, and so is the gap.
        let running = storm(Limit::Time(TIMEOUT))?;
        running.wait_for(20, TIMEOUT)?;
        drop(edge);
        // The eight under way, and then some that find nobody.
        running.wait_for(running.ended() + 10, TIMEOUT)?;
        let _edge = start(&new)?;
        running.wait_for(running.ended() + 50, TIMEOUT)?;
        let report = running.stop()?;
        let seen = report.certificates();
        ensure!(seen.len() == 2, "{seen:?}");
        ensure!(seen.contains_key(&old.fingerprint()?) && seen.contains_key(&new.fingerprint()?));
        let refused = report.failures.get("connect: connection refused");
        ensure!(refused.is_some(), "{:?}", report.failures);
        ensure!(report.ensure_no_failure().is_err());

        // A certificate for another name is none for this one.
        let wrong = PartnerTls::new(OTHER, &identity, &pki, None)?;
        let report =
            Storm::start(&partner(lab, &wrong), address, 2, Limit::Connections(3))?.finish()?;
        ensure!(report.connections.is_empty());
        let (kind, count) = report.failures.first_key_value().context("no failure")?;
        ensure!(
            kind.starts_with("handshake: invalid peer certificate"),
            "{kind}"
        );
        ensure!(
            *count == 3 && report.failures.len() == 1,
            "{:?}",
            report.failures
        );
        Ok(())
    });
}

#[test]
fn haproxy_and_nginx_pass_through_and_terminate() {
    lab_test("proxies", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let identity = pki.server("partner", &["sip.partner.example"])?;
        let (a, b) = (
            pki.server("edge-a", &[NAME])?,
            pki.server("edge-b", &[OTHER])?,
        );
        let own = pki.server("proxy", &[NAME])?;
        let _edge_a = Edge::start(&lab.edge_a, SIP_TLS, Some(&EdgeTls::new(&a, &pki)?))?;
        let _edge_b = Edge::start(&lab.edge_b, SIP_TLS, Some(&EdgeTls::new(&b, &pki)?))?;
        let _plain = Edge::start(&lab.edge_b, 5060, None)?;
        let edge_a = SocketAddr::new(EDGE_A.v4.into(), SIP_TLS);
        let edge_b = SocketAddr::new(EDGE_B.v6.into(), SIP_TLS);
        let plain = SocketAddr::new(EDGE_B.v4.into(), 5060);
        let front = SocketAddr::new(VIP_1.v4.into(), SIP_TLS);

        let tls = |name| PartnerTls::new(name, &identity, &pki, None);
        let get = |name| -> Result<[u8; 32]> {
            let report =
                Storm::start(&partner(lab, &tls(name)?), front, 4, Limit::Connections(20))?
                    .finish()?;
            report.ensure_no_failure()?;
            let seen = report.certificates();
            ensure!(seen.len() == 1, "{seen:?}");
            Ok(*seen.first_key_value().context("no certificate")?.0)
        };
        let through = Way::PassThrough(&[(NAME, edge_a), (OTHER, edge_b)]);
        let to_tls = Upstream {
            server_name: NAME,
            roots: pki.roots(),
            identity: &own,
        };
        let terminate = |edge, upstream| Way::Terminate {
            identity: &own,
            clients: Some(pki.roots()),
            edge,
            upstream,
        };
        for make in Make::BOTH {
            let start =
                |way: &Way<'_>| Proxy::start(lab, make, &lab.gateway, front, Size::of(1), way);
            {
                let _proxy = start(&through)?;
                ensure!(get(NAME)? == a.fingerprint()?, "{make:?}");
                ensure!(get(OTHER)? == b.fingerprint()?, "{make:?}");
                let unknown = tls("sip.unknown.example")?;
                ensure!(partner(lab, &unknown).echo(front).is_err(), "{make:?}");
            }
            for way in [
                terminate(edge_a, Some(to_tls.clone())),
                terminate(plain, None),
            ] {
                let _proxy = start(&way)?;
                ensure!(get(NAME)? == own.fingerprint()?, "{make:?}");
            }
            // The Edge's certificate does not carry this name.
            let misled = Upstream {
                server_name: OTHER,
                ..to_tls.clone()
            };
            let _proxy = start(&terminate(edge_a, Some(misled)))?;
            let tls = tls(NAME)?;
            ensure!(partner(lab, &tls).echo(front).is_err(), "{make:?}");
        }
        Ok(())
    });
}
