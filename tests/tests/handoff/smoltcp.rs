//! Ends that are not Linux.

use std::{panic::resume_unwind, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab, Topology,
    addresses::{FOREIGN_EDGE, FOREIGN_PARTNER, GATEWAY_LAN_A, GATEWAY_WAN, SIP_TLS, vips},
    deadline::Deadline,
    peers::{Action, End, Smoltcp, SmoltcpReport, captured_hello},
};

use crate::{HELLO, MEGABYTE, SOURCES, TIMEOUT, in_scenes, in_scenes_with};

const BYTES: u64 = 3 * MEGABYTE;

/// What is asked for, and how many bytes then go each way.
const WAYS: [(Action, u64); 5] = [
    (Action::Exchange, BYTES),
    (Action::AnswerAfterEnd, MEGABYTE),
    (Action::EndThenReceive, MEGABYTE),
    (Action::Reset, 0),
    (Action::Echo, 0),
];

#[test]
fn a_partner_that_is_not_linux() {
    in_scenes("smoltcp-partner", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        for timestamps in [true, false] {
            let mut partner = partner(scene.lab, timestamps)?;
            for address in vips() {
                for (action, bytes) in WAYS {
                    let what = format!("{address}, {action:?}, timestamps {timestamps}");
                    scene.cleanly(&what, || {
                        let seen = partner.ask(
                            address,
                            &captured_hello(HELLO)?,
                            action,
                            bytes,
                            deadline(),
                        )?;
                        check(&seen, action, bytes, action == Action::Reset)?;
                        let report = edge.report(TIMEOUT)?;
                        let end = match action {
                            Action::Echo => End::Reset,
                            _ => End::Clean,
                        };
                        ensure!(
                            (report.received, &report.end) == (bytes, &end),
                            "{report:?}"
                        );
                        Ok(())
                    })?;
                }
            }
            ensure!(partner.wrong_checksums() == 0);
        }
        scene.all_went()
    });
}

#[test]
fn an_edge_that_is_not_linux() {
    for source in SOURCES {
        in_scenes_with(
            "smoltcp-edge",
            &Topology::default(),
            source,
            &foreign_pool(source),
            |scene| {
                for timestamps in [true, false] {
                    let mut edge = edge(scene.lab, timestamps)?;
                    for address in vips() {
                        for (action, bytes) in WAYS {
                            let what = format!("{address}, {action:?}, timestamps {timestamps}");
                            let seen = scene
                                .cleanly(&what, || {
                                    beside(&mut edge, || {
                                        let partner = scene.partner();
                                        match action {
                                            Action::Exchange => partner
                                                .exchange(address, bytes, bytes)
                                                .map(|done| done.local),
                                            Action::AnswerAfterEnd => partner
                                                .half_close(address, bytes, bytes)
                                                .map(|done| done.local),
                                            Action::EndThenReceive => partner
                                                .half_closed(address, bytes, bytes)
                                                .map(|done| done.local),
                                            Action::Reset => partner.be_reset(address),
                                            _ => partner.reset(address),
                                        }
                                        .and_then(|client| scene.went(client))
                                    })
                                })
                                .with_context(|| what.clone())?;
                            ensure!(
                                seen.request.map(|request| request.action) == Some(action),
                                "{seen:?}"
                            );
                            let received = match action {
                                Action::Echo => 1024,
                                _ => bytes,
                            };
                            ensure!(
                                (seen.received, seen.reset) == (received, action == Action::Echo),
                                "{what}: {seen:?}"
                            );
                        }
                    }
                    ensure!(edge.wrong_checksums() == 0);
                }
                Ok(())
            },
        );
    }
}

#[test]
fn neither_end_is_linux() {
    for source in SOURCES {
        in_scenes_with(
            "smoltcp-both",
            &Topology::default(),
            source,
            &foreign_pool(source),
            |scene| {
                let mut partner = partner(scene.lab, true)?;
                let mut edge = edge(scene.lab, true)?;
                for address in vips() {
                    for (action, bytes) in WAYS {
                        let seen = beside(&mut edge, || {
                            let seen = partner.ask(
                                address,
                                &captured_hello(HELLO)?,
                                action,
                                bytes,
                                deadline(),
                            )?;
                            check(&seen, action, bytes, action == Action::Reset)
                        })
                        .with_context(|| format!("{address}, {action:?}"))?;
                        ensure!(seen.reset == (action == Action::Echo), "{seen:?}");
                    }
                }
                ensure!(partner.wrong_checksums() + edge.wrong_checksums() == 0);
                scene.all_went()
            },
        );
    }
}

/// Runs `body` while the Edge serves one connection, and returns what the Edge saw of it.
fn beside(edge: &mut Smoltcp, body: impl FnOnce() -> Result<()>) -> Result<SmoltcpReport> {
    thread::scope(|scope| {
        let serving = scope.spawn(|| edge.serve(SIP_TLS, deadline()));
        // It listens from its first step on.
        let done = body();
        let seen = serving.join().unwrap_or_else(|panic| resume_unwind(panic));
        done.and(seen)
    })
}

fn check(seen: &SmoltcpReport, action: Action, bytes: u64, reset: bool) -> Result<()> {
    let bytes = match action {
        Action::Echo => 1024,
        _ => bytes,
    };
    ensure!(
        (seen.received, seen.reset) == (bytes, reset),
        "{action:?}: {seen:?}"
    );
    Ok(())
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn partner(lab: &Lab, timestamps: bool) -> Result<Smoltcp> {
    Smoltcp::new(&lab.partner, FOREIGN_PARTNER, GATEWAY_WAN, timestamps)
}

fn edge(lab: &Lab, timestamps: bool) -> Result<Smoltcp> {
    // It answers nobody who asks for it before it serves, and the first connection would be left to the agent for that.
    let [a, b, c, d, e, f] = Smoltcp::mac(FOREIGN_EDGE);
    for address in FOREIGN_EDGE.both() {
        lab.gateway.ip(&format!(
            "neigh replace {address} lladdr {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} dev lan0 nud permanent"
        ))?;
    }
    Smoltcp::new(&lab.edge_a, FOREIGN_EDGE, GATEWAY_LAN_A, timestamps)
}

fn foreign_pool(source: &str) -> String {
    format!(
        r#"
[[edge]]
name = "foreign"
address = "{}:{SIP_TLS}"
source = "{source}"

[[edge]]
name = "foreign-v6"
address = "[{}]:{SIP_TLS}"
source = "{source}"

[[pool]]
name = "edges-a"
edges = ["foreign", "foreign-v6"]
"#,
        FOREIGN_EDGE.v4, FOREIGN_EDGE.v6
    )
}
