//! Whatever shape a ClientHello comes in, the Edge gets it as it was sent; what is none, or must not be routed, reaches no Edge.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use snigate_tests::{
    Lab,
    addresses::{SIP_TLS, VIP_1},
    at_once,
    gateway::Gateway,
    lab_test,
    peers::{Answer, EchoEdge, OpensslServer, Segments, captured_hello, in_records, replay},
    pki::Pki,
};

use crate::{
    THREE_DOMAINS, TIMEOUT, both, counted,
    echo::{connect, say},
    ensure_counted,
    hellos::{all_captured, asking_for, padded, vector, with_server_name},
    quiet, shared,
};

const ONE_BYTE: Segments = Segments::Of(1, Duration::ZERO);

/// What clients may send right behind: a change of cipher spec and early data.
const BEHIND: &[u8] = b"\x14\x03\x03\x00\x01\x01\x17\x03\x03\x00\x05hello";

fn arrives(lab: &Lab, edge: &str, what: &str, bytes: &[u8], segments: Segments) -> Result<()> {
    for address in both(VIP_1) {
        let echo = say(lab, address, bytes, segments)?;
        ensure!(echo.edge == edge, "{what} to {address}: {}", echo.edge);
        ensure!(echo.bytes == bytes, "{what}: other bytes arrived");
    }
    Ok(())
}

#[test]
fn hellos_in_any_pieces_arrive_byte_for_byte() {
    lab_test("inspect-pieces", &quiet(), |lab| {
        let _edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let config = shared("preserve", "default = \"edges-b\"", THREE_DOMAINS);
        let _gateway = Gateway::start(lab, &config)?;
        at_once(&all_captured()?, |(name, hello)| {
            let edge = if name.contains("no-name") { "b" } else { "a" };
            let behind = [hello, BEHIND].concat();
            arrives(lab, edge, name, &behind, Segments::Few)?;
            arrives(lab, edge, name, hello, ONE_BYTE)?;
            for size in [1, 2, 16] {
                let what = format!("{name} in records of {size}");
                arrives(lab, edge, &what, &in_records(hello, size)?, Segments::Few)?;
            }
            Ok(())
        })?;
        at_once(&[5_000, 15_000, 40_000], |&size| {
            let hello = padded(size)?;
            let what = format!("{} bytes", hello.len());
            ensure!(hello.len() > size);
            arrives(lab, "a", &what, &hello, Segments::Few)?;
            let segments = Segments::Of(1000, Duration::ZERO);
            arrives(lab, "a", &what, &in_records(&hello, 16)?, segments)
        })
    });
}

