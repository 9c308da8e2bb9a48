//! `snigate check`, as far as it looks at the host.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use snigate_tests::lab_test;

use crate::rig::{CONFIG, Commands, quiet};

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
