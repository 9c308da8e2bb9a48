//! `snigate check`, as far as it looks at the host.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{Lab, gateway::binary, lab_test, output_within};

use crate::rig::{CONFIG, Commands, TIMEOUT, quiet};

#[test]
fn check_looks_at_the_host() {
    lab_test("cli-check", &quiet(), |lab| {
        let pins = lab.bpffs()?.join("snigate");
        let commands = Commands {
            lab,
            pins: pins.clone(),
        };
        let write = |interfaces: &str| {
            let text = CONFIG.replace("\"wan0\"", interfaces).replace(
                "[[edge]]\nname = \"edge-a\"",
                &format!(
                    "pin_path = \"{}\"\n\n[[edge]]\nname = \"edge-a\"",
                    pins.display()
                ),
            );
            lab.write_file("check.toml", &text)
        };
        let file = write("\"wan0\", \"lan0\", \"lan1\"")?;
        let check = format!("check --config {}", file.display());
        commands.shows(
            &check,
            &[
                "3 Edges in 1 pool, 0 domains with 0 names (0 terminated here)",
                "shared 198.51.100.20 5061 443 by server name, else refused",
                "capabilities ok this process may load the datapath",
                &format!("pin path ok {} is free", pins.display()),
                "wan0 ok is up and forwards; hook: tcx (veth keeps its offloads at this hook)",
                "metrics ok 127.0.0.1:9461 is free",
                "Edge edge-a ok is reached over lan0",
                "Edge edge-b ok is reached over lan1",
            ],
        )?;

        lab.gateway.sysctl("net/ipv6/conf/wan0/forwarding", "0")?;
        lab.gateway.ip("link set lan0 down")?;
        write("\"wan0\", \"lan0\", \"lan2\"")?;
        let report = commands.run(&format!("{check} --json"))?;
        ensure!(report.status.code() == Some(1), "{report:?}");
        let report: Value = serde_json::from_slice(&report.stdout)?;
        let found: Vec<String> = report["host"]
            .as_array()
            .context("findings")?
            .iter()
            .map(|finding| {
                format!(
                    "{} {} {}",
                    finding["result"], finding["check"], finding["message"]
                )
                .replace('"', "")
            })
            .collect();
        for beginning in [
            "error wan0 wan0 does not forward IPv6: switch it on with `sysctl -w",
            "warning lan0 is down: bring it up with `ip link set dev lan0 up`",
            "error lan2 there is no interface `lan2`",
            "error Edge edge-b 203.0.113.140 is reached over lan1, where its answers would bypass the datapath",
        ] {
            ensure!(
                found.iter().any(|line| line.starts_with(beginning)),
                "no {beginning:?} in {found:#?}"
            );
        }
        Ok(())
    });
}

/// Rows of the table "What the host must have" in docs/operations.md, by words of theirs, and what `check` says when the lab has got them wrong.
const ROWS: [(&str, &[&str]); 11] = [
    (
        "CAP_BPF",
        &[
            "kernel Linux ",
            "this process lacks CAP_BPF",
            "`mount -t bpf bpf /sys/fs/bpf`",
        ],
    ),
    (
        "forwarding",
        &[
            "`sysctl -w net.ipv4.conf.wan0.forwarding=1`",
            "`sysctl -w net.ipv6.conf.wan0.forwarding=1`",
        ],
    ),
    ("rp_filter", &["`sysctl -w net.ipv4.conf.wan0.rp_filter=2`"]),
    (
        "src_valid_mark",
        &["`sysctl -w net.ipv4.conf.lan0.src_valid_mark=0`"],
    ),
    (
        "ip_local_port_range",
        &["`sysctl -w net.ipv4.ip_local_port_range="],
    ),
    (
        "tcp_syncookies",
        &[
            "net.ipv4.tcp_syncookies is 0",
            "net.ipv4.tcp_timestamps is 0",
        ],
    ),
    ("open files", &["LimitNOFILE="]),
    ("rxvlan off", &["`ethtool -K wan0 rxvlan off`"]),
    (
        "tx off gro on",
        &[
            "`ethtool -K PEER tx off gro on`",
            "`ethtool -K seen1 tx off`",
            "`ethtool -K seen1 gro on`",
        ],
    ),
    ("ethtool -L", &["`ethtool -L seen0 rx "]),
    // Nothing in the lab can merge for good.
    ("lro off", &[]),
];

/// The first column of that table.
fn rows_of_the_document() -> Vec<&'static str> {
    const DOCUMENT: &str = include_str!("../../../docs/operations.md");
    let (_, after) = DOCUMENT
        .split_once("## What the host must have")
        .unwrap_or_default();
    let (section, _) = after.split_once("\n## ").unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| Some(row.split_once(" | ")?.0));
    // The headings, and the line below them.
    cells.skip(2).collect()
}

