//! A pool with no Edge that is up: its clients are told at once, whichever way they come.

use std::io::ErrorKind;

use anyhow::{Context as _, Result, bail, ensure};
use snigate_tests::{
    Lab,
    faults::{self, Syns},
    gateway::Gateway,
    lab_test,
    peers::{Answer, EchoEdge, Segments, client_hello, is_of_kind, replay},
};

use crate::{
    CLIENTS, NAME, OFTEN, TIMEOUT, WAYS, WELL, Way, all_become, all_live, client::Client,
    one_of_each, quiet, start, to_edge,
};

/// How many packets were dropped or answered for a reason.
fn drops(gateway: &Gateway<'_>, reason: &str) -> Result<u64> {
    let status = gateway.json(&["status", "--all"])?;
    let rows = status["drops"].as_array().context("reasons")?;
    let row = rows.iter().find(|row| row["reason"] == reason);
    row.and_then(|row| row["packets"].as_u64())
        .with_context(|| status.to_string())
}

/// What the agent has counted under a name.
fn counted(gateway: &Gateway<'_>, name: &str) -> Result<u64> {
    let counters = &gateway.agent()?["counters"];
    Ok(counters
        .get(name)
        .and_then(|count| count.as_u64())
        .unwrap_or(0))
}

/// A client of each way is told in its way's words.
fn everybody_is_told(lab: &Lab, by_the_agent: bool) -> Result<()> {
    let hello = client_hello(NAME)?;
    for _ in 0..CLIENTS {
        for address in Way::Steered.addresses() {
            match Client::open(lab, Way::Steered, address, None) {
                Err(error) if is_of_kind(&error, &[ErrorKind::ConnectionRefused]) => {}
                Err(error) => return Err(error),
                Ok(client) => bail!("edge-{} has answered", client.edge()),
            }
        }
        for address in Way::Bound.addresses() {
            let answer = replay(&lab.partner, address, &hello, Segments::Few, TIMEOUT)?;
            ensure!(answer == Answer::Reset, "{answer:?}");
        }
        if by_the_agent {
            for address in Way::Relayed.addresses() {
                let answer = replay(&lab.partner, address, &hello, Segments::Few, TIMEOUT)?;
                // internal_error (RFC 8446 section 6): it is not the client's fault.
                ensure!(answer == Answer::Alert(2, 80), "{answer:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn clients_of_a_pool_without_an_edge_are_told_at_once() {
    lab_test("health-nobody", &quiet(), |lab| {
        let _edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let mut gateway = start(lab, OFTEN, "")?;
        let mut open = one_of_each(lab)?;
        // Silent: whoever tried would wait.
        for namespace in [&lab.edge_a, &lab.edge_b] {
            faults::take_no_more(namespace, Syns::Lost)?;
        }
        for letter in ["a", "b"] {
            all_become(&gateway, letter, "down", "the TCP handshake")?;
        }
        let (reset, refused) = (
            drops(&gateway, "no-edge")?,
            counted(&gateway, "no-edge-up")?,
        );
        let tried = counted(&gateway, "edge-silent")?;
        everybody_is_told(lab, true)?;
        let each = 2 * CLIENTS as u64;
        let now = drops(&gateway, "no-edge")?;
        ensure!(now == reset + 2 * each, "{reset}, then {now}");
        let now = counted(&gateway, "no-edge-up")?;
        ensure!(now == refused + each, "{refused}, then {now}");
        ensure!(
            counted(&gateway, "edge-silent")? == tried,
            "an Edge was tried"
        );
        all_live(&mut open)?;

        // Without an agent the datapath says the same.
        gateway.kill()?;
        open.retain(|client| client.way() != Way::Relayed);
        everybody_is_told(lab, false)?;
        all_live(&mut open)?;
        for namespace in [&lab.edge_a, &lab.edge_b] {
            faults::stop_losing(namespace)?;
        }
        gateway.run(&[])?;
        for letter in ["a", "b"] {
            all_become(&gateway, letter, "up", WELL)?;
        }
        for way in WAYS {
            for address in way.addresses() {
                to_edge(lab, way, address, "a")?;
            }
        }
        all_live(&mut open)
    });
}
