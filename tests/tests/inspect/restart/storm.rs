//! Many connections, and an agent that is killed again and again.

use std::time::{Duration, Instant};

use anyhow::ensure;
use snigate_tests::{
    addresses::at,
    gateway::Gateway,
    lab_test,
    peers::{Limit, Partner, Storm, StormConnection},
};

use super::{NAME, tables};
use crate::{
    TIMEOUT,
    federation::{Federation, OTHER},
    quiet, tcp,
};

/// How often the agent dies.
const KILLS: usize = 5;
/// How many partners connect at once.
const CLIENTS: usize = 16;
/// Fewer than the backlog, and than `net.core.somaxconn` of any kernel of today.
const WAITING: usize = 200;

#[test]
fn a_whole_queue_waits() {
    lab_test("restart-queue", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let mut gateway = Gateway::start(lab, &tables(&federation)?)?;
        gateway.kill()?;
        let tls = federation.tls(NAME)?;
        let partner = Partner {
            tls: Some(&tls),
            ..tcp(lab)
        };
        let limit = Limit::Connections(WAITING);
        let storm = Storm::start(&partner, at(OTHER.v4.into()), WAITING, limit)?;
        super::until("a full queue", || {
            // Recv-Q of a listening socket are those that wait.
            let listening = lab.gateway.output("ss", &["-Hlnt"])?;
            let waiting = listening.split_whitespace().nth(1);
            Ok(waiting.and_then(|waiting| waiting.parse().ok()) == Some(WAITING))
        })?;
        ensure!(storm.ended() == 0);
        gateway.run(&[])?;
        let report = storm.finish()?;
        report.ensure_no_failure()?;
        eprintln!(
            "{} of {WAITING} that waited were served",
            report.connections.len()
        );
        Ok(())
    });
}

#[test]
fn nobody_is_refused_while_agents_die() {
    lab_test("restart-storm", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let mut gateway = Gateway::start(lab, &tables(&federation)?)?;
        let tls = federation.tls(NAME)?;
        let partner = Partner {
            tls: Some(&tls),
            ..tcp(lab)
        };
        let limit = Limit::Time(Duration::from_secs(120));
        let storm = Storm::start(&partner, at(OTHER.v4.into()), CLIENTS, limit)?;
        let mut lives = Vec::new();
        for _ in 0..KILLS {
            let ended = storm.ended();
            storm.wait_for(ended + 5 * CLIENTS, TIMEOUT)?;
            gateway.kill()?;
            let dead = Instant::now();
            gateway.run(&[])?;
            lives.push((dead, Instant::now()));
        }
        let ended = storm.ended();
        storm.wait_for(ended + 5 * CLIENTS, TIMEOUT)?;
        let report = storm.stop()?;
        // Begun before the next agent was ready, and not completed when the one before was dead.
        let has_waited = |connection: &&StormConnection| {
            let StormConnection { started, setup, .. } = **connection;
            lives
                .iter()
                .any(|(dead, ready)| started < *ready && started + setup > *dead)
        };
        let waited = report.connections.iter().filter(has_waited).count();
        eprintln!(
            "{KILLS} agents killed: {} connections went well, {waited} of them after a wait for the next agent; failed: {:?}",
            report.connections.len(),
            report.failures
        );
        ensure!(waited > 0, "nobody has waited");
        // What a killed agent carried ends with it: each client can lose the one connection that it has.
        ensure!(
            !report
                .failures
                .keys()
                .any(|what| what.starts_with("connect:")),
            "{:?}",
            report.failures
        );
        let failed: usize = report.failures.values().sum();
        ensure!(failed <= KILLS * CLIENTS, "{:?}", report.failures);
        Ok(())
    });
}
