//! `snigate edge drain` and `edge enable`.

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    deadline::Deadline, gateway::Gateway, lab_test, output_within, peers::EchoEdge,
};

use crate::{
    OFTEN, TIMEOUT, WAYS, Way, all_become, all_live, all_reach, client::Client, edge, one_of_each,
    quiet, settled, start, state, to_edge,
};

const A: [&str; 2] = ["a-v4", "a-v6"];
const BY_COMMAND: &str = "drained by command";

fn drain(gateway: &Gateway<'_>) -> Result<()> {
    for name in A {
        let said = gateway.output(&["edge", "drain", name])?;
        // One connection of each way.
        let expected = format!("{name} gets no new connections; it has 3 connections");
        ensure!(said.contains(&expected), "{said}");
        ensure!(state(gateway, name)? == "draining");
    }
    Ok(())
}

#[test]
fn a_drained_edge_keeps_what_it_has_and_gets_nothing_new() {
    lab_test("health-drain", &quiet(), |lab| {
        let _edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let mut gateway = start(lab, OFTEN, "")?;
        let mut open = one_of_each(lab)?;
        settled(&gateway)?;
        drain(&gateway)?;
        all_reach(lab, "b")?;
        all_live(&mut open)?;
        let again = gateway.output(&["edge", "drain", A[0]])?;
        ensure!(again.contains("no new connections as before"), "{again}");

        // Neither another configuration nor another agent forgets it.
        gateway.output(&["reload"])?;
        all_become(&gateway, "a", "draining", BY_COMMAND)?;
        gateway.kill()?;
        open.retain(|client| client.way() != Way::Relayed);
        gateway.run(&[])?;
        all_become(&gateway, "a", "draining", BY_COMMAND)?;
        all_reach(lab, "b")?;
        all_live(&mut open)?;

        for name in A {
            let said = gateway.output(&["edge", "enable", name])?;
            ensure!(
                said == format!("{name} gets new connections again\n"),
                "{said}"
            );
            ensure!(state(&gateway, name)? == "up");
        }
        for way in WAYS {
            for address in way.addresses() {
                to_edge(lab, way, address, "a")?;
            }
        }
        all_live(&mut open)?;
        let said = gateway.output(&["edge", "enable", A[0]])?;
        ensure!(said.contains("was not drained"), "{said}");

        let refused = gateway.refusal(&["edge", "drain", "nobody"])?;
        ensure!(
            refused.contains("there is no Edge nobody: the Edges are a-v4, a-v6, b-v4, b-v6"),
            "{refused}"
        );
        Ok(())
    });
}

#[test]
fn at_the_deadline_what_is_left_is_reset() {
    lab_test("health-deadline", &quiet(), |lab| {
        let _edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let gateway = start(lab, OFTEN, "")?;
        let (mut at_a, mut at_b): (Vec<_>, Vec<_>) =
            (one_of_each(lab)?.into_iter()).partition(|client: &Client| client.edge() == "a");
        settled(&gateway)?;
        for name in A {
            let mut command = gateway.prepared(&["edge", "drain", name, "--deadline", "2s"])?;
            let output = output_within(&mut command, TIMEOUT)?;
            let said = String::from_utf8(output.stdout)?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{errors}");
            for part in [
                "it has 3 connections",
                "1 connection of the agent's ended",
                "2 flows ended",
            ] {
                ensure!(said.contains(part), "{part}: {said}");
            }
        }
        for client in &mut at_a {
            let way = client.way();
            match (way, client.ended()) {
                // Its two sockets are closed.
                (Way::Relayed, Ok(0)) => {}
                (_, Err(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                (_, end) => anyhow::bail!("{way:?}: {end:?}"),
            }
        }
        all_live(&mut at_b)?;
        ensure!(edge(&gateway, A[0])?["state"] == "draining");
        Ok(())
    });
}

#[test]
fn a_drain_can_be_watched_to_its_end() {
    lab_test("health-watch", &quiet(), |lab| {
        let _edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let gateway = start(lab, OFTEN, "")?;
        let mut open = Vec::new();
        for way in WAYS {
            open.push(to_edge(lab, way, way.addresses()[0], "a")?);
        }
        settled(&gateway)?;
        let watching = gateway.prepared(&["edge", "drain", A[0], "--watch"])?;
        let mut watching = lab.spawn("watching", watching)?;
        let counted = || {
            Ok(watching
                .stdout()?
                .contains("it has 3 connections")
                .then_some(()))
        };
        Deadline::after(TIMEOUT).poll("the connections to be counted", counted)?;
        for client in open {
            client.close()?;
        }
        let status = watching.wait_for_exit(TIMEOUT)?;
        let said = watching.stdout()?;
        ensure!(
            status.success() && said.ends_with("0 connections left\n"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn the_last_edge_of_a_pool_can_be_drained_and_that_is_said() {
    lab_test("health-last", &quiet(), |lab| {
        let _edges = [
            EchoEdge::start(&lab.edge_a, "a")?,
            EchoEdge::start(&lab.edge_b, "b")?,
        ];
        let gateway = start(lab, OFTEN, "")?;
        gateway.output(&["edge", "drain", "b-v4"])?;
        let output = gateway.command(&["edge", "drain", "a-v4"])?;
        let warned = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.success() && warned.contains("the pool both has no Edge left that is up"),
            "{warned}"
        );
        // Its checks go on, and decide when it is enabled.
        let why = edge(&gateway, "a-v4")?["checked_ms"].clone();
        why.as_u64().context("it is not checked")?;
        gateway.output(&["edge", "enable", "a-v4"])?;
        let reached = || {
            let address = Way::Steered.addresses()[0];
            Ok(Client::open(lab, Way::Steered, address, None).ok())
        };
        let client = Deadline::after(TIMEOUT).poll("a connection", reached)?;
        ensure!(client.edge() == "a");
        Ok(())
    });
}
