//! `snigate top` on traffic.

use std::{process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    addresses::{EDGE_A, SIP_TLS, VIP_3},
    gateway::Gateway,
    lab_test, output_within,
    peers::{Opener, StreamEdge, converse},
};

use crate::rig::{TIMEOUT, quiet};

const NAME: &str = "sip.contoso.example";

fn tables() -> String {
    format!(
        r#"
[[edge]]
name = "edge-a"
address = "{}:5061"
[[pool]]
name = "edges"
edges = ["edge-a"]
[[ip_set]]
name = "shared"
addresses = ["{}"]
inspect = true
[[domain]]
sip_domain = "contoso.example"
pool = "edges"
"#,
        EDGE_A.v4, VIP_3.v4
    )
}

/// What was written between the terminal's control sequences, which stand for blanks that were there already.
fn words(written: &str) -> String {
    let mut text = String::new();
    for (index, part) in written.split("\u{1b}[").enumerate() {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        let rest = end
            .filter(|_| index > 0)
            .map_or(part, |end| &part[end + 1..]);
        text += rest;
        text.push(' ');
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a person sees who presses these keys, on a terminal of 80 by 24.
fn pressed(gateway: &Gateway<'_>, keys: &str) -> Result<String> {
    let command = gateway.prepared(&["top"])?;
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_str().context("UTF-8"))
        .collect::<Result<Vec<_>>>()?;
    let on_terminal = format!("stty rows 24 cols 80; {}", words.join(" "));
    let mut script = Command::new("sh");
    script
        .args([
            "-c",
            "printf %s \"$1\" | script -qec \"$2\" /dev/null",
            "sh",
        ])
        .args([keys, &on_terminal])
        .env("TERM", "xterm");
    let output = output_within(&mut script, TIMEOUT)?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn what_happens_is_shown_by_rate() {
    lab_test("cli-top", &quiet(), |lab| {
        let _edge = StreamEdge::start(&lab.edge_a, SIP_TLS)?;
        let gateway = Gateway::start(lab, &tables())?;
        let mut streams = Opener::new(&lab.partner, VIP_3.sip()[0], NAME)?.echoing(5)?;
        let (frame, text) = thread::scope(|scope| -> Result<_> {
            let talking = scope.spawn(|| converse(&mut streams, Duration::from_secs(6)));
            let frame = gateway.json(&["top", "--interval", "500ms"])?;
            let text = gateway.output(&["top", "--once", "--view", "routes"])?;
            talking.join().expect("no panic")?;
            Ok((frame, text))
        })?;
        let rate = |line: &serde_json::Value| line["to_edge"].as_f64().unwrap_or_default();
        for list in ["edges", "pools", "routes"] {
            ensure!(rate(&frame[list][0]) > 1024.0, "{list}: {frame}");
        }
        ensure!(frame["edges"][0]["name"] == "edge-a", "{frame}");
        ensure!(frame["routes"][0]["name"] == NAME, "{frame}");
        ensure!(frame["flows"] == 5, "{frame}");
        let flows = frame["single"].as_array().context("flows")?;
        ensure!(
            flows.len() == 5 && flows.iter().all(|flow| rate(flow) > 0.0),
            "{frame}"
        );
        ensure!(frame["forwarded_packets"].as_f64() > Some(0.0), "{frame}");
        let listed = |line: &str| line.starts_with(NAME) && line.contains("edges");
        ensure!(text.lines().any(listed), "{text}");

        // On a terminal: the first list, another one, and the terminal as it was.
        let seen = pressed(&gateway, "5q")?;
        for part in ["edge-a", "Tab or 1-5", "nothing has been dropped"] {
            ensure!(words(&seen).contains(part), "no {part}: {seen:?}");
        }
        let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
        ensure!(seen.contains(enter) && seen.contains(leave), "{seen:?}");
        // Without one, a sentence.
        let refused = gateway.command(&["top"])?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            refused.status.code() == Some(2) && said.contains("--once"),
            "{said}"
        );
        Ok(())
    });
}