#[test]
fn every_row_of_the_document_is_known_here() {
    let documented = rows_of_the_document();
    for row in &documented {
        let known = ROWS.iter().filter(|(words, _)| row.contains(words));
        assert_eq!(known.count(), 1, "{row}");
    }
    assert_eq!(documented.len(), ROWS.len(), "{documented:#?}");
}

/// Gets everything wrong that `check` looks at, and that can be got wrong here.
fn get_wrong(lab: &Lab) -> Result<()> {
    for (key, value) in [
        ("net/ipv4/conf/wan0/forwarding", "0"),
        ("net/ipv6/conf/wan0/forwarding", "0"),
        ("net/ipv4/conf/wan0/rp_filter", "1"),
        ("net/ipv4/conf/lan0/src_valid_mark", "1"),
        ("net/ipv4/ip_local_port_range", "1024 65535"),
        ("net/ipv4/tcp_syncookies", "0"),
        ("net/ipv4/tcp_timestamps", "0"),
    ] {
        lab.gateway.sysctl(key, value)?;
    }
    // A veth of which both ends are in sight.
    lab.gateway.ip(
        "link add seen0 numrxqueues 4 numtxqueues 4 type veth peer name seen1 numrxqueues 4 numtxqueues 4
         link set seen0 up
         link set seen1 up",
    )?;
    for family in ["ipv4", "ipv6"] {
        lab.gateway
            .sysctl(&format!("net/{family}/conf/seen0/forwarding"), "1")?;
    }
    lab.gateway
        .output("ethtool", &["-K", "seen1", "tx", "on", "gro", "off"])?;
    // Refused where it is 1 already.
    let _ = lab.gateway.output("ethtool", &["-L", "seen0", "rx", "1"]);
    Ok(())
}

/// The findings as lines of words.
fn findings(output: &[u8]) -> Result<Vec<String>> {
    let report: Value = serde_json::from_slice(output)?;
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let host = report["host"].as_array().context("findings")?;
    let line = |finding| {
        let [result, check, message] = ["result", "check", "message"].map(|key| text(finding, key));
        format!("{result} {check} {message}")
    };
    Ok(host.iter().map(line).collect())
}

#[test]
fn check_says_what_the_document_says() {
    lab_test("cli-check-document", &quiet(), |lab| {
        get_wrong(lab)?;
        let above = "link add link wan0 name wan0.7 type vlan id 7";
        let has_vlans = lab.gateway.ip(above).is_ok();
        if !has_vlans {
            eprintln!("partly skipped: this kernel has no VLAN interfaces (CONFIG_VLAN_8021Q)");
        }
        let text = CONFIG.replace(
            "interfaces = [\"wan0\"]",
            &format!(
                "interfaces = [\"wan0\", \"lan0\", \"lan1\", \"seen0\"]\nhook = \"xdp\"\npin_path = \"{}\"",
                lab.dir().join("pins").display()
            ),
        );
        let file = lab.write_file("wrong.toml", &text)?;
        let check = |limited: bool| {
            let mut command =
                lab.gateway
                    .command(if limited { "prlimit".into() } else { binary()? });
            if limited {
                command.args(["--nofile=2000:2000", "setpriv", "--bounding-set"]);
                command.args(["-bpf,-sys_admin,-sys_resource", "--inh-caps", "-all"]);
                command.arg(binary()?);
            }
            command.args(["check", "--json", "--config"]).arg(&file);
            let output = output_within(&mut command, TIMEOUT)?;
            findings(&output.stdout).with_context(|| format!("{output:?}"))
        };
        let found = check(true)?;
        let several = std::thread::available_parallelism()?.get() > 1;
        for (row, sentences) in ROWS {
            if (row == "rxvlan off" && !has_vlans) || (row == "ethtool -L" && !several) {
                continue;
            }
            for sentence in sentences {
                ensure!(
                    found.iter().any(|line| line.contains(sentence)),
                    "{row}: no {sentence:?} in {found:#?}"
                );
            }
        }
        // What it says to do helps.
        let of_seen = |line: &&String| line.split(' ').nth(1) == Some("seen0");
        for line in found.iter().filter(of_seen) {
            let commands = line.split('`').filter(|it| it.starts_with("ethtool"));
            for command in commands {
                let words: Vec<_> = command.split(' ').skip(1).collect();
                lab.gateway.output("ethtool", &words)?;
            }
        }
        let found = check(false)?;
        let seen: Vec<_> = found.iter().filter(of_seen).collect();
        ensure!(
            seen.len() == 1 && seen[0].starts_with("ok seen0 is up and forwards"),
            "{seen:#?}"
        );
        Ok(())
    });
}
