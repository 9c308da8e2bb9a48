//! The agent's beginnings and ends.

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab,
    addresses::{EDGE_A, EDGE_B},
    deadline::Deadline,
    gateway::{Gateway, binary},
    lab_test, output_within,
};

use crate::{
    TIMEOUT, both,
    federation::{Federation, OTHER, domain, ip_set},
    quiet,
};

/// All that an agent adds to the host's network, and what else it is known by.
fn traces(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for arguments in [
        &["-o", "addr", "show"][..],
        &["rule"],
        &["-6", "rule"],
        &["route", "show", "table", "all"],
        &["-o", "link", "show"],
    ] {
        text += &lab.gateway.output("ip", arguments)?;
    }
    text += &lab.gateway.output("ss", &["-Hlntu"])?;
    text += &lab
        .gateway
        .output("ss", &["-Hlx", "src", "@snigate-agent"])?;
    Ok(text)
}

/// The same, line by line, less what differs between two agents that are alike: numbers of programs, sockets and ports.
fn lasting(traces: &str) -> Vec<String> {
    let lasting = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let count = match words.first() {
            Some(&("tcp" | "u_str")) => 2,
            _ => words
                .iter()
                .position(|word| *word == "id")
                .unwrap_or(words.len()),
        };
        words[..count].join(" ")
    };
    let mut lines: Vec<_> = traces.lines().map(lasting).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn an_agent_that_was_killed_is_followed_by_the_next() {
    lab_test("life-kill", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let before = traces(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", OTHER, "inspect = true\nbind = false")
            + &domain("contoso.example", "edges-a")
            + &federation.terminated("tailspin.example", "edges-b")?;
        let mut gateway = Gateway::start(lab, &tables)?;
        let serves = || -> Result<()> {
            for (name, edge) in [
                ("sip.contoso.example", EDGE_A),
                ("sip.tailspin.example", EDGE_B),
            ] {
                for (address, expected) in both(OTHER).into_iter().zip(both(edge)) {
                    let edge = federation.reach(name, address)?;
                    ensure!(edge == expected, "{name}: {edge}");
                }
            }
            Ok(())
        };
        serves()?;
        let running = traces(lab)?;
        ensure!(lasting(&running) != lasting(&before), "{running}");
        for _ in 0..2 {
            gateway.kill()?;
            gateway.run(&[])?;
            ensure!(
                gateway.log()?.contains("adopted the datapath"),
                "{}",
                gateway.log()?
            );
            serves()?;
            // What the dead one left is used, and nothing is there twice.
            let [now, then] = [&traces(lab)?, &running].map(|text| lasting(text));
            ensure!(now == then, "{now:#?}\ninstead of\n{then:#?}");
        }
        // One that changes its mind after the death of another: what is not needed goes.
        gateway.kill()?;
        gateway.configure(
            "",
            &(federation.pools()? + &ip_set("steered", OTHER, "steer = \"edges-a\"")),
        )?;
        gateway.run(&[])?;
        let addresses = lab.gateway.output("ip", &["-o", "addr", "show"])?;
        ensure!(!addresses.contains(&OTHER.v4.to_string()), "{addresses}");
        let rules = lab.gateway.output("ip", &["rule"])?;
        ensure!(!rules.contains("5061"), "{rules}");
        Ok(())
    });
}

#[test]
fn an_orderly_end_leaves_nothing() {
    lab_test("life-end", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let before = traces(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", OTHER, "inspect = true\nbind = false")
            + &domain("contoso.example", "edges-a")
            + &federation.terminated("tailspin.example", "edges-b")?;
        let mut gateway = Gateway::start(lab, &tables)?;
        ensure!(gateway.control().exists() && gateway.pin_path().exists());
        // In the middle of connections of both kinds, and after a reload.
        let mut open = Vec::new();
        for name in ["sip.contoso.example", "sip.tailspin.example"] {
            for address in both(OTHER) {
                open.push(federation.open(name, address)?);
            }
        }
        gateway.output(&["reload"])?;
        gateway.stop()?;
        // The kernel detaches a moment after the last reference to a link is gone.
        Deadline::after(TIMEOUT).poll("the host to be as it was", || {
            let [now, then] = [&traces(lab)?, &before].map(|text| lasting(text));
            Ok((now == then).then_some(()))
        })?;
        ensure!(!gateway.control().exists() && !gateway.pin_path().exists());
        for mut connection in open {
            ensure!(connection.ping().is_err(), "the agent carried it");
        }
        let said = gateway.refusal(&["reload"])?;
        ensure!(said.contains("no agent answers at"), "{said}");
        // And it can begin again.
        gateway.run(&[])?;
        // The partner still sends to where nobody was, and what waits for an answer to its ARP request fails with that.
        let again = || Ok(federation.reach("sip.contoso.example", both(OTHER)[0]).ok());
        Deadline::after(TIMEOUT).poll("a connection to the next agent", again)?;
        Ok(())
    });
}

#[test]
fn a_second_agent_is_refused() {
    lab_test("life-second", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", OTHER, "inspect = true\nbind = false")
            + &domain("contoso.example", "edges-a");
        let gateway = Gateway::start(lab, &tables)?;
        let mut open = federation.open("sip.contoso.example", both(OTHER)[0])?;
        let before = traces(lab)?;
        // The same configuration, and one with places of its own.
        let same = std::fs::read_to_string(gateway.config())?;
        let own = same
            .replace("/snigate\"", "/second\"")
            .replace("control.sock", "second.sock");
        for (name, text) in [("same.toml", same), ("own.toml", own)] {
            let file = lab.write_file(name, &text)?;
            let mut second = lab.gateway.command(binary()?);
            second.args(["run", "--config"]).arg(file);
            let output = output_within(&mut second, TIMEOUT)?;
            let said = String::from_utf8(output.stderr)?;
            ensure!(
                output.status.code() == Some(1)
                    && said.contains("another agent runs in this network namespace"),
                "{name}: {}: {said}",
                output.status
            );
        }
        let [now, then] = [&traces(lab)?, &before].map(|text| lasting(text));
        ensure!(now == then, "{now:#?}\ninstead of\n{then:#?}");
        open.ping().context("with the first one")?;
        federation.reach("sip.contoso.example", both(OTHER)[1])?;
        gateway.output(&["reload"])?;
        Ok(())
    });
}
