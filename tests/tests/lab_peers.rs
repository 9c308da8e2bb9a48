//! The Rust peers prove themselves, over the kernel's own routing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use snigate_tests::addresses::{EDGE_A, SIP_TLS, partner};
use snigate_tests::peers::{Action, Edge, EdgeTls, End, Partner, PartnerTls, TlsVersion};
use snigate_tests::pki::Pki;
use snigate_tests::{Lab, Topology, faults, lab_test};

const TIMEOUT: Duration = Duration::from_secs(60);
const MEGABYTE: u64 = 1_000_000;
const NAME: &str = "sip.contoso.example";

fn tcp(lab: &Lab) -> Partner<'_> {
    Partner {
        namespace: &lab.partner,
        source: None,
        tls: None,
        timeout: TIMEOUT,
    }
}

fn edge_a(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, SIP_TLS)
}

fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

#[test]
fn bulk_arrives_unchanged_over_tls() {
    lab_test("bulk-tls", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let edge_tls = EdgeTls::new(&pki.server("edge-a", &[NAME])?, &pki)?;
        let identity = pki.server("partner", &["sip.partner.example"])?;
        let edge = Edge::start(&lab.edge_a, SIP_TLS, Some(&edge_tls))?;
        for address in EDGE_A.both() {
            for version in TlsVersion::BOTH {
                let tls = PartnerTls::new(NAME, &identity, &pki, Some(version))?;
                let partner = Partner {
                    tls: Some(&tls),
                    ..tcp(lab)
                };
                let done = partner.exchange(edge_a(address), 50 * MEGABYTE, 50 * MEGABYTE)?;
                ensure!(done.version == Some(version), "{done:?}");
                let report = edge.report(TIMEOUT)?;
                ensure!(report.server_name.as_deref() == Some(NAME), "{report:?}");
                ensure!(report.received == 50 * MEGABYTE, "{report:?}");
                ensure!(report.end == End::Clean, "{report:?}");

                partner.half_close(edge_a(address), 1000, 2000)?;
                ensure!(edge.report(TIMEOUT)?.end == End::Clean);
            }
        }
        Ok(())
    });
}

#[test]
fn connections_end_the_way_they_are_told_to() {
    lab_test("ends", &quiet(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let partner = tcp(lab);
        for address in EDGE_A.both().map(edge_a) {
            partner.half_close(address, MEGABYTE, MEGABYTE)?;
            let report = edge.report(TIMEOUT)?;
            ensure!(
                (report.received, &report.end) == (MEGABYTE, &End::Clean),
                "{report:?}"
            );

            partner.half_closed(address, MEGABYTE, MEGABYTE)?;
            let report = edge.report(TIMEOUT)?;
            ensure!(
                (report.received, &report.end) == (MEGABYTE, &End::Clean),
                "{report:?}"
            );

            partner.be_reset(address)?;
            let report = edge.report(TIMEOUT)?;
            ensure!(
                report.request.is_some_and(|r| r.action == Action::Reset),
                "{report:?}"
            );

            partner.reset(address)?;
            ensure!(edge.report(TIMEOUT)?.end == End::Reset);
        }
        Ok(())
    });
}

#[test]
fn the_edge_says_whom_it_sees() {
    let topology = Topology {
        partner_addresses: 3,
        ..quiet()
    };
    lab_test("who-am-i", &topology, |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        for n in 0..3 {
            for (source, destination) in partner(n).both().into_iter().zip(EDGE_A.both()) {
                let from = Partner {
                    source: Some(SocketAddr::new(source, 0)),
                    ..tcp(lab)
                };
                let seen = from.who_am_i(edge_a(destination))?;
                ensure!(seen.ip() == source, "{seen}");
                let report = edge.report(TIMEOUT)?;
                ensure!(
                    report.peer == seen && report.local == edge_a(destination),
                    "{report:?}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn two_hundred_connections_at_once() {
    lab_test("parallel", &quiet(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let before = lab.partner.tcp_counters()?;
        for address in EDGE_A.both() {
            let all = tcp(lab).exchange_in_parallel(200, edge_a(address), 50_000, 50_000)?;
            ensure!(all.len() == 200);
        }
        let added = lab.partner.tcp_counters()?.since(&before);
        ensure!(added.value("TcpActiveOpens") == 400, "{added:?}");
        ensure!(added.checksum_errors() == 0, "{added:?}");
        Ok(())
    });
}

#[test]
fn a_connection_stays_open_between_pings() {
    lab_test("pings", &quiet(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let mut connection = tcp(lab).echo(edge_a(EDGE_A.v4.into()))?;
        for _ in 0..10 {
            connection.ping()?;
        }
        connection.close()?;
        ensure!(edge.report(TIMEOUT)?.end == End::Clean);
        Ok(())
    });
}

#[test]
fn a_router_with_a_smaller_mtu_is_found_out() {
    let topology = Topology {
        router_mtu: Some(1400),
        ..quiet()
    };
    lab_test("pmtu", &topology, |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        for address in EDGE_A.both() {
            tcp(lab).exchange(edge_a(address), MEGABYTE, MEGABYTE)?;
            let route = lab
                .partner
                .output("ip", &["route", "get", &address.to_string()])?;
            ensure!(route.contains("mtu 1400"), "{route}");
        }
        Ok(())
    });
}

#[test]
fn lost_segments_are_sent_again() {
    lab_test("loss", &quiet(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let address = edge_a(EDGE_A.v4.into());
        faults::lose_incoming(&lab.edge_a, 4)?;
        // Some hundred packets after the receiver has coalesced them: surely some are lost, and every byte arrives.
        let done = tcp(lab).exchange(address, 10 * MEGABYTE, 0)?;
        ensure!(done.retransmitted > 0, "{done:?}");
        ensure!(edge.report(TIMEOUT)?.received == 10 * MEGABYTE);

        faults::stop_losing(&lab.edge_a)?;
        let tables = lab.edge_a.output("nft", &["list", "tables"])?;
        ensure!(tables.is_empty(), "{tables}");
        Ok(())
    });
}

#[test]
fn a_blind_reset_is_well_formed_and_harmless() {
    lab_test("blind-reset", &quiet(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        for address in EDGE_A.both().map(edge_a) {
            let mut connection = tcp(lab).echo(address)?;
            let before = lab.edge_a.tcp_counters()?;
            faults::blind_reset(&lab.partner, connection.local(), address, 12345)?;
            connection.ping()?;
            let added = lab.edge_a.tcp_counters()?.since(&before);
            // The RST and the kilobyte; the ack of its echo may still be on its way.
            ensure!(added.value("TcpInSegs") >= 2, "{added:?}");
            ensure!(
                added.value("TcpInErrs") == 0 && added.checksum_errors() == 0,
                "{added:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_dropped_edge_closes_its_port_and_connections() -> Result<()> {
    let Some(lab) = Lab::for_test("edge-drop", &quiet()) else {
        return Ok(());
    };
    let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
    let mut connection = tcp(&lab).echo(edge_a(EDGE_A.v4.into()))?;
    drop(edge);
    ensure!(connection.ping().is_err());
    ensure!(!lab.edge_a.listens(SIP_TLS)?);
    Ok(())
}