#[test]
fn chromiums_hello_is_answered_by_openssl() {
    lab_test("inspect-chromium", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        let identity = pki.server("edge-a", &["sip.fabrikam.example"])?;
        let _server = OpensslServer::start(lab, "edge-a", &lab.edge_a, SIP_TLS, &identity, &pki)?;
        let _gateway = Gateway::start(lab, &shared("gateway", "", THREE_DOMAINS))?;
        let hello = captured_hello("chromium")?;
        for address in both(VIP_1) {
            for segments in [Segments::Few, ONE_BYTE] {
                let answer = replay(&lab.partner, address, &hello, segments, TIMEOUT)?;
                ensure!(matches!(answer, Answer::ServerHello(_)), "{answer:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn slow_clients_have_until_the_deadline_and_disturb_nobody() {
    lab_test("inspect-slow", &quiet(), |lab| {
        let _edge = EchoEdge::start(&lab.edge_a, "a")?;
        let gateway = Gateway::start(lab, &shared("preserve", "", THREE_DOMAINS))?;
        let hello = asking_for("sip.contoso.example")?;
        let (head, third) = (&hello[..hello.len() - 1], hello.len().div_ceil(3));
        thread::scope(|scope| -> Result<()> {
            let mut endless = Vec::new();
            let mut gaps = Vec::new();
            for address in both(VIP_1) {
                // All but the last byte at once, or byte after byte: neither is ever complete.
                for segments in [Segments::Few, Segments::Of(1, Duration::from_millis(100))] {
                    endless.push(
                        scope.spawn(move || replay(&lab.partner, address, head, segments, TIMEOUT)),
                    );
                }
                let hello = &hello;
                gaps.push(scope.spawn(move || {
                    let pause = Duration::from_millis(1300);
                    say(lab, address, hello, Segments::Of(third, pause))
                }));
            }
            let mut undisturbed = 0;
            loop {
                for address in both(VIP_1) {
                    say(lab, address, &hello, Segments::Few)?;
                }
                if endless.iter().any(|thread| thread.is_finished()) {
                    break;
                }
                undisturbed += 1;
            }
            ensure!(undisturbed > 0, "everybody waited for the slow ones");
            for client in endless {
                let answer = client.join().expect("no panic")?;
                ensure!(answer == Answer::Closed, "{answer:?}");
            }
            for client in gaps {
                ensure!(client.join().expect("no panic")?.bytes == hello);
            }
            Ok(())
        })?;
        ensure_counted(&gateway, "hello-timeout", 4)?;

        // Who gives up in the middle is neither answered nor routed.
        for address in both(VIP_1) {
            let mut stream = connect(lab, None, address)?;
            stream.write_all(head)?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            ensure!(answer.is_empty(), "{answer:02x?}");
        }
        ensure_counted(&gateway, "hello-closed", 2)
    });
}

#[test]
fn what_must_not_be_routed_reaches_no_edge() {
    lab_test("inspect-refused", &quiet(), |lab| {
        let edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        // The default is for clients without a name, not for those with a wrong one.
        let config = shared("preserve", "default = \"edges-b\"", THREE_DOMAINS);
        let gateway = Gateway::start(lab, &config)?;
        let is = |bytes: &[u8], expected: &Answer, reason: &str| -> Result<()> {
            let before = counted(&gateway, reason)?;
            for address in both(VIP_1) {
                let answer = replay(&lab.partner, address, bytes, Segments::Few, TIMEOUT)?;
                ensure!(answer == *expected, "{reason} to {address}: {answer:?}");
            }
            ensure_counted(&gateway, reason, before + 2)
        };
        let (http, sip, ssh) = (
            b"GET / HTTP/1.1\r\nHost: sip.contoso.example\r\n\r\n",
            b"OPTIONS sip:sip.contoso.example SIP/2.0\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
        );
        is(http, &Answer::Closed, "not-tls-http")?;
        is(sip, &Answer::Closed, "not-tls-sip")?;
        is(ssh, &Answer::Closed, "not-tls-other")?;

        let name =
            |kind: u8, name: &[u8]| [&[kind], vector(name.iter().copied()).as_slice()].concat();
        let long = format!("sip.{}.contoso.example", ["a"; 120].join("."));
        for (reason, list) in [
            ("name-nul", name(0, b"sip.contoso.example\0.evil.example")),
            ("name-not-host", name(0, b"sip contoso.example")),
            ("name-not-host", name(0, b"sip..contoso.example")),
            ("name-address", name(0, b"198.51.100.10")),
            ("name-too-long", name(0, long.as_bytes())),
            ("name-type", name(1, b"sip.contoso.example")),
            ("name-empty", name(0, b"")),
            (
                "name-several",
                [
                    name(0, b"sip.contoso.example"),
                    name(0, b"sip.adatum.example"),
                ]
                .concat(),
            ),
        ] {
            let hello = with_server_name(&vector(list))?;
            is(&hello, &Answer::Alert(2, 47), reason)?;
        }
        for overrun in [
            // The list, and the name, end later than their extension.
            &b"\0\x40\0\0\x13sip.contoso.example"[..],
            b"\0\x16\0\0\x40sip.contoso.example",
        ] {
            is(
                &with_server_name(overrun)?,
                &Answer::Alert(2, 50),
                "lengths-overrun",
            )?;
        }
        // Three times the bound of 64 KiB, in records of one byte each.
        let endless = in_records(&padded(33_000)?, 1)?;
        is(&endless, &Answer::Alert(2, 47), "too-large")?;
        for edge in &edges {
            ensure!(edge.connections() == 0, "an Edge was reached");
        }
        Ok(())
    });
}
